//! PNG (W3C, third edition): a signature, and chunks with a length, a type and a checksum.

use std::io::{self, BufRead, Seek, Write};

use super::image::{Image, exif_with, orientation};
use super::parts::{copy, read_array, read_part, skip};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// The chunks that change how the image looks, or belong to an animation (sections 11 and 12).
const KEPT: [&[u8; 4]; 19] = [
    b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP",
    b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"acTL", b"fcTL", b"fdAT",
];
/// The longest EXIF block that is searched for an orientation, in bytes.
const MAX_EXIF: u64 = 65_536;

/// Copies an image without texts, times, EXIF and unknown chunks.
pub(super) fn strip(
    input: &mut (impl BufRead + Seek),
    output: &mut impl Write,
) -> io::Result<Option<Image>> {
    if read_array(input)? != SIGNATURE {
        return Ok(None);
    }
    output.write_all(&SIGNATURE)?;
    let (mut image, mut turned) = (None, None);
    loop {
        let head: [u8; 8] = read_array(input)?;
        let [l0, l1, l2, l3, kind @ ..] = head;
        let length = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
        if image.is_none() != (&kind == b"IHDR") {
            return Ok(None);
        }
        match &kind {
            b"IHDR" => {
                let header = read_part(input, length, 13)?;
                let checksum: [u8; 4] = read_array(input)?;
                let [w0, w1, w2, w3, h0, h1, h2, h3, _, _, _, _, _] = *header else {
                    return Ok(None);
                };
                let width = u32::from_be_bytes([w0, w1, w2, w3]);
                image = Some(Image { width, height: u32::from_be_bytes([h0, h1, h2, h3]) });
                output.write_all(&[&head[..], &header, &checksum].concat())?;
            }
            b"IEND" => {
                read_array::<4>(input)?;
                // The bytes after it belong to no image, and are dropped.
                write_chunk(output, kind, &[])?;
                return Ok(image.map(|image: Image| image.oriented(turned)));
            }
            b"eXIf" => {
                let block = read_part(input, length, MAX_EXIF)?;
                skip(input, 4)?;
                if turned.is_none()
                    && let Some(orientation) = orientation(&block)
                {
                    turned = Some(orientation);
                    write_chunk(output, kind, &exif_with(orientation))?;
                }
            }
            _ if KEPT.contains(&&kind) => {
                output.write_all(&head)?;
                copy(input, output, length + 4)?;
            }
            _ => skip(input, length + 4)?,
        }
    }
}

fn write_chunk(output: &mut impl Write, kind: [u8; 4], data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let checksum = checksum(kind.iter().chain(data));
    output.write_all(&length.to_be_bytes())?;
    output.write_all(&kind)?;
    output.write_all(data)?;
    output.write_all(&checksum.to_be_bytes())
}

/// The CRC of a chunk's type and data (annex D).
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 }
        })
    });
    !crc
}
