//! Addresses of files: `/files/{workspace}/{aaa}/{bbb}/{rest}.{extension}`, where the three middle
//! parts are the SHA-256 of the bytes in hexadecimal digits.

use std::fmt::{self, Write};
use std::str::FromStr;

use fechatter_core::WorkspaceId;

/// The longest extension that is kept of a file's name.
const MAX_EXTENSION: usize = 10;

/// The address of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileUrl {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) hash: [u8; 32],
    pub(crate) extension: String,
}

/// The error for a text that is no address of a file.
#[derive(Debug)]
pub(crate) struct NotAFileUrl;

impl FileUrl {
    /// The address of a file with this name. The extension only helps people: it decides nothing.
    pub(crate) fn new(workspace_id: WorkspaceId, hash: [u8; 32], name: &str) -> Self {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        let extension = extension.filter(|extension| is_extension(extension));
        Self { workspace_id, hash, extension: extension.unwrap_or_else(|| "bin".to_owned()) }
    }

    /// Returns the hash in hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        hex(&self.hash)
    }
}

/// Returns bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_extension(text: &str) -> bool {
    (1..=MAX_EXTENSION).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn read_hex(digits: &str) -> Option<[u8; 32]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(hash)
}

impl fmt::Display for FileUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.hex();
        let (a, b, rest) = (&hex[..3], &hex[3..6], &hex[6..]);
        write!(f, "/files/{}/{a}/{b}/{rest}.{}", self.workspace_id, self.extension)
    }
}

impl FromStr for FileUrl {
    type Err = NotAFileUrl;

    fn from_str(text: &str) -> Result<Self, NotAFileUrl> {
        let parsed = || {
            let mut parts = text.strip_prefix("/files/")?.split('/');
            let workspace_id = parts.next()?.parse().ok()?;
            let (a, b, last) = (parts.next()?, parts.next()?, parts.next()?);
            let (rest, extension) = last.split_once('.')?;
            let is_complete = parts.next().is_none() && a.len() == 3 && b.len() == 3;
            let hash = read_hex(&format!("{a}{b}{rest}"))?;
            (is_complete && is_extension(extension)).then(|| Self {
                workspace_id,
                hash,
                extension: extension.to_owned(),
            })
        };
        parsed().ok_or(NotAFileUrl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_equal_after_being_written_and_read() {
        let url = FileUrl::new(
            WorkspaceId(7),
            std::array::from_fn(|n| u8::try_from(n).unwrap()),
            "Lunch.JPG",
        );
        let text = url.to_string();
        assert!(text.starts_with("/files/7/000/102/03"), "{text}");
        assert!(text.ends_with("1f.jpg"), "{text}");
        assert_eq!(text.parse::<FileUrl>().ok(), Some(url));
    }

    #[test]
    fn other_texts_are_no_addresses() {
        let good = FileUrl::new(WorkspaceId(7), [0xab; 32], "x").to_string();
        assert!(good.parse::<FileUrl>().is_ok(), "{good}");
        for bad in [
            good.replace("/files/7", "/files/07"),
            good.replace("/files", ""),
            good.replace(".bin", ""),
            good.replace(".bin", ".b/n"),
            good.replace(".bin", ".TXT"),
            good.replace("ab", "AB"),
            good.replace("/aba/", "/ab/a"),
            format!("{good}/x"),
            good.replacen("ab", "..", 1),
        ] {
            assert!(bad.parse::<FileUrl>().is_err(), "{bad}");
        }
    }
}
