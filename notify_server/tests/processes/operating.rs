//! What operators meet: databases, poolers and clocks that are not as they should be.

use std::time::Duration;
use std::{env, fs};

use devdb::{Postgres, Proxy, Scratch, TestDatabase, with_database};
use fechatter_core::schema::{CODE, MIGRATOR};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{sleep, timeout};

use crate::fechatter::{Fechatter, Person, Setting};

/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// True where what a test needs is installed. In CI it has to be.
fn is_there(is_installed: bool, package: &str) -> bool {
    assert!(is_installed || env::var_os("CI").is_none(), "apt-get install {package}");
    if !is_installed {
        eprintln!("skipped: {package} is not installed");
    }
    is_installed
}

/// A message of a person reaches their own stream.
async fn chats(person: &Person<'_>) {
    let mut stream = person.listens(None).await;
    let draft = json!({ "name": "lunch", "chat_type": "PrivateChannel" });
    let chat = person.post("/api/chat", &draft).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    let sent = person.post(&messages, &json!({ "content": "soup" })).await;
    assert_eq!(stream.until("NewMessage").await["id"], sent["id"]);
}

/// Waits until a server has refused to start; what it has logged.
async fn ends(fechatter: &mut Fechatter, server: usize) -> String {
    let ending = async {
        while fechatter.servers[server].try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ending).await.expect("the server goes on");
    assert!(!fechatter.servers[server].try_wait().unwrap().unwrap().success());
    fechatter.logged(server)
}

fn setting(name: &'static str, value: &str) -> Setting {
    (name, value.to_owned())
}

#[tokio::test]
async fn a_pooler_that_gives_each_client_a_session_does_no_harm() {
    let postgres = Postgres::temporary().unwrap();
    let pooler = postgres.pooler("session").unwrap();
    if !is_there(pooler.is_some(), "pgbouncer") {
        return;
    }
    let url = postgres.url_through(pooler.as_ref().unwrap().address(), "postgres");
    let direct = setting("FECHATTER__DATABASE__LISTEN_URL", &postgres.url("postgres"));

    for settings in [&[][..], &[direct]] {
        let fechatter = Fechatter::start_on(&url, settings).await;
        let alice = fechatter.signs_up("alice", &format!("Acme {}", settings.len())).await;
        chats(&alice).await;
        let heard = "fechatter_doorbells_heard_total 0";
        assert!(!fechatter.metrics(1).await.contains(heard));
    }
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused() {
    let postgres = Postgres::temporary().unwrap();
    for pool_mode in ["transaction", "statement"] {
        let pooler = postgres.pooler(pool_mode).unwrap();
        if !is_there(pooler.is_some(), "pgbouncer") {
            return;
        }
        let url = postgres.url_through(pooler.as_ref().unwrap().address(), "postgres");
        let mut fechatter = Fechatter::launch(&url, &[], [&[], &[]], &[]);
        for server in 0..2 {
            let complaint = ends(&mut fechatter, server).await;
            assert!(complaint.contains("pool_mode session"), "{complaint}");
        }
    }
}

#[tokio::test]
async fn an_address_for_listening_at_which_nothing_is_heard_is_refused() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let elsewhere = with_database(&database.url(), "postgres");
    let settings = [setting("FECHATTER__DATABASE__LISTEN_URL", &elsewhere)];

    let mut fechatter = Fechatter::launch(&database.url(), &settings, [&[], &[]], &[]);

    let complaint = ends(&mut fechatter, 1).await;
    assert!(complaint.contains("database.listen_url"), "{complaint}");
}

#[tokio::test]
async fn a_database_that_is_not_in_utf_8_is_refused() {
    let postgres = Postgres::temporary().unwrap();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let create = format!("create database {encoding} encoding {encoding} template template0");
        let mut admin = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
        admin.execute(AssertSqlSafe(create)).await.unwrap();
        let url = postgres.url(&encoding.to_lowercase());

        let mut fechatter = Fechatter::launch(&url, &[], [&[], &[]], &[]);

        for server in 0..2 {
            let complaint = ends(&mut fechatter, server).await;
            assert!(complaint.contains("createdb --encoding=UTF8"), "{complaint}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_address_has_named_a_standby_for_a_moment_the_database_is_written_to_again() {
    let scratch = Scratch::new().unwrap();
    let primary = Postgres::in_scratch_folder(&scratch.path().join("primary")).unwrap();
    let database = Proxy::start(primary.address()).await.unwrap();
    let url = primary.url_through(database.address(), "postgres");
    let fechatter = Fechatter::start_on(&url, &[]).await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let home = scratch.path().join("standby");
    let standby = primary.standby(&home, primary.address()).await.unwrap();
    standby.catch_up_with(&primary).await.unwrap();
    let draft = json!({ "name": "lunch", "chat_type": "PrivateChannel" });
    let chat = alice.post("/api/chat", &draft).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    standby.catch_up_with(&primary).await.unwrap();

    database.retarget(standby.address());
    database.cut();
    let message = json!({ "content": "soup" });
    for (path, body) in [("/api/chat", &draft), (messages.as_str(), &message)] {
        // A connection that was cut may be found out first.
        let mut answer = alice.call(Method::POST, path, body).await;
        for _ in 0..3 {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            answer = alice.call(Method::POST, path, body).await;
        }
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let (status, why) = fechatter.readiness(0).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("read-only"), "{why}");
    // Reading is all that this one does.
    assert_eq!(fechatter.readiness(1).await.0, StatusCode::NO_CONTENT);

    // What is connected stays so.
    database.retarget(primary.address());
    fechatter.is_ready().await;
    for _ in 0..10 {
        alice.post("/api/chat", &draft).await;
        alice.post(&messages, &message).await;
    }
    chats(&alice).await;
}

#[tokio::test]
async fn clocks_of_hosts_may_differ() {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.into_iter().find(|library| library.exists());
    if !is_there(library.is_some(), "faketime") {
        return;
    }
    let library = library.unwrap().to_string_lossy().into_owned();
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let at = |offset: &str| {
        [
            setting("LD_PRELOAD", &library),
            setting("FAKETIME", offset),
            setting("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    };
    for (n, (rest, events)) in [("+8s", "-8s"), ("-2m", "+0s"), ("+20m", "-20m")].iter().enumerate()
    {
        let own = [at(rest), at(events)];
        let fechatter = Fechatter::launch(&database.url(), &[], [&own[0], &own[1]], &[]);
        fechatter.is_ready().await;

        let alice = fechatter.signs_up("alice", &format!("Acme {n}")).await;

        chats(&alice).await;
        alice.does(Method::GET, "/api/me", &Value::Null).await;
        chats(&alice.signs_in().await).await;
    }
}

#[tokio::test]
async fn without_its_schema_neither_server_is_ready_and_both_say_why() {
    let postgres = Postgres::temporary().unwrap();

    let url = postgres.url("postgres");
    let fechatter = Fechatter::launch(&url, &[], [&[], &[]], &["--no-migrate"]);

    for server in 0..2 {
        let (status, why) = fechatter.readiness(server).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        for text in [&why, &fechatter.logged(server)] {
            assert!(text.contains("fechatter_server migrate"), "{text}");
        }
    }
    let answer = fechatter.tries_to_sign_in("alice@acme.test").await;
    assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_migrated_database_may_be_read_only_when_the_servers_start() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    // What the first start adds to a template: nothing is to be written at the next one.
    drop(Fechatter::start_on(&database.url(), &[]).await);
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let allow =
        |what: &str| format!("alter database {name} set default_transaction_read_only = {what}");
    let mut admin = PgConnection::connect(&database.url()).await.unwrap();
    admin.execute(AssertSqlSafe(allow("on"))).await.unwrap();

    let fechatter = Fechatter::launch(&database.url(), &[], [&[], &[]], &[]);

    let (status, why) = fechatter.readiness(0).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("read-only"), "{why}");
    admin.execute(AssertSqlSafe(allow("off"))).await.unwrap();
    fechatter.is_ready().await;
    chats(&fechatter.signs_up("alice", "Acme").await).await;
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_and_left_alone() {
    let postgres = Postgres::temporary().unwrap();
    let mut admin = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
    admin.execute("create table users (id int)").await.unwrap();

    let mut fechatter = Fechatter::launch(&postgres.url("postgres"), &[], [&[], &[]], &[]);

    let complaint = ends(&mut fechatter, 0).await;
    assert!(complaint.contains("a database of its own"), "{complaint}");
    let tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut admin).await.unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_server_begins_by_saying_what_it_is_and_does_not_tell_of_probes() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let filter = [setting("FECHATTER__LOG__FILTER", "info")];
    let fechatter = Fechatter::start_on(&database.url(), &filter).await;

    fechatter.metrics(0).await;
    fechatter.metrics(1).await;
    fechatter.signs_up("alice", "Acme").await.listens(None).await;

    let of_own = [
        ("fechatter_server", "connections", "/api/signup"),
        ("notify_server", "streams", "/events"),
    ];
    for (server, (name, limit, path)) in of_own.into_iter().enumerate() {
        let logged = fechatter.logged(server);
        let first = logged.lines().next().unwrap();
        let first: Value = serde_json::from_str(first).unwrap();
        assert_eq!(first["message"], name);
        assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
        for field in ["listen", "operations_listen", "public_url", limit, "database_connections"] {
            assert!(!first[field].is_null(), "{field}: {first}");
        }
        let answered = logged.lines().find(|line| line.contains(path)).unwrap();
        let answered: Value = serde_json::from_str(answered).unwrap();
        assert_eq!(answered["message"], "answered");
        for field in ["method", "request_id", "status", "ms"] {
            assert!(!answered[field].is_null(), "{field}: {answered}");
        }
        // Nobody is signed in before they have signed up.
        assert_eq!(answered["user_id"].is_null(), server == 0, "{answered}");
        for probe in ["/readyz", "/metrics"] {
            assert!(!logged.contains(probe), "{logged}");
        }
    }
}

#[tokio::test]
async fn every_counter_is_there_before_it_has_counted() {
    const METRICS: &str = include_str!("../../../fechatter_core/src/metrics.rs");
    let fechatter = Fechatter::start().await;
    let told = fechatter.metrics(0).await + &fechatter.metrics(1).await;

    let names = METRICS.split('"').filter(|text| {
        // Its labels are what clients ask for.
        text.starts_with("fechatter_")
            && text.ends_with("_total")
            && *text != "fechatter_requests_total"
    });

    let is_there = |name: &str| {
        told.lines().any(|line| {
            line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"))
        })
    };
    let missing: Vec<_> = names.clone().filter(|name| !is_there(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(names.count() >= 10);
}

#[tokio::test]
async fn each_server_warns_of_probable_mistakes_in_the_keys_that_it_reads() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let settings = [
        setting("FECHATTER__SERVER__PUBLIC_URL", "https://chat.example"),
        setting("FECHATTER__AUTH__SECURE_COOKIE", "false"),
    ];
    let fechatter = Fechatter::start_on(&database.url(), &settings).await;

    assert!(fechatter.logged(0).contains("auth.secure_cookie"));
    for server in 0..2 {
        let logged = fechatter.logged(server);
        assert!(logged.contains("http.trusted_proxies"), "{logged}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_one_that_is_too_low_is_told() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let many = [
        setting("FECHATTER__NOTIFY__STREAMS", "2000000000"),
        setting("FECHATTER__LIMITS__CONNECTIONS", "2000000000"),
    ];
    let fechatter = Fechatter::start_on(&database.url(), &many).await;

    for server in 0..2 {
        let limits = format!("/proc/{}/limits", fechatter.servers[server].pid().unwrap());
        let limits = fs::read_to_string(limits).unwrap();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let (soft, hard) = files.trim().split_once(' ').unwrap();
        assert!(hard.trim().starts_with(&format!("{soft} ")), "{files}");
        let is_low = soft.parse::<u64>().is_ok_and(|allowed| allowed < 2_000_000_000);
        let logged = fechatter.logged(server);
        assert_eq!(logged.contains("ulimit -Hn"), is_low, "{logged}");
    }
}

#[tokio::test]
async fn hanging_up_ends_nothing() {
    let mut fechatter = Fechatter::start().await;
    for server in &mut fechatter.servers {
        server.signal("HUP").unwrap();
    }

    let alice = fechatter.signs_up("alice", "Acme").await;

    chats(&alice).await;
    assert_eq!(fechatter.readiness(0).await.0, StatusCode::NO_CONTENT);
}
