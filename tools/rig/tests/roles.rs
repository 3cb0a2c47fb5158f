//! Tests the three database roles of `docs/operating.md`: both servers work with them, and PostgreSQL
//! refuses statements that a role does not need.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{env, path::Path, process::Command, time::Duration};

use rig::{Answer, Follower, Heard, Programs, Setup};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);
const DATABASE: &str = "fechatter_roles";

#[tokio::test]
async fn servers_work_with_three_roles_that_have_no_more_rights_than_needed() {
    let test = env::current_exe().unwrap();
    let programs = Programs::in_folder(test.ancestors().nth(2).unwrap()).unwrap();
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roles");
    let mut cluster = Setup {
        programs: programs.clone(),
        servers: 1,
        notifiers: 1,
        logs: logs.clone(),
        environment: Vec::new(),
        settings: Vec::new(),
    }
    .start()
    .await
    .unwrap();
    devdb::create_database_if_absent(&cluster.postgres.url(DATABASE)).await.unwrap();
    let mut admin = PgConnection::connect(&cluster.postgres.url(DATABASE)).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(documented_role_sql())).execute(&mut admin).await.unwrap();
    let address = cluster.postgres.address();
    let url = |role: &str| format!("postgres://{role}:secret@{address}/{DATABASE}");
    for role in ["fechatter_migrator", "fechatter_server", "fechatter_notify"] {
        let password = format!("alter role {role} password 'secret'");
        sqlx::raw_sql(AssertSqlSafe(password)).execute(&mut admin).await.unwrap();
    }

    let mut migrate = Command::new(&programs.fechatter_server);
    migrate.arg("migrate").env("FECHATTER_CONFIG", logs.join("app.yml"));
    migrate.env("DATABASE_URL", url("fechatter_migrator"));
    let migrated = migrate.output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    for (process, role) in [
        (&mut cluster.servers[0], "fechatter_server"),
        (&mut cluster.notifiers[0], "fechatter_notify"),
    ] {
        process.stop().unwrap();
        process.set("DATABASE_URL", &url(role));
        process.start().unwrap();
        process.ready(&cluster.client, PATIENCE).await.unwrap();
    }

    let signed_up = cluster.rest.sign_up(0, "alice", "Acme").await.ok().unwrap();
    let alice = cluster.rest.person(&signed_up).unwrap();
    let chat = alice.create_chat("PublicChannel", "lunch", &[]).await.ok().unwrap();
    let chat = fechatter_core::ChatId(chat["id"].as_i64().unwrap());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut follower = Follower {
        addresses: cluster.events.clone(),
        server: 0,
        token: alice.token.clone(),
        cursor: None,
        pause: Duration::from_millis(20),
    };
    tokio::spawn(async move {
        let on_heard = |heard: Heard<'_>| {
            if let Heard::Frame(frame) = heard {
                let _ = sender.send(serde_json::from_slice::<Value>(frame.data).unwrap());
            }
        };
        follower.follow(on_heard).await
    });
    let mut next_event = async || timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
    assert_eq!(next_event().await["event"], "Ready");
    let sent = alice.send(chat, "noodles?", Uuid::new_v4()).await.ok().unwrap();
    assert_eq!(next_event().await["id"], sent["id"]);
    assert!(matches!(
        alice.call(reqwest::Method::DELETE, &format!("/api/chat/{chat}"), None).await,
        Answer::Ok { .. }
    ));
    assert_eq!(next_event().await["event"], "ChatDeleted");

    for (role, statement) in [
        ("fechatter_server", "create table more (id int)"),
        ("fechatter_server", "drop table messages"),
        ("fechatter_server", "alter table messages add column more int"),
        ("fechatter_server", "create function more() returns int language sql return 1"),
        ("fechatter_notify", "delete from events"),
        ("fechatter_notify", "update users set password_hash = ''"),
        ("fechatter_notify", "insert into workspace_logs values (1)"),
    ] {
        let mut db = PgConnection::connect(&url(role)).await.unwrap();
        let refused = sqlx::raw_sql(statement).execute(&mut db).await.unwrap_err();
        let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap();
        assert_eq!(code, "42501", "{role}: {statement}: {refused}");
    }
}

/// Returns the SQL that `docs/operating.md` shows for the three roles, with the name of this test's
/// database.
fn documented_role_sql() -> String {
    let page = include_str!("../../../docs/operating.md");
    let (_, block) = page.split_once("<!-- three roles -->\n```sql\n").unwrap();
    let (sql, _) = block.split_once("```").unwrap();
    sql.replace("on database fechatter to", &format!("on database {DATABASE} to"))
}
