//! A folder for several servers, which goes with this process.

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
    leash::{Ending, Leash},
    postgres::throw_away_parent,
};

/// A folder whose servers ([`Postgres::in_folder`](crate::Postgres::in_folder)) may be stopped, killed, copied and
/// started again, and which is removed with all their data when this is dropped or the process ends.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    _keeper: Keeper,
}

/// Removes a directory when it is dropped or this process ends, however often a server in it has ended before.
#[derive(Debug)]
pub(crate) struct Keeper(Leash);

impl Scratch {
    /// Makes an empty folder, in memory where there is plenty.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made, or there is no shell.
    pub fn new() -> Result<Self> {
        let folder = throw_away_parent().join(format!("fechatter-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let keeper = Keeper::of(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = postgres_user() {
            chown(&folder, Some(uid), Some(gid))?;
        }
        Ok(Self { folder, _keeper: keeper })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Keeper {
    /// If we are killed, it waits until the servers, which are then ended too, no longer write there.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let ending = Ending::new("CONT", Duration::from_secs(7)).and_remove(directory);
        let leash = Leash::start("sleep", ending, |command| {
            command.arg("2147483647");
        })?;
        Ok(Self(leash))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Without waiting: the servers have ended by now. If this fails, it ends by itself.
        let _ = self.0.signal("KILL");
        let _ = self.0.wait();
    }
}
