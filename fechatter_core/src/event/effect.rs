//! The effects of events on the state that readers keep.

use crate::{SessionId, UserId};

/// The change that an event makes to the state of its readers. Readers act on the effect alone,
/// never on an event's name or payload. A new effect must be readable one version before any
/// version writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All people whose membership of the chat begins at the event's position join it: only the
    /// named person if the event names one.
    Joins,
    /// The person whom the event names leaves the chat.
    Leaves,
    /// All people leave the chat, and its messages are deleted.
    ClosesChat,
    /// These sessions end, and with them their streams.
    EndsSessions(Vec<SessionId>),
    /// This person is suspended, until they are active again.
    Suspends(UserId),
    /// This person is no longer in the workspace. Each of their memberships lasts until the event
    /// that ends it, although the person no longer receives events.
    RemovesPerson(UserId),
    /// The data shown for this person changes.
    ChangesPerson(UserId),
    /// The messages that this person has sent are deleted.
    BlanksMessages(UserId),
    /// Nobody has access to the workspace any more, or until the operator restores it.
    ClosesWorkspace,
    /// The content of the message that the event names changes.
    ChangesMessage,
    /// The message that the event names is gone.
    RemovesMessage,
}

impl Effect {
    /// Its name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Joins => "joins",
            Self::Leaves => "leaves",
            Self::ClosesChat => "closes_chat",
            Self::EndsSessions(_) => "ends_sessions",
            Self::Suspends(_) => "suspends",
            Self::RemovesPerson(_) => "removes_person",
            Self::ChangesPerson(_) => "changes_person",
            Self::BlanksMessages(_) => "blanks_messages",
            Self::ClosesWorkspace => "closes_workspace",
            Self::ChangesMessage => "changes_message",
            Self::RemovesMessage => "removes_message",
        }
    }

    /// The person whom it is about.
    pub(crate) fn person(&self) -> Option<UserId> {
        match self {
            Self::Suspends(id)
            | Self::RemovesPerson(id)
            | Self::ChangesPerson(id)
            | Self::BlanksMessages(id) => Some(*id),
            _ => None,
        }
    }

    /// The sessions that it ends.
    pub(crate) fn sessions(&self) -> Option<&[SessionId]> {
        match self {
            Self::EndsSessions(ids) => Some(ids),
            _ => None,
        }
    }

    /// Reads the columns of an event. Returns `None` for an effect of a newer version that this
    /// version does not know.
    pub(crate) fn of_columns(
        name: &str,
        person: Option<UserId>,
        sessions: Option<Vec<SessionId>>,
    ) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "joins" => Some(Self::Joins),
            "leaves" => Some(Self::Leaves),
            "closes_chat" => Some(Self::ClosesChat),
            "ends_sessions" => sessions.map(Self::EndsSessions),
            "suspends" => person.map(Self::Suspends),
            "removes_person" => person.map(Self::RemovesPerson),
            "changes_person" => person.map(Self::ChangesPerson),
            "blanks_messages" => person.map(Self::BlanksMessages),
            "closes_workspace" => Some(Self::ClosesWorkspace),
            "changes_message" => Some(Self::ChangesMessage),
            "removes_message" => Some(Self::RemovesMessage),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_effect_is_read_as_it_was_written() {
        for effect in [
            Effect::None,
            Effect::Joins,
            Effect::Leaves,
            Effect::ClosesChat,
            Effect::EndsSessions(vec![SessionId(Uuid::nil()), SessionId(Uuid::max())]),
            Effect::Suspends(UserId(7)),
            Effect::RemovesPerson(UserId(7)),
            Effect::ChangesPerson(UserId(7)),
            Effect::BlanksMessages(UserId(7)),
            Effect::ClosesWorkspace,
            Effect::ChangesMessage,
            Effect::RemovesMessage,
        ] {
            let sessions = effect.sessions().map(<[_]>::to_vec);
            let read = Effect::of_columns(effect.name(), effect.person(), sessions);
            assert_eq!(read, Some(effect));
        }
        assert_eq!(Effect::of_columns("moves_chat", None, None), None);
    }
}
