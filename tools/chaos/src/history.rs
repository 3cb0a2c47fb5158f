//! What people did and heard, as they saw it.

use std::time::Instant;

use fechatter_core::{
    ChatId, MessageId, Position, Seq, SessionId, UserId,
    log::{Cursor, Stamp},
    message::Message,
};
use serde::Deserialize;
use uuid::Uuid;

use crate::checker::log::Log;

/// Everything, once it is over.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Past {
    pub calls: Calls,
    pub streams: Vec<Stream>,
    pub log: Log,
}

/// The calls of all people.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Calls {
    pub sends: Vec<Send>,
    /// In the order of their first attempts, as far as they are about the same message or chat.
    pub changes: Vec<Change>,
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
    pub attempts: Vec<Attempt<Box<Message>>>,
}

/// A change of something that is there, and every attempt to make it. Of two changes of the same message or chat, the
/// second begins when the result of the first is known. Only reading and reacting are done by several people at once.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Change {
    pub chat: ChatId,
    pub person: UserId,
    pub session: SessionId,
    pub kind: ChangeKind,
    pub attempts: Vec<Attempt<()>>,
}

/// See [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The sender gives a message another text, which no other message has.
    Edit(MessageId, String),
    /// The sender deletes a message.
    Delete(MessageId),
    /// A member adds an emoji to a message, or removes it.
    React {
        /// The message.
        message: MessageId,
        /// One emoji, fully qualified.
        emoji: &'static str,
        /// False to remove it.
        is_added: bool,
    },
    /// A member has read up to this message.
    Read(Seq),
    /// The owner archives a chat; with false, they unarchive it.
    Archive(bool),
}

/// One call.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Attempt<T> {
    /// Which one was called.
    pub server: usize,
    pub invoked: Instant,
    pub returned: Instant,
    pub outcome: Outcome<T>,
    /// The refusal, if the call was refused and may have been executed.
    pub refusal: Option<String>,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// It was acknowledged.
    Ok(T),
    /// It was refused for good.
    Failed,
    /// It may have been done, or still be done.
    Unknown,
    /// The same, but the server called it a fault of its own.
    Fault,
}

/// The result of a call, after all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// It was executed, and nothing of it is on its way.
    Done,
    /// It was executed, and an attempt without an answer may be executed again at any time.
    DoneAndMayRepeat,
    /// It may be executed at any time, or never.
    Unknown,
    /// It was not executed and will not be.
    Refused,
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
    /// A server accepted a connection that was asked for at this time.
    Opened(Instant),
    /// The first event of a connection: it goes on from here.
    Ready(Position),
    /// A durable event.
    Event(Receipt),
    /// The reader has read this far in a chat.
    Mark(ChatId, Seq),
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
    /// Of the text, if the event shows a message.
    pub text: Option<u64>,
}

impl Send {
    /// The message of the first acknowledgement.
    #[must_use]
    pub fn acknowledged(&self) -> Option<&Message> {
        self.attempts.iter().find_map(Attempt::message)
    }

    /// The attempt that it came with.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<&Attempt<Box<Message>>> {
        self.attempts.iter().find(|attempt| attempt.is_ok())
    }

    /// Whether every attempt was refused.
    #[must_use]
    pub fn failed(&self) -> bool {
        conclude(&self.attempts) == Conclusion::Refused
    }
}

impl Change {
    /// Its result.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        conclude(&self.attempts)
    }

    /// True if it was acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.attempts.iter().any(Attempt::is_ok)
    }

    /// The message that it is about.
    #[must_use]
    pub fn message(&self) -> Option<MessageId> {
        match self.kind {
            ChangeKind::Edit(id, _) | ChangeKind::Delete(id) => Some(id),
            ChangeKind::React { message, .. } => Some(message),
            ChangeKind::Read(_) | ChangeKind::Archive(_) => None,
        }
    }
}

fn conclude<T>(attempts: &[Attempt<T>]) -> Conclusion {
    let is_done = attempts.iter().any(Attempt::is_ok);
    let may_follow =
        attempts.iter().any(|attempt| matches!(attempt.outcome, Outcome::Unknown | Outcome::Fault));
    match (is_done, may_follow) {
        (true, false) => Conclusion::Done,
        (true, true) => Conclusion::DoneAndMayRepeat,
        (false, true) => Conclusion::Unknown,
        (false, false) => Conclusion::Refused,
    }
}

impl<T> Attempt<T> {
    /// True if it was acknowledged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok(_))
    }
}

impl Attempt<Box<Message>> {
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
        Self { position, stamp, digest: digest(data), text: text(data) }
    }
}

/// The digest of the text of a message, if the data of an event shows one.
fn text(data: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Shown {
        content: String,
    }

    let Shown { content } = serde_json::from_slice(data).ok()?;
    Some(digest(content.as_bytes()))
}

/// The same for the same bytes within this process.
pub(crate) fn digest(data: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};

    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}
