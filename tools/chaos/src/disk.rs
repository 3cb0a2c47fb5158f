//! A small disk that can be filled, in memory.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

const BALLAST: &str = "ballast";

/// A file system of its own. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// True if this process may mount file systems.
    #[must_use]
    pub fn is_possible() -> bool {
        let folder =
            std::env::temp_dir().join(format!("fechatter-{}", uuid::Uuid::new_v4().simple()));
        let is_possible = Self::mount(&folder, 1).is_ok();
        let _ = fs::remove_dir(folder);
        is_possible
    }

    /// Mounts an empty disk of this size at a new folder.
    ///
    /// # Errors
    /// When this process may not mount file systems.
    pub fn mount(folder: &Path, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={mebibytes}m,mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).stderr(Stdio::null());
        let status = mount.status().context("starting mount")?;
        ensure!(status.success(), "{} cannot be mounted", folder.display());
        Ok(Self(folder.to_owned()))
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.0.join(BALLAST))?;
        let block = vec![1; 65_536];
        // The last pages one by one.
        for size in [block.len(), 4_096] {
            loop {
                match ballast.write_all(&block[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join(BALLAST))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
