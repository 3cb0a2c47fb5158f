//! The frames of a stream: `id`, `event` and `data`, and an empty line. Each frame is made once for
//! all streams, as one chunk of HTTP/1.1.

use std::io::Write;

use ::metrics::counter;
use bytes::{Buf, Bytes};
use fechatter_core::event::{EphemeralEvent, NEW_MESSAGE};
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::message::Message;
use fechatter_core::stream_event::{Control, GoodbyeReason, ResetReason};
use fechatter_core::{Timestamp, UserId, metrics};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::error;

/// A frame as a chunk (RFC 9112, section 7.1): its length, its text, and a line break. Clones share
/// the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame(Bytes);

impl Frame {
    fn of(text: &[u8]) -> Self {
        let mut chunk = Vec::with_capacity(text.len() + 16);
        let _ = write!(chunk, "{:x}\r\n", text.len());
        chunk.extend_from_slice(text);
        chunk.extend_from_slice(b"\r\n");
        Self(chunk.into())
    }

    /// Returns the chunk that ends the body.
    pub(crate) fn last_chunk() -> Self {
        Self(Bytes::from_static(b"0\r\n\r\n"))
    }

    /// Creates a frame of bytes that are written unchanged.
    pub(crate) fn raw(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the frame without its chunk encoding.
    #[must_use]
    pub(crate) fn text(&self) -> Self {
        let mut text = self.0.clone();
        let head = text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.advance(head);
        text.truncate(text.len().saturating_sub(2));
        Self(text)
    }

    /// Returns the event's name.
    fn kind(&self) -> String {
        let mut lines = self.0.split(|byte| *byte == b'\n');
        let kind = lines.find_map(|line| line.strip_prefix(b"event: "));
        String::from_utf8_lossy(kind.unwrap_or_default()).into_owned()
    }

    /// Returns the event's JSON.
    fn data(&self) -> &[u8] {
        let mut lines = self.0.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(b"data: ")).unwrap_or_default()
    }

    /// Returns the chunk's length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Removes bytes at the beginning that have been written.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns a `Reset`, and counts it.
pub(crate) fn reset(reason: ResetReason, cursor: Cursor) -> Control {
    counter!(metrics::RESETS, "reason" => reason.name()).increment(1);
    Control::Reset { reason, cursor }
}

pub(crate) fn goodbye(reason: GoodbyeReason) -> Control {
    Control::Goodbye { reason, retry_ms: retry_ms() }
}

/// Returns the frame of an event about the stream. `Ready` and `Reset` are the first frames of their
/// streams, so they also contain the delay before a reconnect.
pub(crate) fn control(control: &Control) -> Frame {
    let (retry, id) = match control {
        Control::Ready { cursor, .. } | Control::Reset { cursor, .. } => {
            (Some(retry_ms()), Some(*cursor))
        }
        Control::Heartbeat { cursor, .. } => (None, Some(*cursor)),
        Control::Goodbye { .. } => (None, None),
    };
    frame(retry, id, control.kind(), &json(control))
}

/// Returns the first frame of a stream that begins after this cursor.
pub(crate) fn ready(cursor: Cursor, resumed: bool, now: Timestamp) -> Frame {
    control(&Control::Ready { cursor, resumed, server_time: now })
}

/// Returns the frame of an event of the log; `None` if the event has no data.
pub(crate) fn durable(entry: &Entry) -> Option<Frame> {
    let data = entry.data.as_ref()?;
    Some(frame(None, Some(entry.cursor), &entry.kind, data))
}

/// Returns the frame of an event that shows a message, with the message in its present state.
/// The frame of a new message that is a reply also has its `parent`.
pub(crate) fn renewed(
    frame: &Frame,
    cursor: Cursor,
    message: &[u8],
    parent: Option<&[u8]>,
) -> Frame {
    let kind = frame.kind();
    let mut data = format!(r#"{{"event":"{kind}","#).into_bytes();
    data.extend_from_slice(message.strip_prefix(b"{").unwrap_or(message));
    if let Some(parent) = parent.filter(|_| kind == NEW_MESSAGE) {
        data.truncate(data.len() - 1);
        data.extend_from_slice(b",\"parent\":");
        data.extend_from_slice(parent);
        data.push(b'}');
    }
    self::frame(None, Some(cursor), &kind, &data)
}

/// Returns the time of the event that deletes all messages of a person.
pub(crate) fn blanked_at(data: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Blanked {
        blanked_at: Timestamp,
    }

    serde_json::from_slice(data).ok().map(|Blanked { blanked_at }| blanked_at)
}

/// Returns the frame with the message as a deleted one, if this person has sent it.
pub(crate) fn without_message_of(
    frame: &Frame,
    cursor: Cursor,
    person: UserId,
    deleted_at: Timestamp,
) -> Option<Frame> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        parent: Option<&'a RawValue>,
    }

    let data = frame.data();
    let mut message: Message = serde_json::from_slice(data).ok()?;
    let Reply { parent } = serde_json::from_slice(data).ok()?;
    if message.sender_id != person || !message.can_be_deleted() {
        return None;
    }
    message.delete(deleted_at);
    Some(renewed(frame, cursor, &json(&message), parent.map(|parent| parent.get().as_bytes())))
}

/// Returns the frame of an event that is not in the log: without id, because a client cannot resume
/// from it.
pub(crate) fn ephemeral(event: &EphemeralEvent) -> Frame {
    frame(None, None, event.kind(), &json(event))
}

/// Returns a random delay before a reconnect, so that clients do not all come back at the same
/// time.
fn retry_ms() -> u64 {
    rand::random_range(1_000..3_000)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| {
        error!(%error, "an event cannot be written as JSON");
        Vec::new()
    })
}

fn frame(retry: Option<u64>, id: Option<Cursor>, event: &str, data: &[u8]) -> Frame {
    let mut frame = Vec::with_capacity(data.len() + 96);
    // Writing to memory does not fail.
    if let Some(retry) = retry {
        let _ = writeln!(frame, "retry: {retry}");
    }
    if let Some(id) = id {
        let _ = writeln!(frame, "id: {id}");
    }
    let _ = write!(frame, "event: {event}\ndata: ");
    let start = frame.len();
    frame.extend_from_slice(data);
    // In JSON, a line break can occur only between tokens, where a space is equivalent; here it
    // would end the field.
    for byte in &mut frame[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    frame.extend_from_slice(b"\n\n");
    Frame::of(&frame)
}

#[cfg(test)]
mod tests {
    use fechatter_core::event::Effect;
    use fechatter_core::{Position, WorkspaceId};

    use super::*;

    fn entry(data: Option<&str>) -> Entry {
        Entry {
            workspace_id: WorkspaceId(1),
            cursor: "0000002a-7".parse().unwrap(),
            kind: "ChatDeleted".into(),
            effect: Some(Effect::ClosesChat),
            chat_id: None,
            user_id: None,
            message_id: None,
            joined: Vec::new(),
            data: data.map(|data| Bytes::from(data.to_owned())),
            shows_message: false,
            shows_person: None,
            changed: None,
            parent: None,
        }
    }

    #[test]
    fn an_event_of_the_log_carries_its_cursor() {
        let frame = durable(&entry(Some(r#"{"event":"ChatDeleted","id":3}"#))).unwrap();
        assert_eq!(
            text(&frame),
            "id: 0000002a-7\nevent: ChatDeleted\ndata: {\"event\":\"ChatDeleted\",\"id\":3}\n\n"
        );
        assert_eq!(durable(&entry(None)), None);
    }

    #[test]
    fn data_is_one_line_whatever_the_log_holds() {
        let frame = durable(&entry(Some("{\r\n\"id\":\n3}"))).unwrap();
        let expected = "id: 0000002a-7\nevent: ChatDeleted\ndata: {  \"id\": 3}\n\n";
        assert_eq!(text(&frame), expected);
        let text = json(&"one\r\ntwo\u{2028}three");
        assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
    }

    #[test]
    fn a_control_frame_names_its_event_first() {
        let cursor = Cursor { position: Position(9), .."00000001-9".parse().unwrap() };
        let reset = Control::Reset { reason: ResetReason::CursorExpired, cursor };
        assert_eq!(
            after_retry(&control(&reset)),
            "id: 00000001-9\nevent: Reset\ndata: \
             {\"event\":\"Reset\",\"reason\":\"cursor_expired\",\"cursor\":\"00000001-9\"}\n\n"
        );
        let goodbye = Control::Goodbye { reason: GoodbyeReason::Draining, retry_ms: 1500 };
        assert_eq!(
            text(&control(&goodbye)),
            "event: Goodbye\ndata: \
             {\"event\":\"Goodbye\",\"reason\":\"draining\",\"retry_ms\":1500}\n\n"
        );
    }

    #[test]
    fn the_first_frame_says_where_the_stream_begins_and_when_to_come_back() {
        let rest = after_retry(&ready("00000001-9".parse().unwrap(), true, Timestamp::now()));
        assert!(rest.starts_with(
            "id: 00000001-9\nevent: Ready\ndata: \
             {\"event\":\"Ready\",\"cursor\":\"00000001-9\",\"resumed\":true,"
        ));
    }

    fn text(frame: &Frame) -> String {
        String::from_utf8(frame.text().as_ref().to_owned()).unwrap()
    }

    /// Returns the text after a valid `retry` line.
    fn after_retry(frame: &Frame) -> String {
        let text = text(frame);
        let (retry, rest) = text.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
        assert!((1_000..3_000).contains(&retry.parse::<u64>().unwrap()));
        rest.to_owned()
    }

    #[test]
    fn a_frame_is_a_chunk_of_its_own() {
        for text in ["", "x", "data: \n\n", &"y".repeat(70_000)] {
            let frame = Frame::of(text.as_bytes());
            assert_eq!(frame.text().as_ref(), text.as_bytes());
            let chunk = format!("{:x}\r\n{text}\r\n", text.len());
            assert_eq!(frame.as_ref(), chunk.as_bytes());
        }
    }
}
