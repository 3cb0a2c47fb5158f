//! Parses the frames of a stream of server-sent events, without copying them.

use memchr::memmem;

/// A server-sent event. The fields contain the values without line breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Frame<'a> {
    /// The cursor. Only durable events have one.
    pub id: Option<&'a str>,
    pub event: &'a str,
    /// The JSON text of the event.
    pub data: &'a [u8],
}

/// Calls `on_frame` for every complete frame, and returns the number of bytes of these frames.
pub fn split(body: &[u8], on_frame: &mut impl FnMut(Frame<'_>)) -> usize {
    let mut parsed = 0;
    for end in memmem::find_iter(body, b"\n\n") {
        if let Some(frame) = Frame::parse(&body[parsed..end]) {
            on_frame(frame);
        }
        parsed = end + 2;
    }
    parsed
}

impl<'a> Frame<'a> {
    /// Returns `None` for a frame without data, for example a comment.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (mut id, mut event, mut data) = (None, "message", None);
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"data: ") {
                data = Some(value);
            } else if let Some(value) = line.strip_prefix(b"id: ") {
                id = str::from_utf8(value).ok();
            } else if let Some(value) = line.strip_prefix(b"event: ") {
                event = str::from_utf8(value).ok()?;
            }
        }
        data.map(|data| Frame { id, event, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_frames_are_parsed_and_the_rest_is_kept() {
        let body = "retry: 5\nevent: Ready\ndata: {}\n\n: nothing\n\nid: 2a-7\nevent: New\ndata: {\"é\":1}\n\nid: 2";
        let mut frames = Vec::new();
        let parsed = split(body.as_bytes(), &mut |frame: Frame<'_>| {
            frames.push((
                frame.id.map(ToOwned::to_owned),
                frame.event.to_owned(),
                frame.data.to_owned(),
            ));
        });
        assert_eq!(&body[parsed..], "id: 2");
        assert_eq!(
            frames,
            [
                (None, "Ready".to_owned(), b"{}".to_vec()),
                (Some("2a-7".to_owned()), "New".to_owned(), "{\"é\":1}".as_bytes().to_vec()),
            ]
        );
    }
}
