//! A PostgreSQL server of our own.

mod pooler;
mod standby;

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
pub use pooler::Pooler;
use sqlx::{migrate::MigrateDatabase, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::{
    find::{Programs, as_postgres_user, is_root, postgres_user},
    leash::{Ending, Leash},
    scratch::Keeper,
};

/// How long another server may take to let go of the data, and this one to be ready (it may have to recover).
const PATIENCE: Duration = Duration::from_mins(1);

/// How much memory, in KiB, must be free for a throw-away server to keep its data there: containers often have 64 MiB.
const PLENTY: u64 = 2 * 1024 * 1024;

/// Nothing of a throw-away server outlives it, so nothing needs to reach the disk.
const NOT_DURABLE: [&str; 4] =
    ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB"];

/// A server that listens on a free port of 127.0.0.1 and ends with this process; dropping it ends it sooner.
#[derive(Debug)]
pub struct Postgres {
    leash: Leash,
    port: u16,
    password: String,
    launch: Launch,
    /// Dropped last: removes the data.
    _keeper: Option<Keeper>,
}

/// What it takes to start the server, again and again.
#[derive(Debug)]
struct Launch {
    programs: Programs,
    home: PathBuf,
    data: PathBuf,
    log: PathBuf,
    ending: Ending,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts an empty, fast server whose data is removed when it ends.
    ///
    /// # Errors
    ///
    /// When there is no PostgreSQL and none can be fetched, or it does not start.
    pub fn throw_away() -> Result<Self> {
        let home = throw_away_parent().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        // PostgreSQL's immediate shutdown: the data is going anyway.
        let ending = Ending::new("QUIT", Duration::from_secs(5)).and_remove(&home);
        Self::start(&home, ending, &NOT_DURABLE, free_port, None).inspect_err(|_| {
            let _ = fs::remove_dir_all(&home);
        })
    }

    /// Starts an empty server on the disk that keeps what it has committed when it is [killed](Self::kill) and
    /// [restarted](Self::restart). Its data is removed when this is dropped. `settings` are as in `postgres -c`.
    ///
    /// # Errors
    ///
    /// As [`Postgres::throw_away`].
    pub fn durable(settings: &[&str]) -> Result<Self> {
        let home = disk().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        let keeper = Keeper::of(&home)?;
        let ending = Ending::new("QUIT", Duration::from_secs(5));
        Self::start(&home, ending, settings, reserve_port, Some(keeper))
    }

    /// Starts a server that keeps its data, durably, in `home`, which is made if absent.
    ///
    /// # Errors
    ///
    /// As [`Postgres::throw_away`], and when another server holds the data or another major version made it.
    pub fn persistent(home: &Path) -> Result<Self> {
        Self::start(home, Ending::new("INT", Duration::from_secs(30)), &[], free_port, None)
    }

    /// Starts a server that keeps its data, durably, in `home`, which is made if absent: one of those in a
    /// [`Scratch`](crate::Scratch). It ends at once, as in a crash, and the next one there recovers.
    ///
    /// # Errors
    ///
    /// As [`Postgres::persistent`].
    pub fn in_folder(home: &Path) -> Result<Self> {
        Self::start(home, Ending::new("QUIT", Duration::from_secs(5)), &[], free_port, None)
    }

    /// The URL of one of the server's databases, for its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_through(self.address(), database)
    }

    /// The same with another address, such as that of a proxy.
    #[must_use]
    pub fn url_through(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres:{}@{address}/{database}", self.password)
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The system's number for the process from which all others of the server come.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.leash.child()
    }

    /// One of PostgreSQL's own clients (`pgbench`, …), for one of the server's databases. It may not be installed.
    #[must_use]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.launch.programs.program(program));
        command.envs([("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGDATABASE", database)]);
        command.env("PGPORT", self.port.to_string()).env("PGPASSWORD", &self.password);
        command
    }

    /// The file that the server logs to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// Whether the server is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.leash.try_wait(), Ok(None))
    }

    /// Ends the server and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell how it ended.
    pub fn stop(self) -> Result<()> {
        self.leash.stop().context("stopping PostgreSQL")?;
        Ok(())
    }

    /// Ends the server with −9 and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.leash.signal("KILL").context("killing PostgreSQL")?;
        self.leash.wait()?;
        Ok(())
    }

    /// Starts the server that was killed, on the same data and port, and waits until it has recovered.
    ///
    /// # Errors
    ///
    /// As [`Postgres::throw_away`].
    pub fn restart(&mut self) -> Result<()> {
        (self.leash, self.port) = self.launch.start(|| Ok(self.port))?;
        Ok(())
    }

    fn start(
        home: &Path,
        ending: Ending,
        settings: &[&str],
        port: fn() -> Result<u16>,
        keeper: Option<Keeper>,
    ) -> Result<Self> {
        let data = home.join("data");
        let programs = Programs::find(major_of(&data)?)?;
        let password = prepare(home)?;
        if !data.exists() {
            // A loss of power, which is all that syncing is for here, would take the keeper as well.
            let durable = settings != NOT_DURABLE && keeper.is_none();
            initialise(&programs, home, &data, durable)?;
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let log = home.join("postgres.log");
        let launch = Launch { programs, home: home.to_owned(), data, log, ending, settings };
        let (leash, port) = launch.start(port)?;
        Ok(Self { leash, port, password, launch, _keeper: keeper })
    }
}

impl Launch {
    fn start(&self, choose_port: impl Fn() -> Result<u16>) -> Result<(Leash, u16)> {
        let Self { data, log, .. } = self;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let port = choose_port()?;
            let mut leash = self.leash(port)?;
            if is_ready(&mut leash, data, deadline)? {
                return Ok((leash, port));
            }
            // Read before the ending removes it.
            let said = fs::read_to_string(log).unwrap_or_default();
            drop(leash);
            let held = said.contains("postmaster.pid") || said.contains("is still in use");
            let port_taken = said.contains("could not create any TCP/IP sockets");
            if Instant::now() >= deadline || !(held || port_taken) {
                ensure!(
                    !held,
                    "another server still holds the data in {}:\n{said}",
                    data.display()
                );
                bail!("PostgreSQL did not start:\n{said}");
            }
            sleep(Duration::from_millis(if held { 500 } else { 0 }));
        }
    }

    fn leash(&self, port: u16) -> Result<Leash> {
        let output = File::create(&self.log)?;
        let errors = output.try_clone()?;
        let program = self.programs.program("postgres");
        let leash = Leash::start(program, self.ending.clone(), |command| {
            as_postgres_user(command).stdout(output).stderr(errors);
            command.arg("-D").arg(&self.data).args(["-p", &port.to_string()]);
            command.args(["-h", "127.0.0.1", "-k", "", "-c", "max_connections=200"]);
            // Of a server that is killed nothing stays behind outside its data.
            command.args(["-c", "dynamic_shared_memory_type=mmap"]);
            // Dropping a database waits for connections that are still signing in.
            command.args(["-c", "authentication_timeout=5s"]);
            command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        })?;
        Ok(leash)
    }
}

/// `DATABASE_URL` from the environment or from a `.env` file here or above: the server that someone chose.
#[must_use]
pub fn configured_url() -> Option<String> {
    let from_file = || {
        let entries = env_file::read_nearest().ok()?;
        entries.into_iter().find_map(|(key, value)| (key == "DATABASE_URL").then_some(value))
    };
    env::var("DATABASE_URL").ok().or_else(from_file).filter(|url| !url.is_empty())
}

/// Where a checkout keeps what outlives a run. Root's is open to the user that PostgreSQL runs as, which a checkout need
/// not be.
#[must_use]
pub fn persistent_home(checkout: &Path, name: &str) -> PathBuf {
    let parent = if is_root() { "/var/lib/fechatter".into() } else { checkout.join(".fechatter") };
    parent.join(name)
}

/// Creates the database that the URL names unless it is there.
///
/// # Errors
///
/// When the server cannot be reached or does not allow it.
pub async fn create_database_if_absent(url: &str) -> Result<()> {
    let name = PgConnectOptions::from_str(url)?.get_database().unwrap_or_default().to_owned();
    if !sqlx::Postgres::database_exists(url).await? {
        sqlx::Postgres::create_database(url).await.with_context(|| format!("creating {name}"))?;
    }
    Ok(())
}

/// Memory where there is plenty: a new database is 300 files, which took 200 ms on an ext4 that had just removed as many,
/// and 15 ms in memory.
pub(crate) fn throw_away_parent() -> PathBuf {
    let df = Command::new("df").args(["-Pk", "/dev/shm"]).output();
    let df = df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned()).unwrap_or_default();
    let free = df.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    if free.is_some_and(|kilobytes: u64| kilobytes >= PLENTY) { "/dev/shm".into() } else { disk() }
}

fn disk() -> PathBuf {
    // Root's own temporary folder may be closed to the user that PostgreSQL runs as.
    if is_root() { "/var/tmp".into() } else { env::temp_dir() }
}

fn major_of(data: &Path) -> Result<Option<u32>> {
    let file = data.join("PG_VERSION");
    if !file.exists() {
        return Ok(None);
    }
    let major = fs::read_to_string(&file)?;
    Ok(Some(major.trim().parse().with_context(|| format!("reading {}", file.display()))?))
}

/// Makes the server's home and password, both closed to everyone else.
///
/// On a shared machine a superuser without one would be everybody's: loopback is no border.
fn prepare(home: &Path) -> Result<String> {
    fs::create_dir_all(home).with_context(|| format!("making {}", home.display()))?;
    fs::set_permissions(home, Permissions::from_mode(0o700))?;
    let file = home.join("password");
    if !file.exists() {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&file)?;
        write!(file, "{}", Uuid::new_v4().simple())?;
    }
    if let Some((uid, gid)) = postgres_user() {
        chown(home, Some(uid), Some(gid))?;
        chown(&file, Some(uid), Some(gid))?;
    }
    Ok(fs::read_to_string(&file)?)
}

/// Makes the data beside its place, so that an interrupted `initdb` leaves nothing half made there.
fn initialise(programs: &Programs, home: &Path, data: &Path, durable: bool) -> Result<()> {
    let fresh = home.join("data.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let mut command = Command::new(programs.program("initdb"));
    as_postgres_user(&mut command).arg("-D").arg(&fresh).arg("--pwfile").arg(home.join("password"));
    command.args(["--username", "postgres", "--encoding", "UTF8", "--locale", "C"]);
    // Tests make thousands of connections, and SCRAM would take 13 ms of CPU for each. The password is
    // random and the server listens on loopback only.
    command.args(["--auth", "md5"]).args((!durable).then_some("--no-sync"));
    let output = command.output().context("running initdb")?;
    ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, data)?;
    Ok(())
}

/// A port that was free a moment ago; PostgreSQL says so if it no longer is.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Ports below those that systems assign to outgoing connections.
const RESERVABLE_PORTS: Range<u16> = 12_000..32_000;

/// Reserves a free port for a server that may be restarted. The system does not assign the port to
/// outgoing connections: otherwise a client could be assigned the port of the stopped server to
/// which it connects, and would connect to itself. Until this process ends, no call returns the
/// port again, in this process or another one.
///
/// # Errors
///
/// When no port is free.
pub fn reserve_port() -> Result<u16> {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(Uuid::new_v4().as_fields().1));
    /// Locked files, one a port.
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = env::temp_dir().join("fechatter-ports");
    fs::create_dir_all(&folder)?;
    // Of all users of this machine.
    let _ = fs::set_permissions(&folder, Permissions::from_mode(0o1777));
    let ports = RESERVABLE_PORTS.end - RESERVABLE_PORTS.start;
    for _ in 0..ports {
        let port = RESERVABLE_PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % ports;
        // That of another user may not be opened: it may be taken.
        let path = folder.join(port.to_string());
        let Ok(file) = OpenOptions::new().create(true).append(true).open(path) else { continue };
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// Waits for the line that `pg_ctl` waits for; `false` when the server ended instead.
fn is_ready(leash: &mut Leash, data: &Path, deadline: Instant) -> Result<bool> {
    let process = leash.child().to_string();
    while leash.try_wait()?.is_none() && Instant::now() < deadline {
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<_> = state.lines().map(str::trim).collect();
        // A file that a killed server left behind names another process.
        if lines.first() == Some(&process.as_str()) && lines.get(7) == Some(&"ready") {
            return Ok(true);
        }
        sleep(Duration::from_millis(10));
    }
    Ok(false)
}
