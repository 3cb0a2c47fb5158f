//! A message: one type with one JSON form, for REST responses and streams.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{ChatId, FileId, MessageId, Seq, Timestamp, UserId};

/// The maximum length of a message, in Unicode scalar values.
pub const MAX_CONTENT: usize = 10_000;

/// A message in its present state; a deleted message keeps its ids and seq and has no content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Message {
    pub id: MessageId,
    pub chat_id: ChatId,
    pub sender_id: UserId,
    /// Empty if the message is deleted.
    #[schema(max_length = 10_000)]
    pub content: String,
    /// The addresses of its attachments.
    #[schema(max_items = 20)]
    pub files: Vec<String>,
    pub created_at: Timestamp,
    pub idempotency_key: Uuid,
    pub seq: Seq,
    pub kind: MessageKind,
    /// The message that this one answers.
    pub reply_to_id: Option<MessageId>,
    /// The number of its replies that are not deleted.
    #[schema(minimum = 0)]
    pub reply_count: i64,
    /// The time of the newest of them.
    pub last_reply_at: Option<Timestamp>,
    pub mentions: Mentions,
    pub reactions: Vec<Reaction>,
    #[schema(max_items = 20)]
    pub attachments: Vec<File>,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    /// Of a system message: what it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SystemNotice, required = false)]
    pub system: Option<SystemNotice>,
}

impl Message {
    /// Returns true if it is a message of a person and is not deleted.
    #[must_use]
    pub fn can_be_deleted(&self) -> bool {
        self.kind == MessageKind::User && self.deleted_at.is_none()
    }

    /// Turns it into a deleted message.
    pub fn delete(&mut self, deleted_at: Timestamp) {
        self.content.clear();
        self.files.clear();
        self.mentions = Mentions::default();
        self.reactions.clear();
        self.attachments.clear();
        self.deleted_at = Some(deleted_at);
    }
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MessageKind {
    /// A person.
    User,
    /// Fechatter itself.
    System,
}

/// The people that a message mentions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mentions {
    /// Members of the chat, by id.
    #[schema(max_items = 50)]
    pub user_ids: Vec<UserId>,
    /// True if it mentions everybody in the chat.
    pub all: bool,
}

/// A change of a chat, as a system message tells it. The sender of the message made the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SystemNotice {
    /// The kind of the change.
    #[serde(rename = "type")]
    pub kind: SystemNoticeType,
    /// The people who joined, were added, left or were removed; the new owner after a transfer; otherwise
    /// empty.
    #[schema(max_items = 500)]
    pub user_ids: Vec<UserId>,
    /// The new name of a renamed chat.
    pub name: Option<String>,
}

/// The kind of change that a system message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum SystemNoticeType {
    Joined,
    Added,
    Left,
    Removed,
    Renamed,
    Described,
    Converted,
    Transferred,
    Archived,
    Unarchived,
}

/// An emoji that people have added to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Reaction {
    pub emoji: String,
    /// The number of people who have added it.
    #[schema(minimum = 1)]
    pub count: i64,
    /// The first twenty of them.
    #[schema(max_items = 20)]
    pub user_ids: Vec<UserId>,
    /// True if the caller has added it. Only in REST responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = false)]
    pub me: Option<bool>,
}

/// A message that has replies, in the events of its replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Parent {
    /// Its id.
    pub id: MessageId,
    /// The number of its replies that are not deleted.
    #[schema(minimum = 0)]
    pub reply_count: i64,
    /// The time of the newest of them.
    pub last_reply_at: Option<Timestamp>,
}

/// A file of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct File {
    pub id: FileId,
    /// Its address, without `/api` before it.
    pub url: String,
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// By its first bytes; `application/octet-stream` unless browsers show it.
    pub mime: String,
    /// In bytes.
    #[schema(minimum = 0)]
    pub size: i64,
    pub created_at: Timestamp,
    /// Of an image, in pixels as it is shown; otherwise null.
    #[schema(minimum = 1)]
    pub width: Option<i32>,
    #[schema(minimum = 1)]
    pub height: Option<i32>,
    /// A description by the sender, for those who cannot see it.
    #[schema(max_length = 500)]
    pub alt: Option<String>,
}

/// A row of the view `message_objects`, which every reader of messages reads.
#[derive(Debug, Clone, sqlx::Type)]
#[sqlx(type_name = "message_objects")]
#[expect(missing_docs, reason = "the names say it")]
pub struct MessageObject {
    pub chat_id: ChatId,
    pub id: MessageId,
    pub sender_id: UserId,
    pub content: String,
    pub created_at: Timestamp,
    pub idempotency_key: Uuid,
    pub seq: Seq,
    pub kind: MessageKind,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub reply_to_id: Option<MessageId>,
    /// `None` if there is nothing.
    pub parts: Option<MessageParts>,
    pub system: Option<Json<SystemNotice>>,
    /// Not a part of a message: `parts` has the files.
    pub has_files: bool,
}

/// The reactions, replies, mentions and files of a message, from their own tables.
#[derive(Debug, Clone, Default, sqlx::Type)]
#[sqlx(type_name = "message_parts")]
#[expect(missing_docs, reason = "the names say it")]
pub struct MessageParts {
    pub reactions: Option<Json<Vec<Reaction>>>,
    pub reply_count: Option<i64>,
    pub last_reply_at: Option<Timestamp>,
    /// The people whom it mentions; `None` in the list means everybody.
    pub mentions: Option<Vec<Option<UserId>>>,
    pub files: Option<Json<Vec<File>>>,
}

impl From<MessageObject> for Message {
    fn from(object: MessageObject) -> Self {
        let parts = object.parts.unwrap_or_default();
        let attachments = parts.files.map(|Json(files)| files).unwrap_or_default();
        Self {
            id: object.id,
            chat_id: object.chat_id,
            sender_id: object.sender_id,
            content: object.content,
            files: attachments.iter().map(|file| file.url.clone()).collect(),
            created_at: object.created_at,
            idempotency_key: object.idempotency_key,
            seq: object.seq,
            kind: object.kind,
            reply_to_id: object.reply_to_id,
            reply_count: parts.reply_count.unwrap_or_default(),
            last_reply_at: parts.last_reply_at,
            mentions: parts.mentions.map(Mentions::from).unwrap_or_default(),
            reactions: parts.reactions.map(|Json(reactions)| reactions).unwrap_or_default(),
            attachments,
            edited_at: object.edited_at,
            deleted_at: object.deleted_at,
            system: object.system.map(|Json(notice)| notice),
        }
    }
}

impl From<Vec<Option<UserId>>> for Mentions {
    fn from(people: Vec<Option<UserId>>) -> Self {
        let all = people.contains(&None);
        Self { user_ids: people.into_iter().flatten().collect(), all }
    }
}
