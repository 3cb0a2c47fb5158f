//! Starts standbys, promotes them, and copies the data of a server.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    os::unix::fs::chown,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, PgConnection, query, query_scalar};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Launch, Postgres, prepare};
use crate::find::{as_postgres_user, postgres_user};

/// The maximum time until a query in [`Postgres::wait_until`] returns true.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);
/// The interval between two queries in [`Postgres::wait_until`].
const POLL_INTERVAL: Duration = Duration::from_millis(10);

impl Postgres {
    /// Copies the folder of a server that has ended, as a restore from a backup does.
    /// [`Postgres::in_scratch_folder`] can then start both the original and the copy. The folder
    /// `copy` must not exist.
    ///
    /// # Errors
    ///
    /// When the files cannot be read or written.
    pub fn copy(home: &Path, copy: &Path) -> Result<()> {
        prepare(copy)?;
        fs::copy(home.join("password"), copy.join("password"))?;
        let copied = copy_folder(&home.join("data"), &copy.join("data"));
        copied.with_context(|| format!("copying {}", home.display()))
    }

    /// Starts a standby of this server in the folder `home`, which must not exist. The standby
    /// connects to `upstream`: the [address](Self::address) of this server, or that of a proxy in
    /// front of it.
    ///
    /// # Errors
    ///
    /// When this server cannot be reached or copied, or the standby does not start.
    pub async fn standby(&self, home: &Path, upstream: SocketAddr) -> Result<Self> {
        let mut connection = self.connect().await?;
        query("select pg_backup_start('standby', fast => true)").execute(&mut connection).await?;
        Self::copy(&self.launch.home, home)?;
        let label: String =
            query_scalar("select labelfile from pg_backup_stop(wait_for_archive => false)")
                .fetch_one(&mut connection)
                .await?;

        let data = home.join("data");
        write(&data.join("backup_label"), &label)?;
        write(&data.join("standby.signal"), "")?;
        let connection = format!(
            "host={} port={} user=postgres password={}",
            upstream.ip(),
            upstream.port(),
            self.password
        );
        let settings = format!("primary_conninfo = '{connection}'\n");
        write(&data.join("postgresql.auto.conf"), &settings)?;
        let home = home.to_owned();
        // The start blocks its thread, and a proxy may run on the thread of this task.
        spawn_blocking(move || Self::in_scratch_folder(&home)).await?
    }

    /// Turns on synchronous replication: from now on, each commit waits until a standby has written
    /// it to disk. A standby must be running.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or no standby is synchronous within a minute.
    pub async fn commit_to_standby(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        query("alter system set synchronous_standby_names = '*'").execute(&mut connection).await?;
        query("select pg_reload_conf()").execute(&mut connection).await?;
        self.wait_until(
            "select exists (select from pg_stat_replication where sync_state = 'sync')",
        )
        .await?;
        // The checkpointer process applies `synchronous_standby_names` and tells the other
        // processes to wait for the standby. It does so before it makes this checkpoint.
        query("checkpoint").execute(&mut connection).await?;
        Ok(())
    }

    /// Waits until this standby has replayed everything that `primary` has committed so far.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached, or the standby has not caught up after a minute.
    pub async fn catch_up_with(&self, primary: &Self) -> Result<()> {
        let written: String = query_scalar("select pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut primary.connect().await?)
            .await?;
        self.wait_until(&format!("select pg_last_wal_replay_lsn() >= '{written}'")).await
    }

    /// Promotes this standby to a primary, and waits until it accepts writes.
    ///
    /// # Errors
    ///
    /// When this server is not a standby, or does not become a primary within a minute.
    pub fn promote(&self) -> Result<()> {
        let Launch { programs, data, .. } = &self.launch;
        let mut command = Command::new(programs.program("pg_ctl"));
        let output = as_postgres_user(&mut command).arg("promote").arg("-D").arg(data).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pg_ctl promote failed: {complaint}");
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url("postgres")).await?)
    }

    /// Waits until this SQL query returns true.
    async fn wait_until(&self, condition: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let mut connection = self.connect().await?;
        let ask = || query_scalar::<_, bool>(sqlx::AssertSqlSafe(condition.to_owned()));
        while !ask().fetch_one(&mut connection).await? {
            ensure!(Instant::now() < deadline, "not true after {WAIT_TIMEOUT:?}: {condition}");
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Appends text to a file in the data folder, which is created if it does not exist.
fn write(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(text.as_bytes())?;
    give_to_postgres_user(file)
}

/// Copies a data folder without `postmaster.pid`. The server may be running: files that it deletes
/// during the copy are skipped, and crash recovery from the WAL repairs files that it changes.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give_to_postgres_user(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let copied = if entry.file_name() == "postmaster.pid" {
            Ok(())
        } else if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), &to).and_then(|_| give_to_postgres_user(&to))
        };
        if let Err(error) = copied
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

/// If this process runs as root, gives the file to the user that PostgreSQL runs as.
fn give_to_postgres_user(path: &Path) -> io::Result<()> {
    postgres_user().map_or(Ok(()), |(uid, gid)| chown(path, Some(uid), Some(gid)))
}
