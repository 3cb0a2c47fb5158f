//! The rules for write transactions, against a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use devdb::TestDatabase;
use fechatter_core::event::{Effect, Event, LeaveReason};
use fechatter_core::log::{self, DOORBELL_CHANNEL, Log, LogWriter, Range};
use fechatter_core::schema::{CODE, MIGRATOR};
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{ChatId, Position, SessionId, Timestamp, UserId, WorkspaceId};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    db: PgPool,
    log: Log,
    _database: TestDatabase,
}

impl World {
    async fn new() -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let pool = PgPoolOptions::new().max_connections(16);
        let db = pool.connect_with(database.options()).await.unwrap();
        sqlx::query(
            "insert into users (email, email_key, password_hash) values ('a@b', 'a@b', '')",
        )
        .execute(&db)
        .await
        .unwrap();
        Self { log: Log::new(db.clone()), db, _database: database }
    }

    /// A workspace with an empty log.
    async fn workspace(&self, name: &str) -> WorkspaceId {
        let mut writer = LogWriter::begin(&self.log).await.unwrap();
        let id: i64 = sqlx::query_scalar(
            "insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
             values ($1, $1, $1, 1, 'open') returning id",
        )
        .bind(name)
        .fetch_one(writer.db())
        .await
        .unwrap();
        writer.create_log(WorkspaceId(id)).await.unwrap();
        writer.commit().await.unwrap();
        WorkspaceId(id)
    }

    async fn positions(&self, workspace_id: WorkspaceId) -> Vec<i64> {
        sqlx::query_scalar("select position from events where workspace_id = $1 order by position")
            .bind(workspace_id)
            .fetch_all(&self.db)
            .await
            .unwrap()
    }
}

fn event() -> Event {
    Event::UserLeftWorkspace { user_id: UserId(1), reason: LeaveReason::Left }
}

#[tokio::test]
async fn concurrent_writers_leave_no_gap() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let mut writers = JoinSet::new();
    for events in 1..=20_usize {
        let log = world.log.clone();
        writers.spawn(async move {
            let mut writer = LogWriter::lock(&log, &[acme]).await.unwrap();
            for _ in 0..events {
                writer.append(acme, &event()).unwrap();
            }
            writer.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    assert_eq!(world.positions(acme).await, (1..=210).collect::<Vec<_>>());
}

#[tokio::test]
async fn writers_of_several_logs_do_not_deadlock() {
    let world = World::new().await;
    let (acme, evil) = (world.workspace("acme").await, world.workspace("evil").await);
    let mut writers = JoinSet::new();
    for i in 0..40 {
        let log = world.log.clone();
        writers.spawn(async move {
            let both = if i % 2 == 0 { [acme, evil] } else { [evil, acme] };
            let mut writer = LogWriter::lock(&log, &both).await.unwrap();
            for id in both {
                writer.append(id, &event()).unwrap();
            }
            writer.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    assert_eq!(world.positions(acme).await.len(), 40);
    assert_eq!(world.positions(evil).await.len(), 40);
}

#[tokio::test]
async fn a_reader_never_sees_a_lower_position_later() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let log = world.log.clone();
        writers.spawn(async move {
            for _ in 0..20 {
                let mut writer = LogWriter::lock(&log, &[acme]).await.unwrap();
                writer.append(acme, &event()).unwrap();
                writer.commit().await.unwrap();
            }
        });
    }
    let reads = async {
        let mut seen = 0;
        while seen < 160 {
            let from = Position(seen + 1);
            let range = Range { workspace_id: acme, from, to: Position(i64::MAX) };
            for entry in log::read(&world.db, &[range], None, 1_000).await.unwrap() {
                assert_eq!(entry.cursor.position, Position(seen + 1));
                seen += 1;
            }
        }
    };
    timeout(PATIENCE, reads).await.expect("the log ends early");
    writers.join_all().await;
}

#[tokio::test]
async fn a_check_under_the_lock_sees_every_earlier_commit() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let mut first = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    let log = world.log.clone();
    let second = tokio::spawn(async move {
        let mut writer = LogWriter::lock(&log, &[acme]).await.unwrap();
        sqlx::query_scalar::<_, String>("select name from workspaces where id = $1")
            .bind(acme)
            .fetch_one(writer.db())
            .await
            .unwrap()
    });
    // The second one waits for the first one's lock from here on.
    let waits = async {
        let waiting = "select 1 from pg_locks where not granted";
        while sqlx::query(waiting).fetch_optional(&world.db).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waits).await.expect("nobody waits for the lock");
    sqlx::query("update workspaces set name = 'renamed' where id = $1")
        .bind(acme)
        .execute(first.db())
        .await
        .unwrap();
    first.append(acme, &event()).unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), "renamed");
}

#[tokio::test]
async fn a_writer_that_does_not_commit_leaves_nothing_behind() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let mut writer = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    assert_eq!(writer.append(acme, &event()).unwrap(), Position(1));
    drop(writer);

    let mut writer = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    assert_eq!(writer.append(acme, &event()).unwrap(), Position(1));
    writer.commit().await.unwrap();
    assert_eq!(world.positions(acme).await, [1]);
}

#[tokio::test]
async fn a_log_that_is_not_held_takes_nothing() {
    let world = World::new().await;
    let (acme, evil) = (world.workspace("acme").await, world.workspace("evil").await);
    let mut writer = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    assert!(writer.append(evil, &event()).is_err());
    assert!(LogWriter::lock(&world.log, &[WorkspaceId(999)]).await.is_err());
}

#[tokio::test]
async fn the_database_refuses_gaps_and_other_isolation() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let append = "select append_events(array[$1::bigint], array[$2::bigint], 1, array['X'],
        array['none'], null, null, null, null, null, array['{}'::json])";
    let skipping = sqlx::query(append).bind(acme).bind(2_i64).execute(&world.db).await;
    assert!(skipping.unwrap_err().to_string().contains("do not continue the log"));

    let mut tx = world.db.begin_with("begin isolation level repeatable read").await.unwrap();
    let stale = sqlx::query(append).bind(acme).bind(1_i64).execute(&mut *tx).await;
    assert!(stale.unwrap_err().to_string().contains("read committed only"));
    drop(tx);

    sqlx::query(append).bind(acme).bind(1_i64).execute(&world.db).await.unwrap();
}

#[tokio::test]
async fn the_database_refuses_an_event_that_does_not_say_what_it_does_or_to_whom() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    for effect in [
        "null::text",
        "'joins'",
        "'leaves'",
        "'closes_chat'",
        "'suspends'",
        "'removes_person'",
        "'changes_person'",
        "'ends_sessions'",
        "'changes_message'",
        "'removes_message'",
    ] {
        let append = format!(
            "select append_events(array[{acme}::bigint], array[1::bigint], 1, array['X'],
                array[{effect}], null, null, null, null, null, array['{{}}'::json])"
        );
        let refused = sqlx::query(AssertSqlSafe(append)).execute(&world.db).await.unwrap_err();
        let reason = refused.to_string();
        assert!(reason.contains("does not name what its effect is about"), "{effect}: {reason}");
    }
}

#[tokio::test]
async fn an_event_says_what_it_does_and_to_whom() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    let session_id = SessionId(Uuid::from_u128(7));
    let mut writer = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    for event in [
        Event::ChatDeleted { id: ChatId(1) },
        Event::SessionRevoked { user_id: UserId(2), session_id, session_ids: vec![session_id] },
        Event::UserUpdated(person(acme, UserStatus::Active)),
        Event::UserUpdated(person(acme, UserStatus::Suspended)),
        Event::UserUpdated(person(acme, UserStatus::Left)),
        event(),
    ] {
        writer.append(acme, &event).unwrap();
    }
    writer.commit().await.unwrap();

    let range = Range { workspace_id: acme, from: Position(1), to: Position(6) };
    let entries = log::read(&world.db, &[range], None, 10).await.unwrap();
    let told: Vec<_> = entries.into_iter().map(|e| (e.effect, e.chat_id, e.user_id)).collect();
    assert_eq!(
        told,
        [
            (Some(Effect::ClosesChat), Some(ChatId(1)), None),
            (Some(Effect::EndsSessions(vec![session_id])), None, Some(UserId(2))),
            (Some(Effect::ChangesPerson(UserId(1))), None, None),
            (Some(Effect::Suspends(UserId(1))), None, None),
            (Some(Effect::RemovesPerson(UserId(1))), None, None),
            (Some(Effect::None), None, None),
        ]
    );
}

fn person(workspace_id: WorkspaceId, status: UserStatus) -> User {
    User {
        id: UserId(1),
        fullname: "Somebody".into(),
        email: "somebody@example.com".into(),
        status,
        created_at: Timestamp(Utc::now()),
        workspace_id,
        role: Role::Member,
        title: None,
        avatar_url: None,
    }
}

#[tokio::test]
async fn the_doorbell_rings_after_the_commit_with_the_workspaces_ids() {
    let world = World::new().await;
    let (acme, evil) = (world.workspace("acme").await, world.workspace("evil").await);
    let mut listener = PgListener::connect_with(&world.db).await.unwrap();
    listener.listen(DOORBELL_CHANNEL).await.unwrap();

    let mut writer = LogWriter::lock(&world.log, &[acme, evil]).await.unwrap();
    writer.append(acme, &event()).unwrap();
    writer.append(evil, &event()).unwrap();
    writer.commit().await.unwrap();

    let ring = timeout(PATIENCE, listener.recv()).await;
    let ids: BTreeSet<String> =
        ring.unwrap().unwrap().payload().split(',').map(ToOwned::to_owned).collect();
    assert_eq!(ids, BTreeSet::from([acme.to_string(), evil.to_string()]));
}

#[tokio::test]
async fn a_reader_gets_what_was_for_them_when_it_happened() {
    let world = World::new().await;
    let acme = world.workspace("acme").await;
    // One is in the chat all the time, the other from position 2 to 3.
    sqlx::raw_sql(
        "begin;
         insert into users (email, email_key, password_hash) values ('b@b', 'b@b', '');
         insert into workspace_members (workspace_id, user_id, fullname, role)
         values (1, 1, 'a', 'owner'), (1, 2, 'b', 'member');
         insert into chats
             (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id,
              member_count, creator_id)
         values (1, 'PrivateChannel', 'c', 'c', 'c', 'c', 1, 1, 1);
         insert into chat_members (workspace_id, chat_id, user_id, joined_position, left_position)
         values (1, 1, 1, 1, null), (1, 1, 2, 2, 3);
         commit",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let chat = Event::ChatDeleted { id: ChatId(1) };
    let session_id = SessionId(Uuid::nil());
    let session_ids = vec![session_id];
    let person = Event::SessionRevoked { user_id: UserId(2), session_id, session_ids };
    let mut writer = LogWriter::lock(&world.log, &[acme]).await.unwrap();
    for event in [&chat, &chat, &chat, &chat, &person, &event()] {
        writer.append(acme, event).unwrap();
    }
    writer.commit().await.unwrap();

    let range = Range { workspace_id: acme, from: Position(1), to: Position(100) };
    let read_by = async |reader| {
        let entries = log::read(&world.db, &[range], Some(UserId(reader)), 100).await.unwrap();
        entries.iter().map(|entry| entry.cursor.position.0).collect::<Vec<_>>()
    };
    assert_eq!(read_by(1).await, [1, 2, 3, 4, 6]);
    assert_eq!(read_by(2).await, [2, 3, 5, 6]);
    assert_eq!(read_by(3).await, [6]);
}

#[test]
fn only_two_functions_insert_into_the_log() {
    assert_eq!(files_that_insert_into("events"), ["append_events.sql", "send_message.sql"]);
}

/// They check what foreign keys would: that the chat, the sender and the message's number fit.
#[test]
fn only_three_functions_insert_messages() {
    let functions = ["insert_messages.sql", "insert_system_message.sql", "send_message.sql"];
    assert_eq!(files_that_insert_into("messages"), functions);
}

/// The names of the product's files, without tests, that insert into a table, once for each insert.
fn files_that_insert_into(table: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut folders: Vec<_> =
        ["fechatter_core/src", "fechatter_server/src", "notify_server/src", "migrations", "sql"]
            .map(|folder| root.join(folder))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
            let words: Vec<_> = text.split_whitespace().collect();
            let inserts = words.windows(3).filter(|w| *w == ["insert", "into", table]).count();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.extend(std::iter::repeat_n(name, inserts));
        }
    }
    found.sort();
    found
}
