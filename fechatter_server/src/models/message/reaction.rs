//! Reactions: emojis that people add to messages.

use fechatter_core::{ChatId, MessageId};

use crate::models::message::actor::Actor;

/// A request to add an emoji to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewReaction {
    pub(crate) actor: Actor,
    pub(crate) chat_id: ChatId,
    pub(crate) message_id: MessageId,
    pub(crate) emoji: String,
}
