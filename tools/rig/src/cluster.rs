//! A database and any number of both servers.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use devdb::{Postgres, lasting_port};
use reqwest::Client;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{Process, Rest, Town};

/// How long the first start may take: it migrates.
const STARTING: Duration = Duration::from_mins(1);

/// Who tries a server in every way is not to be slowed down by what protects it from such people.
const NO_LIMITS: [(&str, &str); 18] = [
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

/// Both servers' programs.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Programs {
    pub fechatter_server: PathBuf,
    pub notify_server: PathBuf,
}

/// What a cluster is to consist of.
#[derive(Debug)]
pub struct Setup {
    /// What to start.
    pub programs: Programs,
    /// How many `fechatter_server`.
    pub servers: usize,
    /// How many `notify_server`.
    pub notifiers: usize,
    /// The folder for what the servers say; it stays.
    pub logs: PathBuf,
    /// For all servers; goes before everything else.
    pub environment: Vec<(String, String)>,
    /// For PostgreSQL, as in `postgres -c`.
    pub settings: Vec<String>,
}

/// A running Fechatter. It ends with this process; dropping it ends it sooner.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Cluster {
    pub servers: Vec<Process>,
    pub notifiers: Vec<Process>,
    /// Where streams are to be had: those of `notifiers`, unless something is put in between.
    pub events: Arc<[SocketAddr]>,
    /// For looking, and for what no client can do. Its connections are ours, not the servers'.
    pub db: PgPool,
    /// Makes people and chats in bulk.
    pub town: Town,
    pub rest: Rest,
    pub client: Client,
    // After the servers, which would complain.
    pub postgres: Postgres,
}

impl Programs {
    /// Those in a folder: cargo puts all programs of a workspace into one, also the caller's.
    ///
    /// # Errors
    /// When one is not there.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let program = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
            ensure!(program.exists(), "there is no {}: build the workspace", program.display());
            Ok(program)
        };
        Ok(Self {
            fechatter_server: find("fechatter_server")?,
            notify_server: find("notify_server")?,
        })
    }
}

impl Setup {
    /// Starts it all and waits until everybody is ready.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(self) -> Result<Cluster> {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        let postgres = Postgres::durable(&settings)?;
        let database = postgres.address();
        self.start_on(postgres, database).await
    }

    /// The same on a PostgreSQL that is there, and that everybody reaches at this address.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start_on(self, postgres: Postgres, database: SocketAddr) -> Result<Cluster> {
        fs::create_dir_all(&self.logs)?;
        let url = postgres.url_through(database, "fechatter");
        devdb::create_database_if_absent(&url).await?;

        let config = self.logs.join("app.yml");
        fs::write(&config, include_str!("../../../app.yml.example"))?;
        let keys = keygen(&self.programs.fechatter_server)?;
        let mut shared: Vec<_> = NO_LIMITS
            .map(|(name, value)| (format!("FECHATTER__{name}"), value.to_owned()))
            .into_iter()
            .chain([("FECHATTER_CONFIG".into(), config.display().to_string())])
            .chain([("DATABASE_URL".into(), url.clone())])
            .chain(keys.iter().cloned())
            .collect();
        shared.extend(self.environment.iter().cloned());

        let mut servers = self.processes(self.servers, true, &shared)?;
        let mut notifiers = self.processes(self.notifiers, false, &shared)?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        for process in servers.iter_mut().chain(&mut notifiers) {
            process.start()?;
        }
        for process in servers.iter_mut().chain(&mut notifiers) {
            process.ready(&client, STARTING).await?;
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
        is_rest: bool,
        shared: &[(String, String)],
    ) -> Result<Vec<Process>> {
        let (program, section) = if is_rest {
            (&self.programs.fechatter_server, "SERVER")
        } else {
            (&self.programs.notify_server, "NOTIFY")
        };
        let process = |number| {
            let addresses = [address()?, address()?];
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
    /// Whether every process still runs.
    ///
    /// # Errors
    /// Names one that has ended.
    pub fn check(&mut self) -> Result<()> {
        self.servers.iter_mut().chain(&mut self.notifiers).try_for_each(Process::check)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.servers.iter_mut().chain(&mut self.notifiers) {
            process.let_go();
        }
    }
}

fn address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, lasting_port()?).into())
}

/// New keys, as environment variables.
fn keygen(fechatter_server: &Path) -> Result<Vec<(String, String)>> {
    let output = Command::new(fechatter_server).arg("keygen").output().context("running keygen")?;
    ensure!(output.status.success(), "keygen failed: {}", String::from_utf8_lossy(&output.stderr));
    env_file::parse(&output.stdout).context("reading what keygen printed")
}
