//! Starts and stops PostgreSQL servers.

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
    leash::{ChildGuard, ShutdownMethod},
    scratch::TempDirGuard,
};

/// The total time to wait until another server releases the data folder and this server is ready.
/// This includes crash recovery.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The minimum free space in `/dev/shm`, in KiB, for storing temporary data there. In containers,
/// `/dev/shm` often has only 64 MiB.
const MIN_FREE_SHM_KIB: u64 = 2 * 1024 * 1024;

/// The settings of a temporary server. Its data is deleted when it ends, so nothing has to be
/// synced to disk.
const NOT_DURABLE: [&str; 4] =
    ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB"];

/// A PostgreSQL server that listens on 127.0.0.1. It ends when this value is dropped, or when this
/// process ends.
#[derive(Debug)]
pub struct Postgres {
    child: ChildGuard,
    port: u16,
    password: String,
    launch: Launch,
    /// Removes the data. It is the last field, so that it is dropped after the server has ended.
    _guard: Option<TempDirGuard>,
}

/// The parameters for starting the server, which [`Postgres::restart`] uses again.
#[derive(Debug)]
struct Launch {
    programs: Programs,
    home: PathBuf,
    data: PathBuf,
    log: PathBuf,
    shutdown: ShutdownMethod,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts an empty, fast server without durability. Its data is removed when it ends.
    ///
    /// # Errors
    ///
    /// When the PostgreSQL programs are neither installed nor can be downloaded, or the server does
    /// not start.
    pub fn temporary() -> Result<Self> {
        let home = temp_data_parent().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        // SIGQUIT is PostgreSQL's immediate shutdown. The data is deleted afterwards.
        let shutdown = ShutdownMethod::new("QUIT", Duration::from_secs(5)).and_remove(&home);
        Self::start(&home, shutdown, &NOT_DURABLE, free_port, None).inspect_err(|_| {
            let _ = fs::remove_dir_all(&home);
        })
    }

    /// Starts an empty server with its data on disk. Committed transactions survive
    /// [`kill`](Self::kill) and [`restart`](Self::restart). The data is removed when this value is
    /// dropped. Each of the `settings` has the form of `postgres -c`: `name=value`.
    ///
    /// # Errors
    ///
    /// As [`Postgres::temporary`].
    pub fn durable(settings: &[&str]) -> Result<Self> {
        let home = disk().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        let guard = TempDirGuard::new(&home)?;
        let shutdown = ShutdownMethod::new("QUIT", Duration::from_secs(5));
        Self::start(&home, shutdown, settings, reserve_port, Some(guard))
    }

    /// Starts a durable server with its data in the folder `home`, which is created if it does not
    /// exist. The data is kept when the server ends.
    ///
    /// # Errors
    ///
    /// As [`Postgres::temporary`]; also when another server uses the data, or another major version
    /// of PostgreSQL created it.
    pub fn persistent(home: &Path) -> Result<Self> {
        Self::start(home, ShutdownMethod::new("INT", Duration::from_secs(30)), &[], free_port, None)
    }

    /// Like [`persistent`](Self::persistent), for a folder inside a [`Scratch`](crate::Scratch).
    /// The server is stopped with an immediate shutdown (SIGQUIT), so the next start in this folder
    /// does crash recovery.
    ///
    /// # Errors
    ///
    /// As [`Postgres::persistent`].
    pub fn in_scratch_folder(home: &Path) -> Result<Self> {
        Self::start(home, ShutdownMethod::new("QUIT", Duration::from_secs(5)), &[], free_port, None)
    }

    /// The URL of a database of this server, with the superuser's name and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_through(self.address(), database)
    }

    /// Like [`url`](Self::url), but with another address, for example that of a proxy.
    #[must_use]
    pub fn url_through(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres:{}@{address}/{database}", self.password)
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The PID of the postmaster, the main process of the server.
    #[must_use]
    pub fn postmaster_pid(&self) -> u32 {
        self.child.pid()
    }

    /// A command that runs a client program of PostgreSQL (`pgbench`, …) with a database of this
    /// server. The program may not be installed.
    #[must_use]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.launch.programs.program(program));
        command.envs([("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGDATABASE", database)]);
        command.env("PGPORT", self.port.to_string()).env("PGPASSWORD", &self.password);
        command
    }

    /// The path of the server's log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// Returns true if the server is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the server and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When the operating system does not report the exit status.
    pub fn stop(self) -> Result<()> {
        self.child.stop().context("stopping PostgreSQL")?;
        Ok(())
    }

    /// Kills the server with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it has already ended.
    pub fn kill(&mut self) -> Result<()> {
        self.child.signal("KILL").context("killing PostgreSQL")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the killed server again, with the same data and port, and waits until crash recovery
    /// has finished.
    ///
    /// # Errors
    ///
    /// As [`Postgres::temporary`].
    pub fn restart(&mut self) -> Result<()> {
        (self.child, self.port) = self.launch.start(|| Ok(self.port))?;
        Ok(())
    }

    fn start(
        home: &Path,
        shutdown: ShutdownMethod,
        settings: &[&str],
        port: fn() -> Result<u16>,
        guard: Option<TempDirGuard>,
    ) -> Result<Self> {
        let data = home.join("data");
        let programs = Programs::find(major_of(&data)?)?;
        let password = prepare(home)?;
        if !data.exists() {
            // For temporary data, initdb need not sync: fsync protects only against a failure of
            // the machine, and after one this data is not used again.
            let sync_initdb = settings != NOT_DURABLE && guard.is_none();
            initialise(&programs, home, &data, sync_initdb)?;
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let log = home.join("postgres.log");
        let launch = Launch { programs, home: home.to_owned(), data, log, shutdown, settings };
        let (child, port) = launch.start(port)?;
        Ok(Self { child, port, password, launch, _guard: guard })
    }
}

impl Launch {
    fn start(&self, choose_port: impl Fn() -> Result<u16>) -> Result<(ChildGuard, u16)> {
        let Self { data, log, .. } = self;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let port = choose_port()?;
            let mut child = self.spawn_postgres(port)?;
            if is_ready(&mut child, data, deadline)? {
                return Ok((child, port));
            }
            // Read the log before the process guard is dropped, because that may delete the log.
            let log_text = fs::read_to_string(log).unwrap_or_default();
            drop(child);
            let data_in_use =
                log_text.contains("postmaster.pid") || log_text.contains("is still in use");
            let port_taken = log_text.contains("could not create any TCP/IP sockets");
            if Instant::now() >= deadline || !(data_in_use || port_taken) {
                ensure!(
                    !data_in_use,
                    "another server still uses the data in {}:\n{log_text}",
                    data.display()
                );
                bail!("PostgreSQL did not start:\n{log_text}");
            }
            sleep(Duration::from_millis(if data_in_use { 500 } else { 0 }));
        }
    }

    fn spawn_postgres(&self, port: u16) -> Result<ChildGuard> {
        let output = File::create(&self.log)?;
        let errors = output.try_clone()?;
        let program = self.programs.program("postgres");
        let child = ChildGuard::start(program, self.shutdown.clone(), |command| {
            as_postgres_user(command).stdout(output).stderr(errors);
            command.arg("-D").arg(&self.data).args(["-p", &port.to_string()]);
            command.args(["-h", "127.0.0.1", "-k", "", "-c", "max_connections=200"]);
            // With `mmap`, dynamic shared memory is stored in files in the data folder, so a killed
            // server leaves no files in `/dev/shm`.
            command.args(["-c", "dynamic_shared_memory_type=mmap"]);
            // `drop database` waits for connections that are still authenticating.
            command.args(["-c", "authentication_timeout=5s"]);
            command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        })?;
        Ok(child)
    }
}

/// Returns `DATABASE_URL`, the server that the developer configured: from the environment, or from
/// a `.env` file in the current folder or a parent folder. An empty value counts as not configured.
#[must_use]
pub fn configured_url() -> Option<String> {
    let from_file = || {
        let entries = env_file::read_nearest().ok()?;
        entries.into_iter().find_map(|(key, value)| (key == "DATABASE_URL").then_some(value))
    };
    env::var("DATABASE_URL").ok().or_else(from_file).filter(|url| !url.is_empty())
}

/// Returns the folder `name` for data that is kept between runs. For root it is outside the
/// checkout, in `/var/lib/fechatter`, because the user that PostgreSQL runs as may have no access
/// to the checkout.
#[must_use]
pub fn persistent_home(checkout: &Path, name: &str) -> PathBuf {
    let parent = if is_root() { "/var/lib/fechatter".into() } else { checkout.join(".fechatter") };
    parent.join(name)
}

/// Creates the database in this URL unless it exists.
///
/// # Errors
///
/// When the server cannot be reached, or the user may not create databases.
pub async fn create_database_if_absent(url: &str) -> Result<()> {
    let name = PgConnectOptions::from_str(url)?.get_database().unwrap_or_default().to_owned();
    if !sqlx::Postgres::database_exists(url).await? {
        sqlx::Postgres::create_database(url).await.with_context(|| format!("creating {name}"))?;
    }
    Ok(())
}

/// Returns `/dev/shm` if it has enough free space, otherwise a folder on disk. A new database
/// consists of 300 files. Creating them took 15 ms in memory, and 200 ms on ext4 after as many
/// files had been deleted.
pub(crate) fn temp_data_parent() -> PathBuf {
    let df = Command::new("df").args(["-Pk", "/dev/shm"]).output();
    let df = df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned()).unwrap_or_default();
    let free = df.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    if free.is_some_and(|kilobytes: u64| kilobytes >= MIN_FREE_SHM_KIB) {
        "/dev/shm".into()
    } else {
        disk()
    }
}

fn disk() -> PathBuf {
    // For root, the default folder may be inaccessible to the user that PostgreSQL runs as.
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

/// Creates the server's folder and its password file, unless they exist, and returns the password
/// of the superuser. Other users have no access to the folder.
///
/// The password is necessary even on loopback: any local user can connect to the port, and would be
/// superuser without it.
fn prepare(home: &Path) -> Result<String> {
    fs::create_dir_all(home).with_context(|| format!("creating {}", home.display()))?;
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

/// Runs `initdb` in `data.new` and then renames it to `data`, so that an interrupted `initdb` does
/// not leave an incomplete `data` folder.
fn initialise(programs: &Programs, home: &Path, data: &Path, sync: bool) -> Result<()> {
    let fresh = home.join("data.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let mut command = Command::new(programs.program("initdb"));
    as_postgres_user(&mut command).arg("-D").arg(&fresh).arg("--pwfile").arg(home.join("password"));
    command.args(["--username", "postgres", "--encoding", "UTF8", "--locale", "C"]);
    // MD5, because tests open thousands of connections and SCRAM takes 13 ms of CPU for each. The
    // password is random, and the server listens only on loopback.
    command.args(["--auth", "md5"]).args((!sync).then_some("--no-sync"));
    let output = command.output().context("running initdb")?;
    ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, data)?;
    Ok(())
}

/// Returns a port that is free now. If another process takes it before PostgreSQL starts,
/// PostgreSQL reports that, and [`Launch::start`] tries another port.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Ports below those that operating systems assign to outgoing connections.
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
    /// A locked file for each reserved port.
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = env::temp_dir().join("fechatter-ports");
    fs::create_dir_all(&folder)?;
    // All users of this machine share the folder, so it is world-writable with the sticky bit.
    let _ = fs::set_permissions(&folder, Permissions::from_mode(0o1777));
    let ports = RESERVABLE_PORTS.end - RESERVABLE_PORTS.start;
    for _ in 0..ports {
        let port = RESERVABLE_PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % ports;
        // A lock file of another user cannot be opened: skip the port, because it may be reserved.
        let path = folder.join(port.to_string());
        let Ok(file) = OpenOptions::new().create(true).append(true).open(path) else { continue };
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// Waits until `postmaster.pid` contains the status `ready`, as `pg_ctl` does. Returns `false` if
/// the server ends first or the deadline passes.
fn is_ready(child: &mut ChildGuard, data: &Path, deadline: Instant) -> Result<bool> {
    let pid = child.pid().to_string();
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<_> = file.lines().map(str::trim).collect();
        // The file of a server that was killed contains another PID.
        if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
            return Ok(true);
        }
        sleep(Duration::from_millis(10));
    }
    Ok(false)
}
