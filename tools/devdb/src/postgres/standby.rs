//! A standby that takes over, and a copy of a server's data that is started.

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

use super::{Launch, PATIENCE, Postgres, prepare};
use crate::find::{as_postgres_user, postgres_user};

/// Between two looks at how far a standby is.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Postgres {
    /// Copies the home of a server that has ended, so that [`Postgres::in_folder`] can start both: as restoring a backup
    /// does. The copy must not exist.
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

    /// Starts a standby of this server in `home`, which must not exist. It reaches this server at `upstream`, which is
    /// its [address](Self::address) or that of a proxy in between.
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
        // A proxy in between may depend on the thread that we would block.
        spawn_blocking(move || Self::in_folder(&home)).await?
    }

    /// Lets every commit from now on wait until a standby, of which there must be one, has it on disk.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or no standby follows it within a minute.
    pub async fn commit_to_standby(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        query("alter system set synchronous_standby_names = '*'").execute(&mut connection).await?;
        query("select pg_reload_conf()").execute(&mut connection).await?;
        self.reaches("select exists (select from pg_stat_replication where sync_state = 'sync')")
            .await?;
        // Done by the process that tells the others whether to wait, once it knows.
        query("checkpoint").execute(&mut connection).await?;
        Ok(())
    }

    /// Waits until this standby shows all that the other server has committed so far.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached, or the standby stays behind for a minute.
    pub async fn catch_up_with(&self, primary: &Self) -> Result<()> {
        let written: String = query_scalar("select pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut primary.connect().await?)
            .await?;
        self.reaches(&format!("select pg_last_wal_replay_lsn() >= '{written}'")).await
    }

    /// Makes a standby a server of its own, and waits until it takes writes.
    ///
    /// # Errors
    ///
    /// When it is no standby, or does not become one within a minute.
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

    /// Waits until a question is answered with true.
    async fn reaches(&self, question: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = self.connect().await?;
        let ask = || query_scalar::<_, bool>(sqlx::AssertSqlSafe(question.to_owned()));
        while !ask().fetch_one(&mut connection).await? {
            ensure!(Instant::now() < deadline, "not yet after {PATIENCE:?}: {question}");
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Adds to a file of the server's, made if absent.
fn write(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(text.as_bytes())?;
    give_away(file)
}

/// Copies all but the note of who is running there. What a running server removes meanwhile is left out, and what it
/// changes is mended by its log.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give_away(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let copied = if entry.file_name() == "postmaster.pid" {
            Ok(())
        } else if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), &to).and_then(|_| give_away(&to))
        };
        if let Err(error) = copied
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Files that we make as root belong to the user that PostgreSQL runs as.
fn give_away(path: &Path) -> io::Result<()> {
    postgres_user().map_or(Ok(()), |(uid, gid)| chown(path, Some(uid), Some(gid)))
}
