//! The events of a workspace: one enum, one serialisation, and one table with the audience and the
//! effect of each event.

mod effect;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::chat::{Chat, ChatMember, NotifyLevel, ReadState};
use crate::message::Parent;
use crate::user::{Role, User, UserStatus};
use crate::workspace::{Workspace, WorkspaceStatus};
use crate::{ChatId, MessageId, Seq, SessionId, Timestamp, UserId};

pub use effect::Effect;

/// A durable event; its JSON is the `data` of a frame: `{"event": "<Name>", …fields…}`. Events that
/// show messages are not included, because the log names messages and never copies them.
///
/// Readers pass on kinds that a newer build has written without parsing them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
    /// The message keeps its place, without its text.
    MessageDeleted {
        chat_id: ChatId,
        id: MessageId,
        seq: Seq,
        sender_id: UserId,
        /// The person who deleted it.
        actor_id: UserId,
        /// Of a reply: the message that it answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Parent, required = false)]
        parent: Option<Parent>,
    },
    ReactionAdded {
        chat_id: ChatId,
        message_id: MessageId,
        user_id: UserId,
        emoji: String,
        /// The number of people who have added the emoji, including this one.
        count: i64,
    },
    ReactionRemoved {
        chat_id: ChatId,
        message_id: MessageId,
        user_id: UserId,
        emoji: String,
        /// The number of people whose reaction with the emoji remains.
        count: i64,
    },
    /// On one of their devices, the person has changed their preferences for a chat.
    ChatPreferencesUpdated {
        #[serde(skip)]
        user_id: UserId,
        chat_id: ChatId,
        notify_level: NotifyLevel,
        muted_until: Option<Timestamp>,
        pinned_at: Option<Timestamp>,
    },
    /// One of the person's clients has changed what it stores for all of them.
    PreferencesUpdated {
        #[serde(skip)]
        user_id: UserId,
        preferences: BTreeMap<String, Value>,
    },
    /// The log names the person; readers receive them as they are at the time of reading.
    UserJoinedWorkspace(User),
    /// The log names the person; readers receive them as they are at the time of reading.
    UserUpdated(User),
    /// The person has erased their account and their messages: all of these are deleted now.
    MessagesBlanked {
        user_id: UserId,
        blanked_at: Timestamp,
    },
    /// The last event of an offboarding, which begins with `UserUpdated` and the status `Left`.
    UserLeftWorkspace {
        user_id: UserId,
        reason: LeaveReason,
    },
    WorkspaceUpdated(Workspace),
    SessionRevoked {
        #[serde(skip)]
        user_id: UserId,
        /// The first of them.
        session_id: SessionId,
        session_ids: Vec<SessionId>,
    },
}

/// The reason why a person is no longer in a chat, or in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum LeaveReason {
    /// The person left.
    Left,
    /// Another person removed them.
    Removed,
}

/// The recipients of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everyone in the workspace.
    Workspace,
    /// One person.
    User(UserId),
    /// The chat's members at the event's position.
    Chat(ChatId),
    /// The chat's members, and this person.
    ChatAnd(ChatId, UserId),
}

/// The columns of an event in the log, besides its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The event's name, in the log and in frames: a label for clients, which decides nothing.
    pub kind: &'static str,
    /// Its recipients.
    pub audience: Audience,
    /// The change that it makes.
    pub effect: Effect,
    /// The message that it shows or refers to.
    pub message_id: Option<MessageId>,
}

/// The names of the events that show a message.
pub const MESSAGE_EVENTS: [&str; 2] = [NEW_MESSAGE, "MessageUpdated"];
/// The name of the event of a new message.
pub const NEW_MESSAGE: &str = "NewMessage";

/// The event of a message that was sent to a chat. It has no payload: the log names the message.
pub(crate) fn new_message(chat_id: ChatId, id: MessageId) -> Declaration {
    declare(NEW_MESSAGE, Audience::Chat(chat_id), Effect::None).about(id)
}

impl Event {
    /// Returns true if the log names the person that the event shows, and keeps no copy of them.
    #[must_use]
    pub fn shows_person(&self) -> bool {
        matches!(self, Self::UserJoinedWorkspace(_) | Self::UserUpdated(_))
    }

    /// The table of all events but those that show messages.
    #[must_use]
    pub fn declaration(&self) -> Declaration {
        use Audience::{Chat, ChatAnd, User as Person, Workspace as Everyone};
        use Effect::{
            BlanksMessages, ChangesPerson, ClosesChat, ClosesWorkspace, EndsSessions, Joins,
            Leaves, None, RemovesMessage, RemovesPerson, Suspends,
        };
        match self {
            Self::NewChat(chat) => declare("NewChat", Chat(chat.id), Joins),
            Self::ChatUpdated(chat) => declare("ChatUpdated", Chat(chat.id), None),
            Self::ChatDeleted { id } => declare("ChatDeleted", Chat(*id), ClosesChat),
            Self::UserJoinedChat { chat_id, user_id, .. } => {
                declare("UserJoinedChat", ChatAnd(*chat_id, *user_id), Joins)
            }
            Self::UserLeftChat { chat_id, user_id, .. } => {
                declare("UserLeftChat", ChatAnd(*chat_id, *user_id), Leaves)
            }
            Self::MemberUpdated(member) => declare("MemberUpdated", Chat(member.chat_id), None),
            Self::MessageDeleted { chat_id, id, .. } => {
                declare("MessageDeleted", Chat(*chat_id), RemovesMessage).about(*id)
            }
            Self::ReactionAdded { chat_id, message_id, .. } => {
                declare("ReactionAdded", Chat(*chat_id), None).about(*message_id)
            }
            Self::ReactionRemoved { chat_id, message_id, .. } => {
                declare("ReactionRemoved", Chat(*chat_id), None).about(*message_id)
            }
            Self::ChatPreferencesUpdated { user_id, .. } => {
                declare("ChatPreferencesUpdated", Person(*user_id), None)
            }
            Self::PreferencesUpdated { user_id, .. } => {
                declare("PreferencesUpdated", Person(*user_id), None)
            }
            Self::UserJoinedWorkspace(user) => {
                declare("UserJoinedWorkspace", Everyone, ChangesPerson(user.id))
            }
            Self::UserUpdated(user) => match user.status {
                UserStatus::Suspended => declare("UserUpdated", Everyone, Suspends(user.id)),
                UserStatus::Active => declare("UserUpdated", Everyone, ChangesPerson(user.id)),
                UserStatus::Left => declare("UserUpdated", Everyone, RemovesPerson(user.id)),
            },
            Self::MessagesBlanked { user_id, .. } => {
                declare("MessagesBlanked", Everyone, BlanksMessages(*user_id))
            }
            // No effect: the person was removed, and each of their memberships ended, before this
            // event.
            Self::UserLeftWorkspace { .. } => declare("UserLeftWorkspace", Everyone, None),
            Self::WorkspaceUpdated(workspace) => match workspace.status {
                WorkspaceStatus::Active => declare("WorkspaceUpdated", Everyone, None),
                WorkspaceStatus::Suspended | WorkspaceStatus::Deleted => {
                    declare("WorkspaceUpdated", Everyone, ClosesWorkspace)
                }
            },
            Self::SessionRevoked { user_id, session_ids, .. } => {
                declare("SessionRevoked", Person(*user_id), EndsSessions(session_ids.clone()))
            }
        }
    }
}

fn declare(kind: &'static str, audience: Audience, effect: Effect) -> Declaration {
    Declaration { kind, audience, effect, message_id: None }
}

impl Declaration {
    fn about(self, message_id: MessageId) -> Self {
        Self { message_id: Some(message_id), ..self }
    }
}

/// The shortest time between two [`EphemeralEvent::Typing`] about the same person and chat. Each server
/// enforces it.
pub const TYPING_INTERVAL: Duration = Duration::from_secs(3);

/// An event that is not in the log: it may be lost, has no id, and is sent to a person's streams in one
/// workspace, unless its variant names other recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub enum EphemeralEvent {
    DuplicateMessageAttempted {
        idempotency_key: Uuid,
        chat_id: ChatId,
        sender_id: UserId,
        message_id: MessageId,
    },
    /// On one of their devices, the person has read, or marked messages as unread.
    ReadStateUpdated(ReadState),
    /// The person is writing a message. Sent to the other members of the chat.
    Typing {
        chat_id: ChatId,
        user_id: UserId,
        /// The time in seconds after which a client no longer shows it.
        #[schema(minimum = 1)]
        expires_in: u32,
    },
}

impl EphemeralEvent {
    /// The event's name in frames.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DuplicateMessageAttempted { .. } => "DuplicateMessageAttempted",
            Self::ReadStateUpdated(_) => "ReadStateUpdated",
            Self::Typing { .. } => "Typing",
        }
    }
}
