//! Starts `PgBouncer` as a connection pooler in front of a PostgreSQL server.

use std::{
    env,
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use uuid::Uuid;

use super::{Postgres, START_TIMEOUT, disk, reserve_port};
use crate::{
    find::{as_postgres_user, postgres_user},
    leash::{ChildGuard, ShutdownMethod},
};

/// A running `PgBouncer`. Dropping this value stops it.
#[derive(Debug)]
pub struct Pooler {
    _child: ChildGuard,
    address: SocketAddr,
}

impl Pooler {
    /// The address that it listens on, for [`Postgres::url_through`].
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Postgres {
    /// Starts a `PgBouncer` in front of this server. `pool_mode` is `session`, `transaction` or
    /// `statement`; the other pool settings have their defaults. Returns `None` if `PgBouncer` is
    /// not installed.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn pooler(&self, pool_mode: &str) -> Result<Option<Pooler>> {
        let Some(program) = installed() else { return Ok(None) };
        let home = disk().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(5)).and_remove(&home);
        fs::create_dir(&home)?;
        // The configuration file contains the password.
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        let port = reserve_port()?;
        let configuration = home.join("pgbouncer.ini");
        fs::write(
            &configuration,
            format!(
                "[databases]\n* = host={} port={} user=postgres password={}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {pool_mode}\nlogfile = {}\n",
                self.address().ip(),
                self.address().port(),
                self.password,
                home.join("log").display()
            ),
        )?;
        if let Some((uid, gid)) = postgres_user() {
            chown(&home, Some(uid), Some(gid))?;
        }
        let mut child = ChildGuard::start(program, shutdown, |command| {
            as_postgres_user(command).arg("--quiet").arg(&configuration);
        })?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            ensure!(
                child.try_wait()?.is_none() && Instant::now() < deadline,
                "PgBouncer does not start"
            );
            sleep(Duration::from_millis(10));
        }
        Ok(Some(Pooler { _child: child, address }))
    }
}

/// Also searches `/usr/sbin`, where Debian installs `PgBouncer` and which may not be in `PATH`.
fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}
