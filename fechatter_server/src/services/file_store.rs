//! The store of the uploaded files: a folder.
//!
//! A file is received into `incoming/`, written to the disk, and then moved to
//! `{workspace}/{aaa}/{bbb}/{rest}`, its hash. A row of the database names it only after that, so a
//! crash at any time leaves at most a file that nothing names, which [`FileStore::remove_strays`]
//! finds.

use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use fechatter_core::WorkspaceId;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::services::media::{self, Image, OTHER, SNIFFED};
use crate::utils::file_url::hex;

const INCOMING: &str = "incoming";
/// Files that nothing names are older than any upload in progress.
const STRAY_AGE: Duration = Duration::from_hours(24);

/// The files of all workspaces. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FileStore {
    store: Arc<LocalFileSystem>,
    root: Arc<FilePath>,
}

/// A file that is being received. It is removed when this is dropped.
pub(crate) struct Incoming {
    file: File,
    path: Removed,
    hash: Context,
    start: Vec<u8>,
    size: u64,
}

/// A file that is complete and on the disk, but has no place yet. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    path: Removed,
    pub(crate) hash: [u8; 32],
    pub(crate) size: u64,
    pub(crate) mime: &'static str,
    pub(crate) image: Option<Image>,
}

/// A path whose file is removed at the end.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl FileStore {
    /// Opens the store, and creates its folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub(crate) fn open(root: &FilePath) -> anyhow::Result<Self> {
        let named = || format!("files.path: {}", root.display());
        std::fs::create_dir_all(root.join(INCOMING)).with_context(named)?;
        let root = root.canonicalize().with_context(named)?;
        let store = LocalFileSystem::new_with_prefix(&root).with_context(named)?;
        Ok(Self { store: Arc::new(store), root: root.into() })
    }

    /// Begins to receive a file.
    pub(crate) async fn begin(&self) -> io::Result<Incoming> {
        let path = Removed(self.root.join(INCOMING).join(Uuid::new_v4().to_string()));
        let file = File::create_new(&path.0).await?;
        Ok(Incoming { file, path, hash: Context::new(&SHA256), start: Vec::new(), size: 0 })
    }

    /// Gives a file its place. One with the same bytes may be there already.
    pub(crate) async fn place(&self, workspace_id: WorkspaceId, file: &Received) -> io::Result<()> {
        let target = self.root.join(path_of(workspace_id, &file.hash).as_ref());
        if let Some(folder) = target.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        tokio::fs::rename(&file.path.0, target).await
    }

    /// Reads a part of a file, or all of it.
    pub(crate) async fn read(
        &self,
        workspace_id: WorkspaceId,
        hash: &[u8; 32],
        range: Option<std::ops::Range<u64>>,
    ) -> object_store::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(&path_of(workspace_id, hash), options).await?;
        Ok(found.into_stream())
    }

    /// Removes a file, if it is there.
    pub(crate) async fn remove(
        &self,
        workspace_id: WorkspaceId,
        hash: &[u8; 32],
    ) -> object_store::Result<()> {
        match self.store.delete(&path_of(workspace_id, hash)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// Removes what interrupted uploads have left, and returns the files that have been there for a
    /// day, for the caller to remove those that nothing names.
    pub(crate) async fn remove_strays(&self) -> object_store::Result<Vec<(WorkspaceId, [u8; 32])>> {
        let oldest = chrono::Utc::now() - STRAY_AGE;
        let mut old = Vec::new();
        let mut listed = self.store.list(None);
        while let Some(object) = listed.try_next().await? {
            if object.last_modified > oldest {
                continue;
            }
            match read_path(&object.location) {
                Some(file) => old.push(file),
                None if object.location.as_ref().starts_with(INCOMING) => {
                    self.store.delete(&object.location).await?;
                }
                None => {}
            }
        }
        Ok(old)
    }
}

fn path_of(workspace_id: WorkspaceId, hash: &[u8; 32]) -> Path {
    let hex = hex(hash);
    Path::from(format!("{workspace_id}/{}/{}/{}", &hex[..3], &hex[3..6], &hex[6..]))
}

fn read_path(path: &Path) -> Option<(WorkspaceId, [u8; 32])> {
    let url: crate::utils::file_url::FileUrl = format!("/files/{path}.bin").parse().ok()?;
    Some((url.workspace_id, url.hash))
}

impl Incoming {
    /// Returns the number of bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        let missing = SNIFFED.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..missing]);
        self.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.file.write_all(bytes).await
    }

    /// Ends the file: an image loses its metadata, and everything is written to the disk.
    pub(crate) async fn finish(self) -> io::Result<Received> {
        let Self { mut file, path, hash, start, size } = self;
        let mime = media::detect(&start);
        file.flush().await?;
        if media::is_image(mime) {
            let original = path.0.clone();
            let stripped = spawn_blocking(move || strip(&original, mime)).await;
            if let Some(stripped) = stripped.map_err(io::Error::other)?? {
                return Ok(stripped);
            }
        }
        file.sync_all().await?;
        // A malformed image is kept as it came, and is not shown.
        let mime = if media::is_image(mime) { OTHER } else { mime };
        Ok(Received { path, hash: finished(hash), size, mime, image: None })
    }
}

/// Writes an image without its metadata beside the original.
fn strip(original: &FilePath, mime: &'static str) -> io::Result<Option<Received>> {
    let path = Removed(original.with_extension("stripped"));
    let mut input = BufReader::with_capacity(65_536, std::fs::File::open(original)?);
    let mut output = BufWriter::with_capacity(
        65_536,
        std::fs::File::options().read(true).write(true).create_new(true).open(&path.0)?,
    );
    let Some(image) = media::strip(mime, &mut input, &mut output)? else { return Ok(None) };
    output.flush()?;
    let mut file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    file.rewind()?;
    let mut digest = Digesting(Context::new(&SHA256));
    let size = io::copy(&mut BufReader::with_capacity(65_536, file), &mut digest)?;
    Ok(Some(Received { path, hash: finished(digest.0), size, mime, image: Some(image) }))
}

fn finished(hash: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

/// Computes the hash of what is written to it.
struct Digesting(Context);

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
