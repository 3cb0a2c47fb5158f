//! Types of files by their first bytes, and images without the metadata that tells where and by whom
//! they were made. Nothing is decoded or unpacked.

mod jpeg;
mod png;
mod webp;

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

/// The number of first bytes that tell the type of a file.
pub(crate) const SNIFFED: usize = 8_192;

/// The type of a file that cannot be shown.
pub(crate) const OTHER: &str = "application/octet-stream";

/// The types that browsers show, by magic bytes. All others are attachments: HTML, SVG and PDF can
/// run scripts.
const SHOWN: [&str; 8] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "video/mp4",
    "video/webm",
    "audio/mpeg",
    "audio/ogg",
];

/// An image without its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image {
    /// In pixels, as it is shown.
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Returns the MIME type of a file that begins with these bytes: one that browsers show, or
/// [`OTHER`].
pub(crate) fn detect(start: &[u8]) -> &'static str {
    let found = infer::get(start).map_or(OTHER, |kind| kind.mime_type());
    SHOWN.into_iter().find(|shown| *shown == found).unwrap_or(OTHER)
}

/// Returns true for a type that [`strip`] understands.
pub(crate) fn is_image(mime: &str) -> bool {
    matches!(mime, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}

/// Copies an image without its metadata, but with its colour profile and its orientation. Returns
/// `None` for a malformed image, of which the output may have a part.
///
/// # Errors
/// When the input cannot be read, or the output not written.
pub(crate) fn strip(
    mime: &str,
    input: &mut (impl BufRead + Seek),
    output: &mut (impl Write + Seek),
) -> io::Result<Option<Image>> {
    let stripped = match mime {
        "image/jpeg" => jpeg::strip(input, output),
        "image/png" => png::strip(input, output),
        "image/webp" => webp::strip(input, output),
        "image/gif" => copy_gif(input, output),
        _ => return Ok(None),
    };
    match stripped {
        Ok(image) => Ok(image.filter(|image| image.width > 0 && image.height > 0)),
        // The image ends too early.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// GIF has no place for coordinates: it is copied. The screen's size stands after the magic bytes
/// (`GIF89a`, section 18).
fn copy_gif(input: &mut impl Read, output: &mut impl Write) -> io::Result<Option<Image>> {
    let head: [u8; 10] = read_array(input)?;
    output.write_all(&head)?;
    io::copy(input, output)?;
    let [.., w0, w1, h0, h1] = head;
    let side = |bytes| u32::from(u16::from_le_bytes(bytes));
    Ok(Some(Image { width: side([w0, w1]), height: side([h0, h1]) }))
}

impl Image {
    /// The image as it is shown with an orientation of EXIF (CIPA DC-008, tag 0x0112): 5 to 8 turn it
    /// by a quarter.
    fn oriented(self, orientation: Option<u16>) -> Self {
        let Self { width, height } = self;
        if matches!(orientation, Some(5..=8)) {
            Self { width: height, height: width }
        } else {
            self
        }
    }
}

/// Returns the orientation of an EXIF block (TIFF 6.0, section 2), if it has one other than upright.
fn orientation(tiff: &[u8]) -> Option<u16> {
    let is_little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let u32_at = |at: usize| {
        let bytes: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(u32_at(4)?).ok()?;
    let entries = usize::from(u16_at(directory)?);
    let found = (0..entries).find_map(|number| {
        let entry = directory.checked_add(2 + number * 12)?;
        (u16_at(entry)? == 0x0112).then(|| u16_at(entry + 8))?
    });
    found.filter(|orientation| (2..=8).contains(orientation))
}

/// Returns an EXIF block that has nothing but an orientation.
fn exif_with(orientation: u16) -> [u8; 26] {
    let mut tiff = *b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    tiff[18..20].copy_from_slice(&orientation.to_be_bytes());
    tiff
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads up to `limit` bytes of a part of this length, and skips the rest.
fn read_part(input: &mut (impl BufRead + Seek), length: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    input.by_ref().take(length.min(limit)).read_to_end(&mut part)?;
    skip(input, length.saturating_sub(limit))?;
    Ok(part)
}

fn skip(input: &mut impl Seek, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    input.seek(SeekFrom::Current(length)).map(|_| ())
}

/// Copies exactly this many bytes.
fn copy(input: &mut impl Read, output: &mut impl Write, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut input.take(length), output)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests;
