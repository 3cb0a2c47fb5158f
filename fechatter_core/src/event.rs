//! What happens in a workspace, as clients are told: one enum, one serialisation.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chat::{Chat, ChatMember};
use crate::user::{Role, User};
use crate::workspace::Workspace;
use crate::{ChatId, MessageId, SessionId, Timestamp, UserId};

/// A durable event; its JSON is the `data` of a frame: `{"event": "<Name>", …fields…}`. Those about
/// messages are not among them: the log names messages and never copies them.
///
/// A reader meets kinds that a newer build has written: those pass through it unparsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub enum Event {
    NewChat(Chat),
    ChatUpdated(Chat),
    ChatDeleted {
        id: ChatId,
    },
    UserJoinedChat {
        chat_id: ChatId,
        user_id: UserId,
        joined_at: Timestamp,
        role: Role,
        actor_id: UserId,
        /// With `chat_members` left empty.
        chat: Chat,
    },
    UserLeftChat {
        chat_id: ChatId,
        user_id: UserId,
        joined_at: Timestamp,
        actor_id: UserId,
        reason: LeaveReason,
    },
    MemberUpdated(ChatMember),
    UserJoinedWorkspace(User),
    UserUpdated(User),
    UserLeftWorkspace {
        user_id: UserId,
        reason: LeaveReason,
    },
    WorkspaceUpdated(Workspace),
    SessionRevoked {
        session_id: SessionId,
    },
}

/// Why somebody is no longer in a chat, or in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// By their own wish.
    Left,
    /// By somebody else's.
    Removed,
}

impl Event {
    /// The event's name, in the log and in frames.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NewChat(_) => "NewChat",
            Self::ChatUpdated(_) => "ChatUpdated",
            Self::ChatDeleted { .. } => "ChatDeleted",
            Self::UserJoinedChat { .. } => "UserJoinedChat",
            Self::UserLeftChat { .. } => "UserLeftChat",
            Self::MemberUpdated(_) => "MemberUpdated",
            Self::UserJoinedWorkspace(_) => "UserJoinedWorkspace",
            Self::UserUpdated(_) => "UserUpdated",
            Self::UserLeftWorkspace { .. } => "UserLeftWorkspace",
            Self::WorkspaceUpdated(_) => "WorkspaceUpdated",
            Self::SessionRevoked { .. } => "SessionRevoked",
        }
    }
}

/// An event past the log: lossy, without id, for the named person's streams in one workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub enum EphemeralEvent {
    DuplicateMessageAttempted {
        idempotency_key: Uuid,
        chat_id: ChatId,
        sender_id: UserId,
        message_id: MessageId,
    },
}

impl EphemeralEvent {
    /// The event's name in frames.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DuplicateMessageAttempted { .. } => "DuplicateMessageAttempted",
        }
    }
}
