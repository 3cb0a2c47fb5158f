//! Whatever happens to batches: everybody is answered, and nothing is sent twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{LazyLock, Mutex};

use devdb::TestDatabase;
use fechatter_core::config::DatabaseConfig;
use fechatter_core::db;
use fechatter_core::schema::{CODE, MIGRATOR};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, SessionId, UserId, WorkspaceId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;

/// For anything that is to happen at all.
const PATIENCE: Duration = Duration::from_secs(30);
const PEOPLE: i64 = 4;
/// Two workspaces of the same four people, with a chat each; a fifth person is in no chat.
const WORLD: &str = "
    insert into users (email, email_key, password_hash)
    select n::text || '@a.b', n::text || '@a.b', '' from generate_series(1, 5) as n;
    insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
    select name, name, name, 1, 'open' from (values ('one'), ('two')) as new (name);
    insert into workspace_members (workspace_id, user_id, fullname, fullname_key, role)
    select w, n, 'x', 'x', 'member' from generate_series(1, 2) as w, generate_series(1, 5) as n;
    insert into sessions (id, user_id, workspace_id, expires_at)
    select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, n, 1, now() + interval '1 day'
    from generate_series(1, 5) as n;
    insert into workspace_logs values (1), (2);
    begin;
    insert into chats (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id,
                       creator_id, member_count)
    select w, 'Group', 'x', 'x', 'x', 'x', 1, 1, 4 from generate_series(1, 2) as w;
    insert into chat_members (workspace_id, chat_id, user_id, joined_position)
    select w, w, n, 1 from generate_series(1, 2) as w, generate_series(1, 4) as n;
    select append_events(
        '{1,2}', '{1,1}', 0, '{NewChat,NewChat}', '{none,none}', null, null, null, null, null,
        array['{}', '{}']::json[]);
    commit;";

/// What goes wrong with one attempt to write a batch.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Nothing,
    Error,
    /// It is written, and nobody is told.
    LostAnswer,
    Delay,
    PanicBefore,
    PanicAfter,
}

/// The real way to write, with faults.
#[derive(Debug, Clone)]
struct Faulty {
    lanes: Lanes,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Write for Faulty {
    async fn write(&self, batch: Vec<Arc<Outgoing>>, locking: Locking) -> Result<Vec<Outcome>> {
        let lost = || Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()).into());
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::Nothing);
        match fault {
            Fault::Nothing => {}
            Fault::Error => return lost(),
            Fault::Delay => sleep(Duration::from_millis(5)).await,
            Fault::PanicBefore => panic!("before"),
            Fault::LostAnswer | Fault::PanicAfter => {
                self.lanes.write(batch, locking).await?;
                if matches!(fault, Fault::PanicAfter) {
                    panic!("after");
                }
                return lost();
            }
        }
        self.lanes.write(batch, locking).await
    }
}

/// What is sent, by whom, to which chat.
#[derive(Debug, Clone, Copy)]
enum Draft {
    Plain,
    /// Under the key of the message before, and the same.
    Repeat,
    /// The database refuses it: it is too long.
    Poison,
    /// By somebody who is not in the chat.
    Stranger,
}

/// Two workspaces with a chat each, and five people.
pub(crate) struct World {
    db: PgPool,
    log: Log,
    _database: TestDatabase,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let url = database.url().into();
        let config = DatabaseConfig { url, listen_url: None, max_connections: 10 };
        let db = db::connect(db::options(&config, "tests").unwrap(), &config);
        sqlx::raw_sql(WORLD).execute(&db).await.unwrap();
        Self { log: Log::new(db.clone()), db, _database: database }
    }

    pub(crate) fn db(&self) -> &PgPool {
        &self.db
    }

    /// Makes everything as it was at the beginning.
    pub(crate) async fn empty(&self) {
        let all = "truncate users, workspaces, workspace_members, sessions, workspace_logs, chats, chat_members,
                       messages, events, invites, departures restart identity";
        sqlx::raw_sql(all).execute(&self.db).await.unwrap();
        sqlx::raw_sql(WORLD).execute(&self.db).await.unwrap();
    }

    fn writer(&self, faults: &[Fault]) -> (MessageWriter, Ended) {
        let faults = Arc::new(Mutex::new(faults.iter().copied().collect()));
        let lanes = Lanes::new(self.log.clone());
        MessageWriter::start_with(self.log.clone(), Faulty { lanes, faults }).unwrap()
    }

    /// Holds the log of a workspace until dropped.
    pub(crate) async fn hold(&self, workspace: i64) -> Transaction<'static, Postgres> {
        let mut holder = db::begin(&self.db, "begin").await.unwrap();
        sqlx::query("set local idle_in_transaction_session_timeout = 0")
            .execute(&mut *holder)
            .await
            .unwrap();
        sqlx::query("select from workspace_logs where workspace_id = $1 for no key update")
            .bind(workspace)
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    }

    /// How often each key is there; and that seqs, positions, and events fit the messages.
    async fn keys(&self) -> HashMap<Uuid, i64> {
        let faults: i64 = sqlx::query_scalar(
            "select count(*)
             from (select seq, row_number() over (partition by chat_id order by id) as n from messages) as m
             full join (
                 select position, row_number() over (partition by workspace_id order by position) as n
                 from events
             ) as e on false
             where m.seq <> m.n or e.position <> e.n",
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        assert_eq!(faults, 0, "seqs and positions are to be contiguous");
        let unmatched: i64 = sqlx::query_scalar(
            "select count(*)
             from messages as m
             full join (select * from events where kind = 'NewMessage') as e
                 on e.chat_id = m.chat_id and e.message_id = m.id
             where m.id is null or e.message_id is null",
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        assert_eq!(unmatched, 0, "each message has its event");
        let keys = sqlx::query_as("select idempotency_key, count(*) from messages group by 1");
        keys.fetch_all(&self.db).await.unwrap().into_iter().collect()
    }
}

pub(crate) fn outgoing(workspace: i64, user: i64, content: &str, key: Uuid) -> Outgoing {
    let sender = AuthUser {
        id: UserId(user),
        workspace_id: WorkspaceId(workspace),
        session_id: SessionId(Uuid::from_u128(
            u128::from_str_radix(&user.to_string(), 16).unwrap(),
        )),
        expires_at: i64::MAX,
    };
    Outgoing::new(sender, ChatId(workspace), content.into(), key)
}

/// Sends all at once; the answers are in order.
async fn send_all(writer: &MessageWriter, messages: Vec<Outgoing>) -> Vec<Result<Sent>> {
    let sends = messages.into_iter().map(|message| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.send(message).await })
    });
    let mut answers = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        let answer = timeout(PATIENCE, send).await.expect("everybody is answered");
        answers.push(answer.unwrap());
    }
    answers
}

async fn ends(ended: Ended) {
    timeout(PATIENCE, ended).await.expect("the writer ends").unwrap();
}

/// Whether a sender cannot know what became of the message.
fn is_unknown(answer: &Result<Sent>) -> bool {
    matches!(answer, Err(AppError::Busy | AppError::Task(_)))
}

#[test]
fn whatever_fails_everybody_is_answered_and_nothing_is_sent_twice() {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let world = RUNTIME.block_on(World::new());
    let draft = prop_oneof![
        6 => Just(Draft::Plain), 2 => Just(Draft::Repeat), 1 => Just(Draft::Poison), 1 => Just(Draft::Stranger)
    ];
    let fault = prop_oneof![
        Just(Fault::Nothing),
        Just(Fault::Error),
        Just(Fault::LostAnswer),
        Just(Fault::Delay),
        Just(Fault::PanicBefore),
        Just(Fault::PanicAfter)
    ];
    let drafts = vec((draft, 1..=2_i64, 1..=PEOPLE), 1..30);
    let config =
        ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(drafts, vec(fault, 0..6)), |(drafts, faults)| {
            RUNTIME.block_on(play(&world, &drafts, &faults));
            Ok(())
        })
        .unwrap();
}

async fn play(world: &World, drafts: &[(Draft, i64, i64)], faults: &[Fault]) {
    let long = "x".repeat(10_001);
    let mut messages: Vec<Outgoing> = Vec::new();
    for &(draft, workspace, user) in drafts {
        let key = Uuid::new_v4();
        let message = match draft {
            Draft::Poison => outgoing(workspace, user, &long, key),
            Draft::Stranger => outgoing(workspace, 5, "hello", key),
            Draft::Repeat if !messages.is_empty() => messages[messages.len() - 1].clone(),
            Draft::Plain | Draft::Repeat => outgoing(workspace, user, "hello", key),
        };
        messages.push(message);
    }
    let (writer, ended) = world.writer(faults);
    let answers = send_all(&writer, messages.clone()).await;
    drop(writer);
    ends(ended).await;
    world.keys().await;

    // Whoever does not know asks again under the same key.
    let (writer, ended) = world.writer(&[]);
    for (message, answer) in messages.iter().zip(answers) {
        let unknown = is_unknown(&answer);
        assert!(!unknown || !faults.is_empty(), "{answer:?} without any fault");
        let answer = if unknown { writer.send(message.clone()).await } else { answer };
        let there = world.keys().await.get(&message.idempotency_key).copied().unwrap_or_default();
        match answer {
            Ok(Sent::New(sent) | Sent::Replayed(sent)) => {
                assert_eq!((there, sent.content), (1, message.content.clone()));
            }
            Err(AppError::NotFound) => assert_eq!((there, message.sender.id.0), (0, 5)),
            Err(AppError::Database(_)) => assert_eq!((there, message.content.len()), (0, 10_001)),
            Err(error) => panic!("{error:?}"),
        }
    }
    drop(writer);
    ends(ended).await;
}

#[tokio::test]
async fn a_log_that_somebody_holds_holds_up_nobody_else() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[]);
    let holder = world.hold(1).await;
    let held = tokio::spawn({
        let writer = writer.clone();
        async move { writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await }
    });
    for number in 0..20 {
        // Some before a batch begins to wait for the log, some after.
        sleep(Duration::from_millis(number)).await;
        let sent = writer.send(outgoing(2, 2, "free", Uuid::new_v4())).await;
        assert!(matches!(sent, Ok(Sent::New(_))), "{sent:?}");
    }
    assert!(!held.is_finished());
    holder.rollback().await.unwrap();
    assert!(matches!(held.await.unwrap(), Ok(Sent::New(_))));
    drop(writer);
    ends(ended).await;
}

#[tokio::test]
async fn a_workspace_that_cannot_send_is_refused_and_leaves_room_for_others() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[]);
    // The very first batches take long, for connecting and planning, and nobody is let in to wait long.
    for _ in 0..10 {
        writer.send(outgoing(2, 1, "warm", Uuid::new_v4())).await.unwrap();
    }
    let holder = world.hold(1).await;
    let waiting: Vec<_> = (0..2_048)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert!(waiting.iter().all(|send| !send.is_finished()));

    let one_too_many = writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await;
    assert!(matches!(one_too_many, Err(AppError::Busy)));
    let other = writer.send(outgoing(2, 1, "free", Uuid::new_v4())).await;
    assert!(matches!(other, Ok(Sent::New(_))), "{other:?}");

    // Nobody waits for a batch for longer than 2.5 s, nor, in one, for a log for ever.
    for send in waiting {
        let answer = timeout(PATIENCE, send).await.expect("everybody is answered").unwrap();
        assert!(matches!(answer, Err(AppError::Busy)), "{answer:?}");
    }
    holder.rollback().await.unwrap();
    let again = writer.send(outgoing(1, 1, "free again", Uuid::new_v4())).await;
    assert!(matches!(again, Ok(Sent::New(_))), "{again:?}");
    drop(writer);
    ends(ended).await;
}

#[tokio::test]
async fn the_end_answers_everybody() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[Fault::Delay]);
    let sends: Vec<_> = (0..600)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.send(outgoing(1, 1, "last", Uuid::new_v4())).await })
        })
        .collect();
    drop(writer);
    for send in sends {
        assert!(matches!(send.await.unwrap(), Ok(Sent::New(_))));
    }
    ends(ended).await;
    assert_eq!(world.keys().await.len(), 600);
}

#[tokio::test]
async fn a_commit_that_fails_behind_its_answer_is_no_success() {
    let world = World::new().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$
         begin
             raise exception 'too late' using errcode = 'check_violation';
         end;
         $$;
         create constraint trigger refuse after insert on messages deferrable initially deferred
             for each row when (new.content = 'late') execute function refuse();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let (writer, ended) = world.writer(&[]);
    let messages = ["before", "late", "after"].map(|text| outgoing(1, 1, text, Uuid::new_v4()));
    let answers = send_all(&writer, messages.into()).await;
    assert!(matches!(answers[0], Ok(Sent::New(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(AppError::Database(_))), "{answers:?}");
    assert!(matches!(answers[2], Ok(Sent::New(_))), "{answers:?}");
    assert_eq!(world.keys().await.len(), 2);
    drop(writer);
    ends(ended).await;
}

/// Writes nothing, for ever.
#[derive(Debug, Clone)]
struct Stuck;

impl Write for Stuck {
    async fn write(&self, _: Vec<Arc<Outgoing>>, _: Locking) -> Result<Vec<Outcome>> {
        pending().await
    }
}

/// Makes the task panic that hands out batches.
#[derive(Debug)]
struct Deadly;

impl Clone for Deadly {
    fn clone(&self) -> Self {
        panic!("the writer's own task")
    }
}

impl Write for Deadly {
    async fn write(&self, _: Vec<Arc<Outgoing>>, _: Locking) -> Result<Vec<Outcome>> {
        pending().await
    }
}

async fn stalls(write: impl Write, for_as_long_as: Duration) {
    let db = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let (writer, _ended) = MessageWriter::start_with(Log::new(db), write).unwrap();
    assert_eq!(writer.queue.stalled(), Duration::ZERO);
    assert!(writer.health().is_good());

    let message = outgoing(1, 1, "hello", Uuid::new_v4());
    let _receipt = writer.queue.push(Arc::new(message)).unwrap();
    let stalled = async {
        while writer.queue.stalled() < for_as_long_as {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, stalled).await.expect("it stalls");
}

#[tokio::test]
async fn a_writer_that_writes_nothing_while_something_waits_has_stalled() {
    stalls(Stuck, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_writer_that_is_gone_has_stalled_for_ever() {
    stalls(Deadly, Duration::MAX).await;
}
