//! The frames of a stream: `id`, `event` and `data`, and an empty line.

use std::fmt::Write;

use ::metrics::counter;
use bytes::Bytes;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::{Timestamp, metrics};
use serde::{Serialize, Serializer};
use tracing::error;

/// What a server says about the stream itself.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "event")]
pub(crate) enum Control {
    /// First: where the stream starts.
    Ready { cursor: Cursor, resumed: bool, server_time: Timestamp },
    /// Nothing at or below the cursor is still to come.
    Heartbeat { cursor: Cursor, server_time: Timestamp },
    /// The stream cannot be continued from where the client is.
    Reset { reason: ResetReason, cursor: Cursor },
    /// Last.
    Goodbye { reason: GoodbyeReason, retry_ms: u64 },
}

/// Why a cursor cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetReason {
    /// It is no cursor.
    CursorInvalid,
    /// This log has no such event, or has another one there.
    CursorUnknown,
    /// What follows it is no longer kept.
    CursorExpired,
    /// A snapshot is cheaper than all that follows it.
    TooFarBehind,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoodbyeReason {
    TokenExpired,
    SessionRevoked,
    Suspended,
    Removed,
    SlowConsumer,
    Draining,
}

impl ResetReason {
    /// Its name in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CursorInvalid => "cursor_invalid",
            Self::CursorUnknown => "cursor_unknown",
            Self::CursorExpired => "cursor_expired",
            Self::TooFarBehind => "too_far_behind",
        }
    }
}

impl GoodbyeReason {
    /// Its name in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TokenExpired => "token_expired",
            Self::SessionRevoked => "session_revoked",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
            Self::SlowConsumer => "slow_consumer",
            Self::Draining => "draining",
        }
    }
}

impl Serialize for ResetReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for GoodbyeReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Control {
    pub(crate) fn reset(reason: ResetReason, cursor: Cursor) -> Self {
        counter!(metrics::RESETS, "reason" => reason.name()).increment(1);
        Self::Reset { reason, cursor }
    }

    pub(crate) fn goodbye(reason: GoodbyeReason) -> Self {
        Self::Goodbye { reason, retry_ms: retry_ms() }
    }

    pub(crate) fn frame(&self) -> Bytes {
        let (id, event) = match self {
            Self::Ready { .. } => (None, "Ready"),
            Self::Heartbeat { cursor, .. } => (Some(*cursor), "Heartbeat"),
            Self::Reset { cursor, .. } => (Some(*cursor), "Reset"),
            Self::Goodbye { .. } => (None, "Goodbye"),
        };
        frame(id, event, &json(self))
    }
}

/// The first frame, which also tells the client how long to wait before it comes back.
pub(crate) fn ready(cursor: Cursor, resumed: bool) -> Bytes {
    let ready = Control::Ready { cursor, resumed, server_time: Timestamp::now() };
    let mut first = format!("retry: {}\n", retry_ms()).into_bytes();
    first.extend_from_slice(&ready.frame());
    first.into()
}

/// An event of the log; none if there is nothing to tell of it any more.
pub(crate) fn durable(entry: &Entry) -> Option<Bytes> {
    let data = entry.data.as_ref()?;
    Some(frame(Some(entry.cursor), &entry.kind, data))
}

/// An event past the log: without id, so that nobody resumes from it.
pub(crate) fn ephemeral(event: &EphemeralEvent) -> Bytes {
    frame(None, event.kind(), &json(event))
}

/// Clients come back at different times after something that happened to all of them.
fn retry_ms() -> u64 {
    rand::random_range(1_000..3_000)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| {
        error!(%error, "an event cannot be written as JSON");
        Vec::new()
    })
}

fn frame(id: Option<Cursor>, event: &str, data: &[u8]) -> Bytes {
    let mut head = String::with_capacity(64);
    if let Some(id) = id {
        let _ = writeln!(head, "id: {id}");
    }
    let _ = write!(head, "event: {event}\ndata: ");
    let mut frame = Vec::with_capacity(head.len() + data.len() + 2);
    frame.extend_from_slice(head.as_bytes());
    let start = frame.len();
    frame.extend_from_slice(data);
    // In JSON a line break can only stand between tokens, where a space does as well; here it would
    // end the field.
    for byte in &mut frame[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

#[cfg(test)]
mod tests {
    use fechatter_core::{Position, WorkspaceId};

    use super::*;

    fn entry(data: Option<&str>) -> Entry {
        Entry {
            workspace_id: WorkspaceId(1),
            cursor: "0000002a-7".parse().unwrap(),
            kind: "ChatDeleted".into(),
            chat_id: None,
            user_id: None,
            message_id: None,
            joined: Vec::new(),
            data: data.map(|data| Bytes::from(data.to_owned())),
        }
    }

    #[test]
    fn an_event_of_the_log_carries_its_cursor() {
        let frame = durable(&entry(Some(r#"{"event":"ChatDeleted","id":3}"#))).unwrap();
        assert_eq!(
            frame,
            "id: 0000002a-7\nevent: ChatDeleted\ndata: {\"event\":\"ChatDeleted\",\"id\":3}\n\n"
        );
        assert_eq!(durable(&entry(None)), None);
    }

    #[test]
    fn data_is_one_line_whatever_the_log_holds() {
        let frame = durable(&entry(Some("{\r\n\"id\":\n3}"))).unwrap();
        assert_eq!(frame, "id: 0000002a-7\nevent: ChatDeleted\ndata: {  \"id\": 3}\n\n");
        let text = json(&"one\r\ntwo\u{2028}three");
        assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
    }

    #[test]
    fn a_control_frame_names_its_event_first() {
        let cursor = Cursor { position: Position(9), .."00000001-9".parse().unwrap() };
        let reset = Control::Reset { reason: ResetReason::CursorExpired, cursor };
        assert_eq!(
            reset.frame(),
            "id: 00000001-9\nevent: Reset\ndata: \
             {\"event\":\"Reset\",\"reason\":\"cursor_expired\",\"cursor\":\"00000001-9\"}\n\n"
        );
        let goodbye = Control::Goodbye { reason: GoodbyeReason::Draining, retry_ms: 1500 };
        assert_eq!(
            goodbye.frame(),
            "event: Goodbye\ndata: \
             {\"event\":\"Goodbye\",\"reason\":\"draining\",\"retry_ms\":1500}\n\n"
        );
    }

    #[test]
    fn the_first_frame_says_when_to_come_back() {
        let frame = ready("00000001-9".parse().unwrap(), true);
        let text = str::from_utf8(&frame).unwrap();
        let (retry, rest) = text.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
        assert!((1_000..3_000).contains(&retry.parse::<u64>().unwrap()));
        assert!(rest.starts_with(
            "event: Ready\ndata: {\"event\":\"Ready\",\"cursor\":\"00000001-9\",\"resumed\":true,"
        ));
    }
}
