//! New messages that the doorbell carries, so that readers need not read the log for them.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::cursor::Cursor;
use super::read::{Entry, MessageEvent};
use crate::event::{self, Declaration, Effect};
use crate::message::Message;
use crate::{ChatId, MessageId, WorkspaceId};

/// A new message, its event's place in the log, and the event before it.
///
/// A reader whose newest event is the one before (with the same stamp) has the complete log with
/// this event: two logs that have one event in common have all earlier ones in common. For all
/// other readers, the announcement means "read the log".
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The workspace whose log it is.
    pub workspace_id: WorkspaceId,
    /// The event before.
    pub after: Cursor,
    /// The message's event.
    pub cursor: Cursor,
    // Text as in the log, because a newer server may write values that this version does not know.
    kind: String,
    effect: String,
    chat_id: ChatId,
    message_id: MessageId,
    /// The frame's `data`.
    data: Box<RawValue>,
}

impl Announcement {
    /// Announces a message that was committed alone.
    ///
    /// # Errors
    /// When the message cannot be written as JSON.
    pub fn new(
        workspace_id: WorkspaceId,
        [after, cursor]: [Cursor; 2],
        message: Message,
    ) -> serde_json::Result<Self> {
        let (chat_id, message_id) = (message.chat_id, message.id);
        let Declaration { kind, effect, .. } = event::new_message(chat_id, message_id);
        let data = to_raw_value(&MessageEvent { event: kind, message, parent: None })?;
        let (kind, effect) = (kind.to_owned(), effect.name().to_owned());
        Ok(Self { workspace_id, after, cursor, kind, effect, chat_id, message_id, data })
    }

    /// The event as it is read from the log.
    #[must_use]
    pub fn into_entry(self) -> Entry {
        Entry {
            workspace_id: self.workspace_id,
            cursor: self.cursor,
            kind: self.kind,
            effect: Effect::of_columns(&self.effect, None, None),
            chat_id: Some(self.chat_id),
            user_id: None,
            message_id: Some(self.message_id),
            joined: Vec::new(),
            data: Some(String::from(Box::<str>::from(self.data)).into()),
            shows_message: true,
            shows_person: None,
            changed: None,
            parent: None,
        }
    }
}
