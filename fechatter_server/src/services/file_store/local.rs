//! Reading files of the folder.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::task::{JoinHandle, spawn_blocking};

/// The number of bytes that are read at once, while the ones before them are sent.
const BLOCK: u64 = 128 * 1024;

/// The rest of a file, after the blocks that were read.
struct Rest {
    file: File,
    length: u64,
}

type Reading = JoinHandle<io::Result<(Bytes, Rest)>>;

/// Returns the bytes of a file, or of a range of it, block by block.
pub(super) async fn read(
    path: PathBuf,
    range: Option<Range<u64>>,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let first = spawn_blocking(move || {
        let mut file = File::open(path)?;
        let length = match range {
            Some(range) => {
                file.seek(SeekFrom::Start(range.start))?;
                range.end - range.start
            }
            None => file.metadata()?.len(),
        };
        read_block(Rest { file, length })
    });
    let (first, rest) = first.await??;
    // Each block is read while the one before it is sent.
    let blocks = stream::unfold(read_next(rest), |reading: Option<Reading>| async {
        let read = match reading?.await {
            Ok(read) => read,
            Err(error) => Err(error.into()),
        };
        Some(match read {
            Ok((bytes, rest)) => (Ok(bytes), read_next(rest)),
            Err(error) => (Err(error), None),
        })
    });
    Ok(stream::iter([Ok(first)]).chain(blocks).boxed())
}

fn read_next(rest: Rest) -> Option<Reading> {
    (rest.length > 0).then(|| spawn_blocking(move || read_block(rest)))
}

fn read_block(mut rest: Rest) -> io::Result<(Bytes, Rest)> {
    let wanted = rest.length.min(BLOCK);
    let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
    rest.file.read_exact(&mut bytes)?;
    rest.length -= wanted;
    Ok((bytes.into(), rest))
}
