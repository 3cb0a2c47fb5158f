//! A message: one type, one JSON, for REST answers and streams alike.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{ChatId, MessageId, Seq, Timestamp, UserId};

/// The longest message, in Unicode scalar values.
pub const MAX_CONTENT: usize = 10_000;

/// A message as it is now; a deleted one keeps its ids and seq and has no content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Message {
    pub id: MessageId,
    pub chat_id: ChatId,
    pub sender_id: UserId,
    pub content: String,
    pub files: Vec<String>,
    pub created_at: Timestamp,
    pub idempotency_key: Uuid,
    pub seq: Seq,
    pub kind: MessageKind,
    pub reply_to_id: Option<MessageId>,
    pub mentions: Mentions,
    pub reactions: Vec<Reaction>,
    pub attachments: Vec<Attachment>,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}

/// Who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MessageKind {
    /// A person.
    User,
    /// Fechatter itself.
    System,
}

/// Whom a message calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Mentions {
    pub user_ids: Vec<UserId>,
    pub all: bool,
}

/// No message has a reaction yet: the list is always empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Reaction {}

/// No message has a file yet: the list is always empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Attachment {}
