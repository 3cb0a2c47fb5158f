//! A temporary folder for several PostgreSQL servers, which is deleted when this process ends.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::{
    find::postgres_user,
    leash::{ChildGuard, ShutdownMethod},
    postgres::temp_data_parent,
};

/// A temporary folder for PostgreSQL servers that may be stopped, killed, copied and started again
/// (see [`Postgres::in_scratch_folder`](crate::Postgres::in_scratch_folder)). The folder and all
/// data in it are removed when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    _guard: TempDirGuard,
}

/// Removes a directory when this value is dropped or this process ends. It does not depend on a
/// server process, so that a server in the directory can be stopped and started again.
#[derive(Debug)]
pub(crate) struct TempDirGuard(ChildGuard);

impl Scratch {
    /// Creates an empty folder, in memory (`/dev/shm`) if there is enough free space.
    ///
    /// # Errors
    ///
    /// When the folder cannot be created, or no shell can be started.
    pub fn new() -> Result<Self> {
        let folder = temp_data_parent().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let guard = TempDirGuard::new(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = postgres_user() {
            chown(&folder, Some(uid), Some(gid))?;
        }
        Ok(Self { folder, _guard: guard })
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl TempDirGuard {
    /// Starts a `sleep` process whose supervisor removes `directory` when the process ends. If this
    /// process is killed, the supervisor first sends `sleep` a signal without effect (SIGCONT) and
    /// waits 7 seconds, because servers in the directory may need up to 5 seconds to stop.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let shutdown = ShutdownMethod::new("CONT", Duration::from_secs(7)).and_remove(directory);
        let child = ChildGuard::start("sleep", shutdown, |command| {
            command.arg("2147483647");
        })?;
        Ok(Self(child))
    }
}

impl Drop for TempDirGuard {
    fn drop(&mut self) {
        // SIGKILL skips the 7 seconds: the servers have already ended. If this fails, the
        // supervisor removes the directory when this process ends.
        let _ = self.0.signal("KILL");
        let _ = self.0.wait();
    }
}
