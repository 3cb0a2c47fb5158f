//! Reading and copying parts of files.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

pub(super) fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads up to `limit` bytes of a part of this length, and skips the rest.
pub(super) fn read_part(
    input: &mut (impl BufRead + Seek),
    length: u64,
    limit: u64,
) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    input.by_ref().take(length.min(limit)).read_to_end(&mut part)?;
    skip(input, length.saturating_sub(limit))?;
    Ok(part)
}

pub(super) fn skip(input: &mut impl Seek, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    input.seek(SeekFrom::Current(length)).map(|_| ())
}

/// Copies exactly this many bytes.
pub(super) fn copy(input: &mut impl Read, output: &mut impl Write, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut input.take(length), output)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
