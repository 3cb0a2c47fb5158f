//! The size of an image, and the orientation that EXIF gives it.

/// An image without its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image {
    /// In pixels, as it is shown.
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Image {
    /// The image as it is shown with an orientation of EXIF (CIPA DC-008, tag 0x0112): 5 to 8 turn it
    /// by a quarter.
    pub(super) fn oriented(self, orientation: Option<u16>) -> Self {
        let Self { width, height } = self;
        if matches!(orientation, Some(5..=8)) {
            Self { width: height, height: width }
        } else {
            self
        }
    }
}

/// Returns the orientation of an EXIF block (TIFF 6.0, section 2), if it has one other than upright.
pub(super) fn orientation(tiff: &[u8]) -> Option<u16> {
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
pub(super) fn exif_with(orientation: u16) -> [u8; 26] {
    let mut tiff = *b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    tiff[18..20].copy_from_slice(&orientation.to_be_bytes());
    tiff
}
