//! Taking apart a body in chunks, as HTTP/1.1 transfers what has no length.

use std::io;

/// Where in the body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size(usize),
    Extension(usize),
    Data(usize),
    /// The line break after a chunk's data, of which so many bytes are still to come.
    Break(usize),
    End,
}

/// Takes apart one body.
#[derive(Debug)]
pub(crate) struct Chunks(State);

impl Chunks {
    pub(crate) fn new() -> Self {
        Self(State::Size(0))
    }

    /// Whether the body has come to its proper end.
    pub(crate) fn has_ended(&self) -> bool {
        self.0 == State::End
    }

    /// Adds what the next bytes say to the body.
    pub(crate) fn take(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> io::Result<()> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.0 = match self.0 {
                State::Size(0) | State::Extension(0) if byte == b'\n' => State::End,
                State::Size(size) | State::Extension(size) if byte == b'\n' => State::Data(size),
                State::Size(size) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                    State::Size(size.checked_mul(16).ok_or(io::ErrorKind::InvalidData)? + digit)
                }
                State::Size(size) | State::Extension(size) => State::Extension(size),
                State::Data(size) => {
                    let (data, rest) = bytes.split_at(size.min(bytes.len()));
                    body.extend_from_slice(data);
                    bytes = rest;
                    self.0 = match size - data.len() {
                        0 => State::Break(2),
                        left => State::Data(left),
                    };
                    continue;
                }
                State::Break(1) => State::Size(0),
                State::Break(left) => State::Break(left - 1),
                State::End => return Ok(()),
            };
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODED: &[u8] = b"5\r\nhello\r\n0A;x=y\r\n, 0123456!\r\n0\r\n\r\n";

    #[test]
    fn chunks_make_a_body_however_they_arrive() {
        for size in 1..=CODED.len() {
            let (mut chunks, mut body) = (Chunks::new(), Vec::new());
            for part in CODED.chunks(size) {
                assert!(!chunks.has_ended() || part.starts_with(b"\r") || part == b"\n");
                chunks.take(part, &mut body).unwrap();
            }
            assert_eq!(body, b"hello, 0123456!");
            assert!(chunks.has_ended());
        }
    }

    #[test]
    fn a_body_that_breaks_off_has_not_ended() {
        let (mut chunks, mut body) = (Chunks::new(), Vec::new());
        chunks.take(&CODED[..12], &mut body).unwrap();
        assert!(!chunks.has_ended());
    }
}
