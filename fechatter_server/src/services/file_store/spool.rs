//! The folder in which a process receives files, so that others can tell what a dead process has left.
//!
//! Each process has a folder of its own in `incoming/`, and holds the lock of a file beside it as long
//! as it lives. Before a file gets its place, a marker in the folder names it; the marker goes when a
//! row of the database names the file. A marker that stays therefore names a file that may be in
//! nobody's way but has no row.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fechatter_core::WorkspaceId;
use uuid::Uuid;

use crate::utils::file_url::hex;

const INCOMING: &str = "incoming";
const LOCK: &str = "lock";
/// The extension of markers whose files have no row for certain.
const FAILED: &str = "failed";

/// A process's own folder. It is removed with this.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    lock: PathBuf,
    /// Locked until the process ends.
    #[cfg_attr(not(test), expect(dead_code, reason = "its lock is dropped with it"))]
    locked: File,
}

/// The marker of a file that has its place, but no row yet. If this is dropped before
/// [`Placed::keep`], the file is removed later.
#[derive(Debug)]
pub(crate) struct Placed {
    marker: Option<PathBuf>,
}

/// A file that may have no row, with its marker.
#[derive(Debug)]
pub(crate) struct Unnamed {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) hash: [u8; 32],
    marker: PathBuf,
}

impl Spool {
    /// Creates a folder for this process in the folder of the store.
    pub(super) fn create(root: &Path) -> anyhow::Result<Self> {
        let incoming = root.join(INCOMING);
        let named = || format!("files.path: {}", root.display());
        fs::create_dir_all(&incoming).with_context(named)?;
        let id = Uuid::new_v4().to_string();
        let (folder, lock) = (incoming.join(&id), incoming.join(id).with_extension(LOCK));
        let locked = File::create_new(&lock).with_context(named)?;
        locked.lock().with_context(named)?;
        // After the lock: a folder without one is a dead process's.
        fs::create_dir(&folder).with_context(named)?;
        Ok(Self { folder, lock, locked })
    }

    /// Returns the path of a new file.
    pub(super) fn new_file(&self) -> PathBuf {
        self.folder.join(Uuid::new_v4().to_string())
    }

    /// Marks a file that is about to get its place.
    pub(super) fn mark(&self, workspace_id: WorkspaceId, hash: &[u8; 32]) -> io::Result<Placed> {
        let name = format!("{workspace_id}-{}-{}", hex(hash), Uuid::new_v4());
        let marker = self.folder.join(name);
        File::create_new(&marker)?;
        Ok(Placed { marker: Some(marker) })
    }

    /// Removes what dead processes were receiving, and returns what they have placed, as well as what
    /// this process has placed in vain.
    pub(super) fn unnamed(&self) -> io::Result<Vec<Unnamed>> {
        let mut unnamed = Vec::new();
        for entry in fs::read_dir(self.folder.parent().unwrap_or(&self.folder))? {
            let folder = entry?.path();
            if folder == self.folder {
                for path in files(&folder)? {
                    if path.extension().is_some_and(|extension| extension == FAILED) {
                        unnamed.extend(read_marker(path));
                    }
                }
            } else if folder.is_dir() && is_abandoned(&folder.with_extension(LOCK))? {
                unnamed.extend(clear(&folder)?);
            }
        }
        Ok(unnamed)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

impl Placed {
    /// Says that a row names the file.
    pub(crate) fn keep(mut self) {
        if let Some(marker) = self.marker.take() {
            let _ = fs::remove_file(marker);
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(marker) = self.marker.take() {
            let _ = fs::rename(&marker, marker.with_extension(FAILED));
        }
    }
}

impl Unnamed {
    /// Removes the marker, after the file was removed, or found to have a row.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(self.marker);
    }
}

/// Returns true if no process holds this lock.
fn is_abandoned(lock: &Path) -> io::Result<bool> {
    match File::open(lock) {
        Ok(file) => Ok(file.try_lock().is_ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Removes a dead process's folder, but for its markers, which it returns.
fn clear(folder: &Path) -> io::Result<Vec<Unnamed>> {
    let mut unnamed = Vec::new();
    for path in files(folder)? {
        match read_marker(path.clone()) {
            Some(found) => unnamed.push(found),
            None => remove_if_there(&path)?,
        }
    }
    if unnamed.is_empty() {
        let _ = fs::remove_dir(folder);
        remove_if_there(&folder.with_extension(LOCK))?;
    }
    Ok(unnamed)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        // Another server has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_marker(marker: PathBuf) -> Option<Unnamed> {
    let name = marker.file_name()?.to_str()?;
    let (workspace_id, rest) = name.split_once('-')?;
    let hex = rest.get(..64)?;
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Unnamed { workspace_id: workspace_id.parse().ok()?, hash, marker })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(Uuid::now_v7().to_string());
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_folder_of_a_dead_process_is_cleared_but_for_its_markers() {
        let root = folder();
        let dead = Spool::create(&root).unwrap();
        fs::write(dead.new_file(), "half").unwrap();
        dead.mark(WorkspaceId(7), &[0xab; 32]).unwrap().keep();
        std::mem::forget(dead.mark(WorkspaceId(7), &[0xcd; 32]).unwrap());
        let alive = Spool::create(&root).unwrap();
        assert!(alive.unnamed().unwrap().is_empty());
        let left = dead.folder.clone();
        // As the end of a process does.
        dead.locked.unlock().unwrap();

        let found = alive.unnamed().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].workspace_id, found[0].hash), (WorkspaceId(7), [0xcd; 32]));
        assert_eq!(files(&left).unwrap().len(), 1);
        found.into_iter().for_each(Unnamed::forget);
        assert!(alive.unnamed().unwrap().is_empty());
        assert!(!left.exists() && !left.with_extension(LOCK).exists());
        std::mem::forget(dead);
        drop(alive);
        assert_eq!(fs::read_dir(root.join(INCOMING)).unwrap().count(), 0);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_that_was_placed_in_vain_is_found() {
        let root = folder();
        let spool = Spool::create(&root).unwrap();
        let waiting = spool.mark(WorkspaceId(7), &[1; 32]).unwrap();
        drop(spool.mark(WorkspaceId(7), &[2; 32]).unwrap());
        let found = spool.unnamed().unwrap();
        assert_eq!(found.iter().map(|file| file.hash).collect::<Vec<_>>(), [[2; 32]]);
        waiting.keep();
        drop(spool);
        fs::remove_dir_all(root).unwrap();
    }
}
