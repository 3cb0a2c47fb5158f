//! What people did and heard, as they saw it.

use std::time::Instant;

use fechatter_core::{
    ChatId, Position, SessionId, UserId,
    log::{Cursor, Stamp},
    message::Message,
};
use uuid::Uuid;

use crate::checker::log::Log;

/// Everything, once it is over.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Past {
    pub sends: Vec<Send>,
    pub streams: Vec<Stream>,
    pub log: Log,
}

/// One message and every attempt to send it, all under one key.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Send {
    pub chat: ChatId,
    pub sender: UserId,
    pub session: SessionId,
    pub key: Uuid,
    pub content: String,
    pub attempts: Vec<Attempt>,
}

/// One call.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Attempt {
    /// Which one was called.
    pub server: usize,
    pub invoked: Instant,
    pub returned: Instant,
    pub outcome: Outcome,
    /// The refusal, if the send was refused and not acknowledged.
    pub refusal: Option<String>,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was acknowledged, with this message.
    Ok(Box<Message>),
    /// It was refused for good.
    Failed,
    /// It may have been done, or still be done.
    Unknown,
    /// The same, but the server called it a fault of its own.
    Fault,
}

/// Everything that one client heard, over all its connections.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stream {
    pub reader: UserId,
    pub session: SessionId,
    pub heard: Vec<Heard>,
    /// Its client did not read for a while: how late it heard of things says nothing.
    pub stalled: bool,
    /// What became of it in the end.
    pub end: StreamEnd,
}

/// How a stream stood when everything was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// It was open: it has to have everything.
    Live,
    /// The servers refused it.
    Refused,
}

/// Something that came through a stream.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Heard {
    pub at: Instant,
    pub what: What,
}

/// See [`Heard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The first event of a connection: it goes on from here.
    Ready(Position),
    /// A durable event.
    Event(Receipt),
    /// The client has to start over from here.
    Reset(Position),
    /// The connection ended.
    Lost,
}

/// A durable event as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Receipt {
    pub position: Position,
    pub stamp: Stamp,
    /// Of the data, every byte of it.
    pub digest: u64,
}

impl Send {
    /// The message of the first acknowledgement.
    #[must_use]
    pub fn acknowledged(&self) -> Option<&Message> {
        self.attempts.iter().find_map(Attempt::message)
    }

    /// The attempt that it came with.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.message().is_some())
    }

    /// Whether every attempt was refused.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.outcome == Outcome::Failed)
    }
}

impl Attempt {
    /// The message, if it was acknowledged.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match &self.outcome {
            Outcome::Ok(message) => Some(message),
            Outcome::Failed | Outcome::Unknown | Outcome::Fault => None,
        }
    }
}

impl Receipt {
    /// What was received under this cursor.
    #[must_use]
    pub fn new(Cursor { stamp, position }: Cursor, data: &[u8]) -> Self {
        Self { position, stamp, digest: digest(data) }
    }
}

/// The same for the same bytes within this process.
pub(crate) fn digest(data: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}
