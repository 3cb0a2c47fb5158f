//! A test cluster: one PostgreSQL server, and any number of processes of each server.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use devdb::{Postgres, reserve_port};
use reqwest::Client;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{Process, Rest, Town};

/// The maximum time until a server is ready. The first start includes the migrations.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The configuration overrides for tests. They raise the rate limits and quotas, so that the server
/// does not refuse load from one address and few users.
const CONFIG_OVERRIDES: [(&str, &str); 18] = [
    ("ACCOUNTS__ATTEMPTS_PER_MINUTE", "1000000"),
    ("ACCOUNTS__ATTEMPTS_PER_MINUTE_OVERALL", "1000000"),
    ("ACCOUNTS__FREE_FAILURES", "1000000"),
    ("ACCOUNTS__JOIN_POLICY", "open"),
    ("ACCOUNTS__WORKSPACE_CREATION", "anyone"),
    ("AUTH__SECURE_COOKIE", "false"),
    ("HTTP__BURST", "1000000"),
    ("HTTP__REQUESTS_PER_SECOND", "1000000"),
    ("LIMITS__CONNECTIONS", "1000000"),
    ("LIMITS__CONNECTIONS_PER_ADDRESS", "1000000"),
    ("LIMITS__DATABASE_PERCENT_PER_PERSON", "100"),
    ("LIMITS__DATABASE_PERCENT_PER_WORKSPACE", "100"),
    ("LIMITS__HASHES_PER_ADDRESS", "1000000"),
    ("LIMITS__REPLAYS_PER_PERSON", "4"),
    ("LIMITS__REPLAYS_PER_WORKSPACE", "4"),
    ("LIMITS__SESSIONS_PER_PERSON", "1000000"),
    ("LOG__FILTER", "warn"),
    ("NOTIFY__STREAMS_PER_USER", "100000"),
];

/// The paths of the two server executables.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The executable of the REST API.
    pub fechatter_server: PathBuf,
    /// The executable of the event streams.
    pub notify_server: PathBuf,
}

/// The configuration of a cluster.
#[derive(Debug)]
pub struct Setup {
    /// The executables of the servers.
    pub programs: Programs,
    /// The number of `fechatter_server` processes.
    pub servers: usize,
    /// The number of `notify_server` processes.
    pub notifiers: usize,
    /// The folder for the log files of the servers. It is not deleted afterwards.
    pub logs: PathBuf,
    /// Environment variables for all server processes. They override the defaults of the cluster.
    pub environment: Vec<(String, String)>,
    /// Settings for PostgreSQL, each in the form of `postgres -c`: `name=value`.
    pub settings: Vec<String>,
}

/// The kind of a server process.
#[derive(Debug, Clone, Copy)]
enum ServerKind {
    Rest,
    Notify,
}

/// A running cluster. Its processes end when this value is dropped, or at the latest when the
/// calling process ends.
#[derive(Debug)]
pub struct Cluster {
    /// The `fechatter_server` processes.
    pub servers: Vec<Process>,
    /// The `notify_server` processes.
    pub notifiers: Vec<Process>,
    /// The addresses to which stream clients connect: those of `notifiers`, or of a proxy in front
    /// of them.
    pub events: Arc<[SocketAddr]>,
    /// A connection pool of the test tool, to inspect and change the database directly. The servers
    /// do not use it.
    pub db: PgPool,
    /// Creates users and chats in bulk.
    pub town: Town,
    /// A client of the REST API.
    pub rest: Rest,
    /// An HTTP client without a proxy.
    pub client: Client,
    /// The PostgreSQL server. It is declared last, so that it is dropped after the server
    /// processes: otherwise they would log connection errors.
    pub postgres: Postgres,
}

impl Programs {
    /// Finds the executables in a folder, for example in that of the caller's own executable:
    /// Cargo builds all executables of a workspace into one folder.
    ///
    /// # Errors
    /// When an executable does not exist.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let program = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
            ensure!(
                program.exists(),
                "{} does not exist: run `cargo build --workspace`",
                program.display()
            );
            Ok(program)
        };
        Ok(Self {
            fechatter_server: find("fechatter_server")?,
            notify_server: find("notify_server")?,
        })
    }
}

impl Setup {
    /// Starts PostgreSQL and all servers, and waits until each server is ready.
    ///
    /// # Errors
    /// When a process does not start, or a server does not become ready.
    pub async fn start(self) -> Result<Cluster> {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        let postgres = Postgres::durable(&settings)?;
        let database = postgres.address();
        self.start_on(postgres, database).await
    }

    /// Starts all servers like [`start`](Self::start), but with a PostgreSQL server that is running
    /// already. All processes connect to it at the address `database`.
    ///
    /// # Errors
    /// When a process does not start, or a server does not become ready.
    pub async fn start_on(self, postgres: Postgres, database: SocketAddr) -> Result<Cluster> {
        fs::create_dir_all(&self.logs)?;
        let url = postgres.url_through(database, "fechatter");
        devdb::create_database_if_absent(&url).await?;

        let config = self.logs.join("app.yml");
        fs::write(&config, include_str!("../../../app.yml.example"))?;
        let keys = keygen(&self.programs.fechatter_server)?;
        let mut shared: Vec<_> = CONFIG_OVERRIDES
            .map(|(name, value)| (format!("FECHATTER__{name}"), value.to_owned()))
            .into_iter()
            .chain([("FECHATTER_CONFIG".into(), config.display().to_string())])
            .chain([("DATABASE_URL".into(), url.clone())])
            .chain([(
                "FECHATTER__FILES__PATH".into(),
                self.logs.join("files").display().to_string(),
            )])
            .chain(keys.iter().cloned())
            .collect();
        shared.extend(self.environment.iter().cloned());

        let mut servers = self.processes(self.servers, ServerKind::Rest, &shared)?;
        let mut notifiers = self.processes(self.notifiers, ServerKind::Notify, &shared)?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        for process in servers.iter_mut().chain(&mut notifiers) {
            process.start()?;
        }
        for process in servers.iter_mut().chain(&mut notifiers) {
            process.ready(&client, START_TIMEOUT).await?;
        }
        let db = PgPoolOptions::new().max_connections(8).connect(&url).await?;
        let addresses = servers.iter().map(Process::address).collect();
        let rest = Rest::new(client.clone(), addresses);
        let town = Town::new(db.clone(), &keys, rest.clone())?;
        let events = notifiers.iter().map(Process::address).collect();
        Ok(Cluster { servers, notifiers, events, db, town, rest, client, postgres })
    }

    fn processes(
        &self,
        count: usize,
        kind: ServerKind,
        shared: &[(String, String)],
    ) -> Result<Vec<Process>> {
        let (program, section) = match kind {
            ServerKind::Rest => (&self.programs.fechatter_server, "SERVER"),
            ServerKind::Notify => (&self.programs.notify_server, "NOTIFY"),
        };
        let process = |number| {
            let addresses = [reserve_address()?, reserve_address()?];
            let own = [("LISTEN", addresses[0]), ("OPERATIONS_LISTEN", addresses[1])].map(
                |(key, address)| (format!("FECHATTER__{section}__{key}"), address.to_string()),
            );
            let environment = [&own[..], shared].concat();
            let log = self.logs.join(format!("{}-{number}.log", section.to_lowercase()));
            Ok(Process::new(program, addresses, environment, log))
        };
        (1..=count).map(process).collect()
    }
}

impl Cluster {
    /// Checks that every process is still running.
    ///
    /// # Errors
    /// Names a process that has ended.
    pub fn check(&mut self) -> Result<()> {
        self.servers.iter_mut().chain(&mut self.notifiers).try_for_each(Process::check)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.servers.iter_mut().chain(&mut self.notifiers) {
            process.request_stop();
        }
    }
}

fn reserve_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, reserve_port()?).into())
}

/// Generates new keys, as environment variables.
fn keygen(fechatter_server: &Path) -> Result<Vec<(String, String)>> {
    let output = Command::new(fechatter_server).arg("keygen").output().context("running keygen")?;
    ensure!(output.status.success(), "keygen failed: {}", String::from_utf8_lossy(&output.stderr));
    env_file::parse(&output.stdout).context("cannot parse the output of keygen")
}
