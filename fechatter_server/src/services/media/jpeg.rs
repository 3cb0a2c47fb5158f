//! JPEG (ITU-T T.81, annex B): segments, and between them the coded image.

use std::io::{self, BufRead, Seek, Write};

use super::image::{Image, exif_with, orientation};
use super::parts::{read_array, read_part, skip};

/// The longest segment, without its marker.
const MAX_SEGMENT: u64 = 65_535;

/// Copies an image without comments and application segments, but for those that change its colours.
pub(super) fn strip(
    input: &mut (impl BufRead + Seek),
    output: &mut impl Write,
) -> io::Result<Option<Image>> {
    if read_array(input)? != [0xff, 0xd8] {
        return Ok(None);
    }
    output.write_all(&[0xff, 0xd8])?;
    let (mut image, mut turned, mut is_oriented) = (None, None, false);
    loop {
        let Some(marker) = next_marker(input)? else { return Ok(None) };
        match marker {
            // The end of the image. The bytes after it are dropped.
            0xd9 => {
                output.write_all(&[0xff, 0xd9])?;
                return Ok(image.map(|image: Image| image.oriented(turned)));
            }
            // Markers without a segment.
            0x01 | 0xd0..=0xd7 => output.write_all(&[0xff, marker])?,
            0xe1 => {
                let segment = read_segment(input)?;
                if let Some(tiff) = segment.strip_prefix(b"Exif\0\0")
                    && !is_oriented
                {
                    turned = orientation(tiff);
                    is_oriented = turned.is_some();
                    if let Some(orientation) = turned {
                        write_exif(output, orientation)?;
                    }
                }
            }
            // JFIF, the colour profile and Adobe's colour transformation.
            0xe0 | 0xee => write_segment(output, marker, &read_segment(input)?)?,
            0xe2 => {
                let segment = read_segment(input)?;
                if segment.starts_with(b"ICC_PROFILE\0") {
                    write_segment(output, marker, &segment)?;
                }
            }
            0xe3..=0xef | 0xfe => skip_segment(input)?,
            // Start of a frame: its size.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let segment = read_segment(input)?;
                let [_, h0, h1, w0, w1, ..] = *segment else { return Ok(None) };
                let side = |bytes| u32::from(u16::from_be_bytes(bytes));
                image = Some(Image { width: side([w0, w1]), height: side([h0, h1]) });
                write_segment(output, marker, &segment)?;
            }
            0xda => {
                write_segment(output, marker, &read_segment(input)?)?;
                copy_scan(input, output)?;
            }
            _ => write_segment(output, marker, &read_segment(input)?)?,
        }
    }
}

/// Returns the next marker, which fill bytes may precede.
fn next_marker(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    let [first] = read_array(input)?;
    if first != 0xff {
        return Ok(None);
    }
    loop {
        match read_array(input)? {
            [0xff] => {}
            [0] => return Ok(None),
            [marker] => return Ok(Some(marker)),
        }
    }
}

fn segment_length(input: &mut impl BufRead) -> io::Result<u64> {
    let length = u64::from(u16::from_be_bytes(read_array(input)?));
    length.checked_sub(2).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn read_segment(input: &mut (impl BufRead + Seek)) -> io::Result<Vec<u8>> {
    let length = segment_length(input)?;
    let segment = read_part(input, length, MAX_SEGMENT)?;
    if u64::try_from(segment.len()) == Ok(length) {
        Ok(segment)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn skip_segment(input: &mut (impl BufRead + Seek)) -> io::Result<()> {
    let length = segment_length(input)?;
    skip(input, length)
}

fn write_segment(output: &mut impl Write, marker: u8, segment: &[u8]) -> io::Result<()> {
    let length = u16::try_from(segment.len() + 2).map_err(|_| io::ErrorKind::InvalidData)?;
    output.write_all(&[0xff, marker])?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(segment)
}

fn write_exif(output: &mut impl Write, orientation: u16) -> io::Result<()> {
    write_segment(output, 0xe1, &[b"Exif\0\0", &exif_with(orientation)[..]].concat())
}

/// Copies the coded image up to the next marker. Within it, 0xff is followed by 0, or by the number
/// of a restart.
fn copy_scan(input: &mut (impl BufRead + Seek), output: &mut impl Write) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain = buffer.iter().position(|byte| *byte == 0xff).unwrap_or(buffer.len());
        if plain > 0 {
            output.write_all(&buffer[..plain])?;
            input.consume(plain);
            continue;
        }
        let escaped: [u8; 2] = read_array(input)?;
        if matches!(escaped[1], 0 | 0xd0..=0xd7) {
            output.write_all(&escaped)?;
        } else {
            return input.seek_relative(-2);
        }
    }
}
