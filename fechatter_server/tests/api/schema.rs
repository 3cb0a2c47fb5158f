//! The rules that the database holds by itself, whatever the server does.

use std::time::Duration;

use devdb::TestDatabase;
use fechatter_core::schema::{CODE, MIGRATOR};
use futures_util::future::join_all;
use reqwest::StatusCode;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::harness::{NOTHING, TestApp};

/// Runs statements in one transaction; the constraint that refuses them, or none.
async fn refused_by(db: &PgPool, statements: String) -> Option<String> {
    let all = format!("begin; {statements}; commit");
    let mut connection = db.acquire().await.unwrap();
    let error = sqlx::raw_sql(AssertSqlSafe(all)).execute(&mut *connection).await.err();
    sqlx::raw_sql("rollback").execute(&mut *connection).await.unwrap();
    error.map(|error| {
        let error = error.into_database_error().unwrap();
        error.constraint().unwrap_or(error.message()).to_owned()
    })
}

fn chat(chat_type: &str, pair: &str, member_count: usize) -> String {
    format!(
        "insert into chats (workspace_id, chat_type, name, name_key, name_unique, name_skeleton,
                            owner_id, member_count, creator_id, single_low, single_high)
         values (1, '{chat_type}', 'c', 'c', 'c', 'c', 1, {member_count}, 1, {pair})"
    )
}

fn members<const N: usize>(people: [i64; N]) -> String {
    format!(
        "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
         select 1, (select max(id) from chats), person, 9 from unnest(array{people:?}::bigint[]) as person"
    )
}

#[tokio::test]
async fn the_database_holds_the_rules_of_membership() {
    let app = TestApp::start().await;
    app.users(["alice", "bob", "carol", "dave"]).await;
    app.user_in("mallory", "Evil Corp").await;
    let no_pair = "null, null";
    let refused = [
        ("a Single of one", chat("Single", "1, 2", 1), members([1]), "chats_members_at_creation"),
        (
            "a third person",
            chat("Single", "1, 2", 3),
            members([1, 2, 3]),
            "chat_members_single_is_fixed",
        ),
        ("a Single with oneself", chat("Single", "1, 1", 1), members([1]), "chats_single_pair"),
        ("a Single of nobody", chat("Single", no_pair, 1), members([1]), "chats_single_pair"),
        ("a Group of two", chat("Group", no_pair, 2), members([1, 2]), "chats_members_at_creation"),
        (
            "a public channel of two",
            chat("PublicChannel", no_pair, 2),
            members([1, 2]),
            "chats_members_at_creation",
        ),
        (
            "an absent owner",
            chat("PrivateChannel", no_pair, 1),
            members([2]),
            "chats_owner_is_member",
        ),
        ("a wrong count", chat("PrivateChannel", no_pair, 2), members([1]), "chats_member_count"),
        (
            "a stranger",
            chat("PrivateChannel", no_pair, 2),
            members([1, 5]),
            "chat_members_workspace_id_user_id_fkey",
        ),
        (
            "one person twice",
            chat("PrivateChannel", no_pair, 2),
            members([1, 1]),
            "chat_members_pkey",
        ),
    ];
    for (what, chat, members, constraint) in refused {
        let by = refused_by(&app.db, format!("{chat}; {members}")).await;
        assert_eq!(by.as_deref(), Some(constraint), "{what}");
    }
    let allowed = format!("{}; {}", chat("Group", no_pair, 3), members([1, 2, 3]));
    assert_eq!(refused_by(&app.db, allowed).await, None);
}

#[tokio::test]
async fn the_database_holds_the_rules_of_messages() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    app.user_in("mallory", "Evil Corp").await;
    let single = alice.opens_single_with(&bob).await;
    alice.sends(&single, "hello").await;
    let message = |workspace: i64, sender: i64, seq: i64, key: u8, content: &str| {
        format!(
            "insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
             values ({workspace}, {}, {seq}, {sender}, {content},
                     '00000000-0000-0000-0000-0000000000{key:02}', '')",
            single.id
        )
    };
    let refused = [
        ("a seq twice", message(1, 1, 1, 1, "''"), "messages_seq_key"),
        ("too long", message(1, 1, 2, 1, "repeat('x', 10001)"), "messages_content_check"),
        (
            "a key twice",
            format!("{}; {}", message(1, 1, 2, 1, "''"), message(1, 1, 3, 1, "''")),
            "messages_idempotency_key",
        ),
    ];
    for (what, statements, constraint) in refused {
        let by = refused_by(&app.db, statements).await;
        assert_eq!(by.as_deref(), Some(constraint), "{what}");
    }
    for (what, workspace, sender) in
        [("another workspace's sender", 1, 3), ("another workspace's chat", 2, 3)]
    {
        for outcome in [
            "select outcome from send_message($1, $2, null, $3, 'hello', $4, '', 7, true)",
            "select outcomes[1] from write_batch(array['send'], array[$1::bigint], array[$2::bigint],
                 array[null::uuid], array[$3::bigint], array[null::bigint], array['hello'],
                 array[$4::uuid], array[''::bytea], '{}', '{}', '{}', '{}', '{}', 7, true)",
        ] {
            let outcome: String = sqlx::query_scalar(outcome)
                .bind::<i64>(workspace)
                .bind::<i64>(sender)
                .bind(single.id)
                .bind(Uuid::now_v7())
                .fetch_one(&app.db)
                .await
                .unwrap();
            assert_eq!(outcome, "not_found", "{what}");
        }
    }
    let leaves = format!(
        "update chat_members set left_position = 99 where chat_id = {} and user_id = 1",
        single.id
    );
    let by = refused_by(&app.db, leaves).await;
    assert_eq!(by.as_deref(), Some("chat_members_single_is_fixed"));
}

#[tokio::test]
async fn a_deleted_chats_messages_are_purged() {
    let app = TestApp::start().await;
    let [alice] = app.users(["alice"]).await;
    let chat = alice.creates_public_channel("lunch").await;
    let kept = alice.creates_public_channel("dinner").await;
    for chat in [&chat, &kept] {
        alice.sends(chat, "hello").await;
    }
    alice.delete(&chat.path, NOTHING).await.expect(StatusCode::NO_CONTENT);

    let count = async |id: i64| {
        let count =
            sqlx::query_scalar::<_, i64>("select count(*) from messages where chat_id = $1");
        count.bind(id).fetch_one(&app.db).await.unwrap()
    };
    let purged = async {
        while count(chat.id).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), purged).await.expect("never purged");
    assert_eq!(count(kept.id).await, 1);
}

#[tokio::test]
async fn unique_text_is_compared_byte_by_byte() {
    let app = TestApp::start().await;

    let others: Vec<String> = sqlx::query_scalar(
        "select distinct i.indexrelid::regclass::text
         from pg_index as i
         join pg_class as t on t.oid = i.indrelid
         cross join unnest(i.indcollation) as collation_of
         where i.indisunique
           and t.relnamespace = 'public'::regnamespace
           and t.relname <> '_sqlx_migrations'
           and collation_of not in (0, 'pg_catalog.\"C\"'::regcollation)",
    )
    .fetch_all(&app.db)
    .await
    .unwrap();

    assert_eq!(others, Vec::<String>::new());
}

/// What the database has of each function: the text between its first two `$$`.
async fn bodies(db: &PgPool) -> Vec<(String, String)> {
    let names: Vec<_> = CODE.iter().map(|(name, _)| *name).collect();
    sqlx::query_as(
        "select proname::text, prosrc from pg_proc where proname = any($1) order by proname",
    )
    .bind(names)
    .fetch_all(db)
    .await
    .unwrap()
}

#[tokio::test]
async fn the_database_has_the_functions_of_this_version_after_a_migration() {
    let app = TestApp::start().await;
    let body = |text: &str| text.split("$$").nth(1).unwrap().to_owned();
    let functions = CODE.iter().filter(|(_, text)| text.contains("create or replace function"));
    let mut expected: Vec<_> =
        functions.map(|(name, text)| ((*name).to_owned(), body(text))).collect();
    expected.sort();
    assert_eq!(bodies(&app.db).await, expected);

    sqlx::raw_sql(
        "drop function uncount_sign_in;
         create or replace function count_attempts(buckets text[], allowed integer[])
         returns float8 language sql as 'select 1.0'",
    )
    .execute(&app.db)
    .await
    .unwrap();
    let reply = app.operator.get("/readyz").await;
    reply.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(reply.text.contains("too old"), "{}", reply.text);

    app.migrates().await.unwrap();

    assert_eq!(bodies(&app.db).await, expected);
    app.operator.get("/readyz").await.expect(StatusCode::NO_CONTENT);
}

/// Notes a migration that this version does not know, and up to which version back it serves servers.
async fn comes_to_a_later_version(app: &TestApp, serves_from: i64) {
    app.sql(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'later', true, '', 0)",
    )
    .await;
    sqlx::query("update schema_state set serves_from = $1, code_digest = ''")
        .bind(serves_from)
        .execute(&app.db)
        .await
        .unwrap();
}

#[tokio::test]
async fn this_version_works_with_a_newer_compatible_schema() {
    let app = TestApp::start().await;
    let newest = MIGRATOR.iter().last().unwrap().version;
    comes_to_a_later_version(&app, newest).await;
    let later = "create or replace function uncount_sign_in(own text[], guesses text, overall text[]) returns void
                 language sql as 'select'";
    sqlx::raw_sql(later).execute(&app.db).await.unwrap();
    let before = bodies(&app.db).await;

    app.migrates().await.unwrap();

    assert_eq!(bodies(&app.db).await, before);
    app.operator.get("/readyz").await.expect(StatusCode::NO_CONTENT);
    app.user("alice").await;
}

#[tokio::test]
async fn this_version_refuses_a_newer_incompatible_schema() {
    let app = TestApp::start().await;
    comes_to_a_later_version(&app, 9999).await;

    let refused = app.migrates().await.unwrap_err();

    assert!(refused.to_string().contains("too new"), "{refused}");
    let reply = app.operator.get("/readyz").await;
    reply.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(reply.text.contains("too new"), "{}", reply.text);
}

#[tokio::test]
async fn a_database_with_other_migrations_is_refused() {
    let app = TestApp::start().await;
    app.sql("update _sqlx_migrations set checksum = 'x' where version = 3").await;

    let refused = app.migrates().await.unwrap_err();

    assert!(refused.to_string().contains("not those of this version"), "{refused}");
    let reply = app.operator.get("/readyz").await;
    reply.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(reply.text.contains("not those of this version"), "{}", reply.text);
}

#[tokio::test]
async fn an_older_version_does_not_replace_newer_functions() {
    let app = TestApp::start().await;
    let newer = "create or replace function uncount_sign_in(own text[], guesses text, overall text[]) returns void
                 language sql as 'select'";
    sqlx::raw_sql(newer).execute(&app.db).await.unwrap();
    app.sql("update schema_state set code_version = 1000, code_digest = ''").await;
    let before = bodies(&app.db).await;

    app.migrates().await.unwrap();
    assert_eq!(bodies(&app.db).await, before);

    app.sql("update schema_state set code_version = 0").await;
    app.migrates().await.unwrap();
    assert_ne!(bodies(&app.db).await, before);
}

#[tokio::test]
async fn servers_that_start_together_migrate_one_after_the_other() {
    static NOTHING: Migrator = Migrator::DEFAULT;
    let app = TestApp::start().await;
    let empty = TestDatabase::create(&NOTHING, &[]).await;
    let mut config = app.config.clone();
    config.database.url = empty.url().into();

    let starts = join_all((0..4).map(|_| fechatter_server::migrate(&config))).await;

    for start in starts {
        start.unwrap();
    }
}
