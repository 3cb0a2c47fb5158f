//! A file that is being received, and then waits for its place.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::services::media::{self, Image, OTHER, SNIFFED};

/// The number of bytes that are hashed and written at once, while the next ones are received.
const BLOCK: usize = 128 * 1024;

/// A file that is being received. It is removed when this is dropped, and nothing is written any more.
pub(crate) struct Incoming {
    path: Arc<Removed>,
    /// Hashes and writes the last full block.
    writing: JoinHandle<io::Result<Output>>,
    /// The block that is being received.
    block: Vec<u8>,
    start: Vec<u8>,
    size: u64,
}

/// The part of a file that has been written.
struct Output {
    file: File,
    /// Keeps the file as long as something may be written, so that it is removed after that.
    _path: Arc<Removed>,
    hash: Context,
    /// The memory of the last block, for the one after the next.
    spare: Vec<u8>,
}

/// A file that is complete and on the disk, but has no place yet. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    path: Arc<Removed>,
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

impl Received {
    /// Returns where it is until it has its place.
    pub(super) fn path(&self) -> &Path {
        &self.path.0
    }
}

impl Incoming {
    /// Creates an empty file. If that fails, the first write does.
    pub(super) fn create(path: PathBuf) -> Self {
        let path = Arc::new(Removed(path));
        let own = Arc::clone(&path);
        let writing = spawn_blocking(move || {
            let file = File::create_new(&own.0)?;
            Ok(Output { file, _path: own, hash: Context::new(&SHA256), spare: Vec::new() })
        });
        Self { path, writing, block: Vec::new(), start: Vec::new(), size: 0 }
    }

    /// Returns the number of bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let missing = SNIFFED.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..missing]);
        self.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        while let Some((part, rest)) = bytes.split_at_checked(BLOCK - self.block.len()) {
            self.block.extend_from_slice(part);
            self.write_block().await?;
            bytes = rest;
        }
        self.block.extend_from_slice(bytes);
        Ok(())
    }

    /// Begins to write the block, as soon as the one before it is written.
    async fn write_block(&mut self) -> io::Result<()> {
        let mut output = (&mut self.writing).await??;
        let mut block = std::mem::replace(&mut self.block, std::mem::take(&mut output.spare));
        self.writing = spawn_blocking(move || {
            output.hash.update(&block);
            output.file.write_all(&block)?;
            block.clear();
            output.spare = block;
            Ok(output)
        });
        Ok(())
    }

    /// Ends the file: an image loses its metadata, and everything is written to the disk.
    pub(crate) async fn finish(mut self) -> io::Result<Received> {
        self.write_block().await?;
        let Self { path, writing, start, size, .. } = self;
        let Output { file, hash, .. } = writing.await??;
        let mime = media::detect(&start);
        if media::is_image(mime) {
            let original = path.0.clone();
            let stripped = spawn_blocking(move || strip(&original, mime)).await;
            if let Some(stripped) = stripped.map_err(io::Error::other)?? {
                return Ok(stripped);
            }
        }
        spawn_blocking(move || file.sync_all()).await??;
        // A malformed image is kept as it came, and is not shown.
        let mime = if media::is_image(mime) { OTHER } else { mime };
        Ok(Received { path, hash: finished(hash), size, mime, image: None })
    }
}

/// Writes an image without its metadata beside the original.
fn strip(original: &Path, mime: &'static str) -> io::Result<Option<Received>> {
    let path = Arc::new(Removed(original.with_extension("stripped")));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_given_up_before_it_is_created_is_not_created_later() {
        let folder = std::env::temp_dir().join(Uuid::now_v7().to_string());
        std::fs::create_dir(&folder).unwrap();
        for number in 0..100 {
            drop(Incoming::create(folder.join(number.to_string())));
        }
        let removed = async {
            while std::fs::read_dir(&folder).unwrap().count() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        sleep(Duration::from_millis(50)).await;
        timeout(Duration::from_secs(10), removed).await.unwrap();
        std::fs::remove_dir(folder).unwrap();
    }
}
