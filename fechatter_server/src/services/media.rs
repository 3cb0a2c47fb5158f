//! Types of files by their first bytes, and images without the metadata that tells where and by whom
//! they were made. Nothing is decoded or unpacked.

mod image;
mod jpeg;
mod parts;
mod png;
mod webp;

use std::io::{self, BufRead, Read, Seek, Write};

pub(crate) use self::image::Image;
use self::parts::read_array;

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

#[cfg(test)]
mod tests;
