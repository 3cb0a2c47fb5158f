//! The people who use Fechatter, and the server they use.

mod client;
mod log;
mod people;
mod reply;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use devdb::TestDatabase;
use fechatter_core::http::Listeners;
use fechatter_core::schema::{CODE, MIGRATOR};
use fechatter_core::token::generate_keys;
use fechatter_core::workspace::JoinPolicy;
use fechatter_server::{Config, WorkspaceCreation};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub(crate) use client::{Client, NOTHING};
pub(crate) use log::{Log, Logged};
pub(crate) use people::{Chat, Person, ids_of};
pub(crate) use reply::{Reply, seqs};

/// Nothing here takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Everybody's password, unless a test is about passwords.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running server with a database of its own; both end with the test.
pub(crate) struct TestApp {
    /// A client that has not signed in.
    pub(crate) anyone: Client,
    /// A client of the operations port.
    pub(crate) operator: Client,
    pub(crate) db: PgPool,
    pub(crate) private_key: SecretString,
    pub(crate) public_key: String,
    pub(crate) config: Config,
    server: Option<Running>,
    files: Folder,
    _database: TestDatabase,
}

/// A server; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) anyone: Client,
    operator: Client,
    running: Running,
}

/// A server's end: it begins when the guard is dropped, and is over when the task is.
struct Running {
    guard: DropGuard,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(config: Config) -> Self {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let listeners = servers().spawn(async move { Listeners::bind(any_port, any_port) });
        let listeners = listeners.await.unwrap().unwrap();
        let public = listeners.public.local_addr().unwrap();
        let operations = listeners.operations.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = fechatter_server::serve(config, listeners, shutdown.clone());
        let task = servers().spawn(async move {
            if let Err(error) = server.await {
                eprintln!("the server ended: {error:#}");
            }
        });
        Self {
            anyone: Client::of(public),
            operator: Client::of_operations(operations),
            running: Running { guard: shutdown.drop_guard(), task },
        }
    }
}

/// Where the servers run. Not on the tests' own threads: dropping a database blocks those, and
/// PostgreSQL drops none while it waits for a client that is only half connected.
fn servers() -> &'static Runtime {
    static SERVERS: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &SERVERS
}

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::now_v7().to_string());
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl TestApp {
    /// The files in the store, also those of unfinished uploads.
    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = self.files.files();
        // A server holds the lock of one as long as it runs.
        files.retain(|path| path.extension().is_none_or(|extension| extension != "lock"));
        files
    }

    /// A server with the development's settings: whoever comes gets in, as often as they like.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The development's settings, changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let (private_key, public_key) = generate_keys().unwrap();
        let mut config = Config::from_yaml(include_str!("../../../app.yml.example")).unwrap();
        config.database.url = database.url().into();
        config.database.max_connections = 4;
        config.signing.private_key = Some(private_key.clone());
        config.auth.public_keys = vec![public_key.clone()];
        config.signing.refresh_key =
            Some(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()).into());
        config.signing.secure_cookie = false;
        config.accounts.workspace_creation = WorkspaceCreation::Anyone;
        config.accounts.join_policy = JoinPolicy::Open;
        config.accounts.refuse_common_passwords = false;
        config.accounts.free_failures = 1_000_000;
        config.accounts.attempts_per_minute = 1_000_000;
        config.accounts.attempts_per_minute_overall = 1_000_000;
        config.http.requests_per_second = 1_000_000;
        config.http.burst = 1_000_000;
        let files = Folder::create();
        config.files.path.clone_from(&files.0);
        change(&mut config);

        let server = Server::start(config.clone()).await;
        Self {
            anyone: server.anyone,
            operator: server.operator,
            config,
            db: PgPoolOptions::new().max_connections(2).connect_lazy(&database.url()).unwrap(),
            private_key,
            public_key,
            server: Some(server.running),
            files,
            _database: database,
        }
    }

    /// Another server on the same database, with the same settings, changed.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Config)) -> Server {
        let mut config = self.config.clone();
        change(&mut config);
        Server::start(config).await
    }

    /// Ends the server, as SIGTERM does, and waits until it is gone. Others on the same database go on.
    pub(crate) async fn ends(&mut self) {
        let Running { guard, task } = self.server.take().unwrap();
        drop(guard);
        task.await.unwrap();
    }

    /// Waits until all who leave a workspace have left all their chats.
    pub(crate) async fn offboardings_end(&self) {
        let unfinished = "select exists (select from offboardings where ended_position is null)";
        let ending = async {
            while sqlx::query_scalar::<_, bool>(unfinished).fetch_one(&self.db).await.unwrap() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ending).await.unwrap();
    }

    /// Brings the database up to date, as every start of a server does.
    pub(crate) async fn migrates(&self) -> anyhow::Result<()> {
        fechatter_server::migrate(&self.config).await
    }

    /// Signs somebody up to "Acme".
    pub(crate) async fn user(&self, name: &str) -> Person {
        self.user_in(name, "Acme").await
    }

    /// Signs people up to "Acme", one after the other; the first one to come owns it.
    pub(crate) async fn users<const N: usize>(&self, names: [&str; N]) -> [Person; N] {
        let mut people = Vec::new();
        for name in names {
            people.push(self.user(name).await);
        }
        people.try_into().ok().unwrap()
    }

    /// Signs somebody up to a workspace.
    pub(crate) async fn user_in(&self, name: &str, workspace: &str) -> Person {
        let host = workspace.to_lowercase().replace(' ', "-");
        let mut sign_up = json!({
            "fullname": name,
            "email": format!("{name}@{host}.test"),
            "password": PASSWORD,
            "workspace": workspace,
        });
        if self.needs_setup_code().await {
            sign_up["setup_code"] = self.setup_code().into();
        }
        let reply = self.anyone.post("/api/signup", sign_up).await;
        Person::signed_in(&self.anyone, &reply.expect(reqwest::StatusCode::CREATED))
    }

    async fn needs_setup_code(&self) -> bool {
        let none = "select not exists (select from workspaces)";
        self.config.accounts.workspace_creation == WorkspaceCreation::FirstOnly
            && sqlx::query_scalar(none).fetch_one(&self.db).await.unwrap()
    }

    /// Signs somebody in once more, in a session of its own.
    pub(crate) async fn signs_in(&self, person: &Person) -> Person {
        let reply = self.tries(&person.email, PASSWORD).await;
        Person::signed_in(&self.anyone, &reply.expect(reqwest::StatusCode::OK))
    }

    /// Tries to sign in.
    pub(crate) async fn tries(&self, email: &str, password: &str) -> Reply {
        let credentials = json!({ "email": email, "password": password });
        self.anyone.post("/api/signin", credentials).await
    }

    /// Puts people into a workspace without the cost of their passwords; they cannot sign in.
    pub(crate) async fn extras(&self, workspace_id: i64, count: i32) -> Vec<i64> {
        sqlx::query_scalar(
            "with new as (
                 insert into users (email, email_key, password_hash)
                 select 'extra' || n || '@acme.test', 'extra' || n || '@acme.test', '-'
                 from generate_series(1, $2) as n
                 returning id
             )
             insert into workspace_members (workspace_id, user_id, fullname, role)
             select $1, id, 'Extra ' || id, 'member' from new
             returning user_id",
        )
        .bind(workspace_id)
        .bind(count)
        .fetch_all(&self.db)
        .await
        .unwrap()
    }

    /// Changes the database behind the server's back: clocks, ranks, what has no endpoint yet.
    pub(crate) async fn sql(&self, statement: &'static str) {
        let done = sqlx::query(statement).execute(&self.db).await.unwrap();
        assert_ne!(done.rows_affected(), 0, "{statement}");
    }

    /// Lets a person's sessions have been used so much longer ago.
    pub(crate) async fn ages_sessions_of(&self, person: &Person, by: &str) {
        let aged = sqlx::query(
            "update sessions set rotated_at = rotated_at - $2::text::interval where user_id = $1",
        );
        aged.bind(person.id).bind(by).execute(&self.db).await.unwrap();
    }

    /// Makes a person a suspended one, in all their workspaces.
    pub(crate) async fn suspends(&self, person: &Person) {
        let suspended = "update workspace_members set status = 'Suspended' where user_id = $1";
        sqlx::query(suspended).bind(person.id).execute(&self.db).await.unwrap();
    }

    /// Gives a person a role in all their workspaces.
    pub(crate) async fn promotes(&self, person: &Person, role: &str) {
        let promoted = "update workspace_members set role = $2 where user_id = $1";
        sqlx::query(promoted).bind(person.id).bind(role).execute(&self.db).await.unwrap();
    }

    /// The events that a workspace's log gets from now on.
    pub(crate) async fn log_of(&self, workspace_id: i64) -> Log {
        Log::from_now(self.db.clone(), workspace_id).await
    }

    /// A digest of each table, but for the counters of throttling.
    pub(crate) async fn state(&self) -> BTreeMap<String, Value> {
        let tables: Vec<String> = sqlx::query_scalar(
            "select tablename::text
             from pg_tables
             where schemaname = 'public'
               and tablename not in ('attempt_windows', 'signin_failures')",
        )
        .fetch_all(&self.db)
        .await
        .unwrap();
        let mut state = BTreeMap::new();
        for table in tables {
            let digest = format!(
                "select jsonb_build_array(
                     count(*), md5(coalesce(string_agg(t::text, '|' order by t::text), '')))
                 from {table} as t"
            );
            let digest: Value =
                sqlx::query_scalar(AssertSqlSafe(digest)).fetch_one(&self.db).await.unwrap();
            state.insert(table, digest);
        }
        state
    }
}
