//! A chat and its members, as REST responses and events show them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::user::Role;
use crate::{ChatId, Seq, Timestamp, UserId, WorkspaceId};

/// The four kinds of chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "text")]
pub enum ChatType {
    /// Exactly two people, for good.
    Single,
    /// At least three people at its creation.
    Group,
    /// The creator and the people who are invited.
    PrivateChannel,
    /// Each member of the workspace can find and join it.
    PublicChannel,
}

/// A chat.
// A row of the view of this name, which every query for chats reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "chat_objects")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Chat {
    pub id: ChatId,
    pub workspace_id: WorkspaceId,
    pub name: String,
    pub chat_type: ChatType,
    /// The longest-standing members, at most 500.
    #[schema(max_items = 500)]
    pub chat_members: Vec<UserId>,
    pub description: Option<String>,
    /// The current owner.
    pub created_by: UserId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[schema(minimum = 0)]
    pub member_count: i32,
    /// The newest message's seq; 0 in an empty chat.
    pub last_seq: Seq,
    pub archived_at: Option<Timestamp>,
}

/// The read mark of a person in a chat, and the counts of unread messages after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct ReadState {
    pub chat_id: ChatId,
    pub last_read_seq: Seq,
    /// The number of unread messages of other people, counted up to 100.
    #[schema(minimum = 0, maximum = 100)]
    pub unread_count: i64,
    /// True if there are more than 100.
    pub unread_capped: bool,
    /// The number of these that mention the person or everybody, counted up to 100.
    #[schema(minimum = 0, maximum = 100)]
    pub mention_count: i64,
}

/// Unread messages, and the mentions in them, are counted up to here.
pub const UNREAD_CAP: i64 = 100;

impl ReadState {
    /// Makes a read state of counts up to [`UNREAD_CAP`] + 1.
    #[must_use]
    pub fn new(chat_id: ChatId, last_read_seq: Seq, unread: i64, mentions: i64) -> Self {
        Self {
            chat_id,
            last_read_seq,
            unread_count: unread.min(UNREAD_CAP),
            unread_capped: unread > UNREAD_CAP,
            mention_count: mentions.min(UNREAD_CAP),
        }
    }
}

/// The messages that a person wants notifications for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum NotifyLevel {
    /// All messages.
    All,
    /// Messages that mention the person, or everybody.
    Mentions,
    /// None.
    Nothing,
}

/// A person in a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct ChatMember {
    pub chat_id: ChatId,
    pub user_id: UserId,
    pub joined_at: Timestamp,
    pub role: Role,
}
