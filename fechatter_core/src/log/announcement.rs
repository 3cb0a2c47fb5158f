//! New messages that the doorbell carries to readers, who then need not read the log for them.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::cursor::Cursor;
use super::read::{Entry, MessageEvent};
use crate::message::Message;
use crate::{ChatId, MessageId, WorkspaceId, event};

/// A new message, its event's place in the log, and the event before it.
///
/// A reader whose newest event is the one before, by its stamp too, has all of the log with this one: two logs
/// that have one event in common have all earlier ones in common. To everybody else it says "look".
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The workspace whose log it is.
    pub workspace_id: WorkspaceId,
    /// The event before.
    pub after: Cursor,
    cursor: Cursor,
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
        let event = event::new_message(chat_id, message_id).kind;
        let data = to_raw_value(&MessageEvent { event, message })?;
        Ok(Self { workspace_id, after, cursor, chat_id, message_id, data })
    }

    /// The event as it is read from the log.
    #[must_use]
    pub fn into_entry(self) -> Entry {
        let declaration = event::new_message(self.chat_id, self.message_id);
        Entry {
            workspace_id: self.workspace_id,
            cursor: self.cursor,
            kind: declaration.kind.to_owned(),
            effect: Some(declaration.effect),
            chat_id: Some(self.chat_id),
            user_id: None,
            message_id: Some(self.message_id),
            joined: Vec::new(),
            data: Some(String::from(Box::<str>::from(self.data)).into()),
            shows_message: true,
            message: None,
        }
    }
}
