//! Changes to a message that exists: edits, deletions and reactions.

use fechatter_core::message::Mentions;
use fechatter_core::{ChatId, MessageId};

use crate::models::session::actor::Actor;

/// A request to change a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) actor: Actor,
    pub(crate) chat_id: ChatId,
    pub(crate) message_id: MessageId,
    pub(crate) action: Action,
}

/// The kind of a change, in the order in which a batch makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Replaces the text, and so the people whom it mentions. Only the sender may do so.
    Edit(String, Mentions),
    /// Removes the text. The sender may do so and, except in a Single, the owner and the admins of
    /// the chat.
    Delete,
    /// Adds an emoji.
    AddReaction(String),
    /// Takes the person's own emoji back.
    RemoveReaction(String),
}

impl Action {
    /// Returns the new text or the emoji.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Edit(text, _) | Self::AddReaction(text) | Self::RemoveReaction(text) => text,
            Self::Delete => "",
        }
    }
}
