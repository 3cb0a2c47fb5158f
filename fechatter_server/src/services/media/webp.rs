//! WebP (RFC 9649): a RIFF file of chunks.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use super::image::Image;
use super::parts::{copy, read_array, read_part, skip};

/// The chunks of the image itself (section 2.7).
const KEPT: [&[u8; 4]; 6] = [b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"];
/// The flags of the extended header for EXIF and XMP.
const METADATA: u8 = 0b0000_1100;

/// Copies an image without EXIF, XMP and unknown chunks. Browsers ignore the orientation of a WebP
/// image, so it goes, too.
pub(super) fn strip(
    input: &mut (impl BufRead + Seek),
    output: &mut (impl Write + Seek),
) -> io::Result<Option<Image>> {
    let [r, i, f, g, s0, s1, s2, s3, form @ ..] = read_array::<12>(input)?;
    if [r, i, f, g] != *b"RIFF" || form != *b"WEBP" {
        return Ok(None);
    }
    let start = output.stream_position()?;
    output.write_all(b"RIFF\0\0\0\0WEBP")?;
    let mut left = u64::from(u32::from_le_bytes([s0, s1, s2, s3])).saturating_sub(4);
    let mut image = None;
    while left >= 8 {
        let head: [u8; 8] = read_array(input)?;
        let [kind @ .., l0, l1, l2, l3] = head;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let padded = length + length % 2;
        left = left.saturating_sub(8 + padded);
        if &kind == b"VP8X" && image.is_none() {
            let mut header = read_part(input, padded, 10)?;
            let [flags, _, _, _, w0, w1, w2, h0, h1, h2] = &mut *header else { return Ok(None) };
            *flags &= !METADATA;
            let side = |bytes: [u8; 3]| 1 + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
            image = Some(Image { width: side([*w0, *w1, *w2]), height: side([*h0, *h1, *h2]) });
            output.write_all(b"VP8X\x0a\0\0\0")?;
            output.write_all(&header)?;
        } else if KEPT.contains(&&kind) {
            output.write_all(&head)?;
            let mut beginning = Vec::new();
            input.by_ref().take(padded.min(10)).read_to_end(&mut beginning)?;
            image = image.or_else(|| size_of(kind, &beginning));
            output.write_all(&beginning)?;
            let copied = u64::try_from(beginning.len()).unwrap_or(padded);
            copy(input, output, padded - copied)?;
        } else {
            skip(input, padded)?;
        }
    }
    let end = output.stream_position()?;
    let size = u32::try_from(end - start - 8).map_err(|_| io::ErrorKind::InvalidData)?;
    output.seek(SeekFrom::Start(start + 4))?;
    output.write_all(&size.to_le_bytes())?;
    output.seek(SeekFrom::Start(end))?;
    Ok(image)
}

/// Returns the size of a simple image by the beginning of its data (RFC 6386, section 9.1, and RFC
/// 9649, section 3.4).
fn size_of(kind: [u8; 4], start: &[u8]) -> Option<Image> {
    match (&kind, start) {
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some(Image { width: side(*w0, *w1), height: side(*h0, *h1) })
        }
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            Some(Image { width: 1 + (bits & 0x3fff), height: 1 + (bits >> 14 & 0x3fff) })
        }
        _ => None,
    }
}
