//! Images lose what tells where and by whom they were made, and nothing else.

use std::io::Cursor;

use super::image::exif_with;
use super::*;

const PLACE: &[u8] = b"48.8584 N, 2.2945 E";

fn stripped(mime: &str, bytes: &[u8]) -> Option<(Vec<u8>, Image)> {
    let mut output = Cursor::new(Vec::new());
    let image = strip(mime, &mut Cursor::new(bytes), &mut output).unwrap()?;
    Some((output.into_inner(), image))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// An EXIF block with an orientation, and a place behind its directory.
fn exif(orientation: u16) -> Vec<u8> {
    let mut tiff = exif_with(orientation).to_vec();
    tiff.extend_from_slice(PLACE);
    tiff
}

fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).unwrap();
    [&[0xff, marker][..], &length.to_be_bytes(), data].concat()
}

/// A progressive JPEG of 400 × 300 pixels: two scans, each with an escaped 0xff and a restart.
fn jpeg(application: &[u8]) -> Vec<u8> {
    let frame = segment(0xc2, &[8, 1, 44, 1, 144, 1, 1, 0x11, 0]);
    let scan = [&segment(0xda, b"scan")[..], b"abc\xff\0def\xff\xd0ghi"].concat();
    [
        b"\xff\xd8",
        &segment(0xe0, b"JFIF\0")[..],
        application,
        &segment(0xe2, b"ICC_PROFILE\0colours"),
        &segment(0xe2, PLACE),
        &segment(0xed, PLACE),
        &segment(0xfe, PLACE),
        &frame,
        &scan,
        &segment(0xc4, b"a table between scans"),
        &scan,
        b"\xff\xd9",
    ]
    .concat()
}

#[test]
fn a_jpeg_loses_its_place_and_keeps_colours_and_pixels() {
    let application = segment(0xe1, &[b"Exif\0\0", &exif(1)[..]].concat());
    let bytes = jpeg(&[application, segment(0xe1, PLACE)].concat());
    assert!(has(&bytes, PLACE));
    let (output, image) = stripped("image/jpeg", &bytes).unwrap();
    assert!(!has(&output, PLACE));
    assert!(has(&output, b"ICC_PROFILE\0colours") && has(&output, b"JFIF"));
    assert!(has(&output, b"a table between scans") && output.ends_with(b"ghi\xff\xd9"));
    assert_eq!(image, Image { width: 400, height: 300 });
    assert_eq!(stripped("image/jpeg", &output).unwrap().0, output);
}

#[test]
fn a_jpeg_that_is_turned_is_still_turned() {
    let bytes = jpeg(&segment(0xe1, &[b"Exif\0\0", &exif(6)[..]].concat()));
    let (output, image) = stripped("image/jpeg", &bytes).unwrap();
    assert!(!has(&output, PLACE) && has(&output, &exif_with(6)));
    assert_eq!(image, Image { width: 300, height: 400 });
    assert_eq!(stripped("image/jpeg", &output).unwrap(), (output, image));
}

#[test]
fn what_follows_the_end_of_an_image_goes() {
    let bytes = [&jpeg(&[])[..], &jpeg(&segment(0xe1, PLACE))].concat();
    let (output, _) = stripped("image/jpeg", &bytes).unwrap();
    assert_eq!(output, stripped("image/jpeg", &jpeg(&[])).unwrap().0);
}

fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&length.to_be_bytes()[..], kind, data, b"crc!"].concat()
}

fn png(extra: &[u8]) -> Vec<u8> {
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", b"\0\0\x02\x80\0\0\x01\xe0\x08\x02\0\0\0")[..],
        &chunk(b"iCCP", b"colours"),
        extra,
        &chunk(b"IDAT", b"pixels"),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

#[test]
fn a_png_loses_texts_times_and_unknown_chunks() {
    let kinds = [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"prVt"];
    let bytes = [png(&kinds.map(|kind| chunk(kind, PLACE)).concat()), PLACE.to_vec()].concat();
    let (output, image) = stripped("image/png", &bytes).unwrap();
    assert!(!has(&output, PLACE));
    assert!(has(&output, b"colours") && has(&output, b"pixels"));
    assert_eq!(image, Image { width: 640, height: 480 });
    let (turned, image) = stripped("image/png", &png(&chunk(b"eXIf", &exif(8)))).unwrap();
    assert!(!has(&turned, PLACE) && has(&turned, &exif_with(8)));
    assert_eq!(image, Image { width: 480, height: 640 });
    assert_eq!(stripped("image/png", &turned).unwrap(), (turned, image));
}

#[test]
fn the_checksum_of_the_last_chunk_is_that_of_the_specification() {
    let (output, _) = stripped("image/png", &png(&[])).unwrap();
    assert!(output.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, data) in chunks {
        body.extend_from_slice(*kind);
        body.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        body.extend_from_slice(data);
        body.resize(body.len() + data.len() % 2, 0);
    }
    [b"RIFF", &u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
}

#[test]
fn a_webp_loses_its_metadata_and_tells_its_new_size() {
    let header = b"\x2c\0\0\0\x7f\x02\0\xdf\x01\0";
    let image: (&[u8; 4], &[u8]) = (b"VP8 ", b"pixels of the image");
    let bytes = riff(&[
        (b"VP8X", header),
        (b"ICCP", b"colours"),
        image,
        (b"EXIF", &exif(6)),
        (b"XMP ", PLACE),
        (b"prVt", PLACE),
    ]);
    let (output, size) = stripped("image/webp", &bytes).unwrap();
    let expected =
        riff(&[(b"VP8X", b"\x20\0\0\0\x7f\x02\0\xdf\x01\0"), (b"ICCP", b"colours"), image]);
    assert_eq!(output, expected);
    assert_eq!(size, Image { width: 640, height: 480 });
}

#[test]
fn simple_webp_images_and_gifs_tell_their_size() {
    let lossy = riff(&[(b"VP8 ", b"\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01rest")]);
    let lossless = riff(&[(b"VP8L", b"\x2f\x7f\xc2\x77\0rest")]);
    for (mime, bytes) in [
        ("image/webp", &lossy[..]),
        ("image/webp", &lossless),
        ("image/gif", b"GIF89a\x80\x02\xe0\x01rest"),
    ] {
        let (output, size) = stripped(mime, bytes).unwrap();
        assert_eq!((output, size), (bytes.to_vec(), Image { width: 640, height: 480 }));
    }
}

#[test]
fn a_malformed_image_is_refused_wherever_it_ends() {
    let images = [
        ("image/jpeg", jpeg(&segment(0xe1, &[b"Exif\0\0", &exif(6)[..]].concat()))),
        ("image/png", png(&chunk(b"eXIf", &exif(6)))),
        ("image/webp", riff(&[(b"VP8X", &[0; 10]), (b"VP8 ", b"pixels")])),
    ];
    for (mime, bytes) in images {
        for length in 0..bytes.len() {
            assert_eq!(stripped(mime, &bytes[..length]), None, "{mime} of {length}");
        }
    }
    assert_eq!(
        stripped("image/png", &[png(&[])[..8].to_vec(), chunk(b"IDAT", b"x")].concat()),
        None
    );
    assert_eq!(stripped("image/gif", b"GIF89a\0\0\x01\0rest"), None);
}

#[test]
fn only_types_that_run_no_script_are_shown() {
    for (start, mime) in [
        (&png(&[])[..], "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"OggS\0", "audio/ogg"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", OTHER),
        (b"<!doctype html>", OTHER),
        (b"%PDF-1.7", OTHER),
        (b"PK\x03\x04", OTHER),
        (b"", OTHER),
        (b" \x89PNG\r\n\x1a\n", OTHER),
    ] {
        assert_eq!(detect(start), mime, "{start:?}");
    }
}
