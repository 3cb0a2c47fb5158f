//! The store of the uploaded files: a folder, or a bucket of an S3-compatible service.
//!
//! A file is received in a folder of this process's own, written to the disk, and then given its place,
//! `{workspace}/{aaa}/{bbb}/{rest}`, its hash. A row of the database names it only after that. What a
//! crash or a failure leaves at any time has a marker, by which [`FileStore::unnamed`] finds it.

mod local;
mod received;
mod spool;

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use fechatter_core::WorkspaceId;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

pub(crate) use self::received::{Incoming, Received};
use self::spool::Spool;
pub(crate) use self::spool::{Placed, Unnamed};
use crate::config::FilesConfig;
use crate::utils::file_url::hex;

/// Files that nothing names are older than any upload in progress.
const STRAY_AGE: Duration = Duration::from_hours(24);

/// The files of all workspaces. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FileStore {
    objects: Arc<dyn ObjectStore>,
    root: Arc<FilePath>,
    spool: Arc<Spool>,
    /// False if the files are in a bucket, and only received in the folder.
    is_local: bool,
}

impl FileStore {
    /// Opens the store, and creates its folder.
    ///
    /// # Errors
    /// Fails if the folder cannot be created, or the configuration of a bucket is wrong.
    pub(crate) fn open(config: &FilesConfig) -> anyhow::Result<Self> {
        let named = || format!("files.path: {}", config.path.display());
        let spool = Arc::new(Spool::create(&config.path)?);
        let root = config.path.canonicalize().with_context(named)?;
        let objects: Arc<dyn ObjectStore> = if config.s3.is_used() {
            bucket(config)?
        } else {
            Arc::new(LocalFileSystem::new_with_prefix(&root).with_context(named)?)
        };
        Ok(Self { objects, root: root.into(), spool, is_local: !config.s3.is_used() })
    }

    /// Returns the share of the disk that is free for files, in percent.
    pub(crate) fn free_percent(&self) -> anyhow::Result<u64> {
        let disk = rustix::fs::statvfs(&*self.root)?;
        Ok(disk.f_bavail * 100 / disk.f_blocks.max(1))
    }

    /// Begins to receive a file.
    pub(crate) fn begin(&self) -> Incoming {
        Incoming::create(self.spool.new_file())
    }

    /// Gives a file its place. One with the same bytes may be there already.
    pub(crate) async fn place(
        &self,
        workspace_id: WorkspaceId,
        file: &Received,
    ) -> io::Result<Placed> {
        let placed = self.spool.mark(workspace_id, &file.hash)?;
        let path = path_of(workspace_id, &file.hash);
        if self.is_local {
            let target = self.root.join(path.as_ref());
            let (from, root) = (file.path().to_owned(), Arc::clone(&self.root));
            spawn_blocking(move || move_durably(&from, &target, &root)).await??;
        } else {
            self.send(file.path(), &path).await?;
        }
        Ok(placed)
    }

    /// Sends a file to the bucket, in parts.
    async fn send(&self, from: &FilePath, path: &Path) -> io::Result<()> {
        let mut file = File::open(from).await?;
        let mut writer =
            object_store::buffered::BufWriter::new(Arc::clone(&self.objects), path.clone());
        if let Err(error) = tokio::io::copy(&mut file, &mut writer).await {
            let _ = writer.abort().await;
            return Err(error);
        }
        writer.shutdown().await
    }

    /// Reads a part of a file, or all of it.
    pub(crate) async fn read(
        &self,
        workspace_id: WorkspaceId,
        hash: &[u8; 32],
        range: Option<std::ops::Range<u64>>,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        if self.is_local {
            let path = self.root.join(path_of(workspace_id, hash).as_ref());
            return local::read(path, range).await;
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.objects.get_opts(&path_of(workspace_id, hash), options).await?;
        Ok(found.into_stream().map_err(io::Error::from).boxed())
    }

    /// Removes a file, if it is there.
    pub(crate) async fn remove(
        &self,
        workspace_id: WorkspaceId,
        hash: &[u8; 32],
    ) -> object_store::Result<()> {
        match self.objects.delete(&path_of(workspace_id, hash)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// Removes what processes were receiving that have died, and returns the files that were given
    /// their place by a failed or interrupted upload.
    pub(crate) async fn unnamed(&self) -> io::Result<Vec<Unnamed>> {
        let spool = Arc::clone(&self.spool);
        spawn_blocking(move || spool.unnamed()).await?
    }

    /// Returns the files that have been there for a day, for the caller to remove those that nothing
    /// names.
    pub(crate) async fn old(&self) -> object_store::Result<Vec<(WorkspaceId, [u8; 32])>> {
        let oldest = chrono::Utc::now() - STRAY_AGE;
        let mut old = Vec::new();
        let mut listed = self.objects.list(None);
        while let Some(object) = listed.try_next().await? {
            if object.last_modified <= oldest {
                old.extend(read_path(&object.location));
            }
        }
        Ok(old)
    }
}

/// Moves a file, and makes sure that it is found there after a failure of the machine.
fn move_durably(from: &FilePath, target: &FilePath, root: &FilePath) -> io::Result<()> {
    let folder = target.parent().unwrap_or(root);
    let is_new = !folder.exists();
    if is_new {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::rename(from, target)?;
    let sync = |folder: &FilePath| std::fs::File::open(folder)?.sync_all();
    sync(folder)?;
    if is_new {
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
            sync(above)?;
        }
    }
    Ok(())
}

#[cfg(feature = "s3")]
fn bucket(config: &FilesConfig) -> anyhow::Result<Arc<dyn ObjectStore>> {
    use object_store::aws::AmazonS3Builder;
    use secrecy::ExposeSecret;

    let s3 = &config.s3;
    // Without keys here, those of the environment or of the machine's role are used.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_allow_http(s3.endpoint.starts_with("http://"));
    if !s3.endpoint.is_empty() {
        builder = builder.with_endpoint(&s3.endpoint);
    }
    if let (false, Some(secret)) = (s3.access_key_id.is_empty(), &s3.secret_access_key) {
        builder = builder
            .with_access_key_id(&s3.access_key_id)
            .with_secret_access_key(secret.expose_secret());
    }
    Ok(Arc::new(builder.build().context("files.s3")?))
}

#[cfg(not(feature = "s3"))]
fn bucket(_: &FilesConfig) -> anyhow::Result<Arc<dyn ObjectStore>> {
    anyhow::bail!("files.s3.bucket is set, but this program was built without the feature s3")
}

fn path_of(workspace_id: WorkspaceId, hash: &[u8; 32]) -> Path {
    let hex = hex(hash);
    Path::from(format!("{workspace_id}/{}/{}/{}", &hex[..3], &hex[3..6], &hex[6..]))
}

fn read_path(path: &Path) -> Option<(WorkspaceId, [u8; 32])> {
    let url: crate::utils::file_url::FileUrl = format!("/files/{path}.bin").parse().ok()?;
    Some((url.workspace_id, url.hash))
}
