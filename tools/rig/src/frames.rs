//! Finding the frames in a stream of server-sent events, without copying them.

use memchr::memmem;

/// One event as it came, without the line breaks around its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Frame<'a> {
    /// The cursor, of events that have one.
    pub id: Option<&'a str>,
    pub event: &'a str,
    /// JSON.
    pub data: &'a [u8],
}

/// Hands on every whole frame, and says how many bytes they took.
pub fn split(body: &[u8], hear: &mut impl FnMut(Frame<'_>)) -> usize {
    let mut taken = 0;
    for end in memmem::find_iter(body, b"\n\n") {
        if let Some(frame) = Frame::parse(&body[taken..end]) {
            hear(frame);
        }
        taken = end + 2;
    }
    taken
}

impl<'a> Frame<'a> {
    /// None for a frame without data, such as a comment.
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
    fn whole_frames_are_handed_on_and_the_rest_is_kept() {
        let body = "retry: 5\nevent: Ready\ndata: {}\n\n: nothing\n\nid: 2a-7\nevent: New\ndata: {\"é\":1}\n\nid: 2";
        let mut heard = Vec::new();
        let taken = split(body.as_bytes(), &mut |frame: Frame<'_>| {
            heard.push((
                frame.id.map(ToOwned::to_owned),
                frame.event.to_owned(),
                frame.data.to_owned(),
            ));
        });
        assert_eq!(&body[taken..], "id: 2");
        assert_eq!(
            heard,
            [
                (None, "Ready".to_owned(), b"{}".to_vec()),
                (Some("2a-7".to_owned()), "New".to_owned(), "{\"é\":1}".as_bytes().to_vec()),
            ]
        );
    }
}
