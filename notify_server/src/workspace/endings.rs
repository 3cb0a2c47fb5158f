//! The events that end streams.

use std::sync::Arc;

use fechatter_core::event::Effect;
use fechatter_core::stream_event::GoodbyeReason;
use fechatter_core::token::AuthUser;
use fechatter_core::{SessionId, UserId};

/// The streams that an event ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The streams of these sessions.
    Sessions(Arc<[SessionId]>),
    /// The streams of a person who was suspended.
    Suspended(UserId),
    /// The streams of a person who has left the workspace, or was removed.
    Removed(UserId),
    /// All streams, because the workspace was suspended or deleted.
    Workspace,
    /// All streams, because a newer version has written an unknown effect. Clients that reconnect
    /// are checked again.
    Unknown,
}

impl Ending {
    /// Returns the ending of an effect, if it has one; no effect means an unknown one.
    pub(crate) fn of(effect: Option<&Effect>) -> Option<Self> {
        let Some(effect) = effect else { return Some(Self::Unknown) };
        match effect {
            Effect::EndsSessions(ids) => Some(Self::Sessions(ids.as_slice().into())),
            Effect::Suspends(id) => Some(Self::Suspended(*id)),
            Effect::RemovesPerson(id) => Some(Self::Removed(*id)),
            Effect::ClosesWorkspace => Some(Self::Workspace),
            _ => None,
        }
    }

    /// Returns the reason if this ends a stream of this reader.
    pub(crate) fn reason_for(&self, reader: &AuthUser) -> Option<GoodbyeReason> {
        let (hit, reason) = match self {
            Self::Sessions(ids) => {
                (ids.contains(&reader.session_id), GoodbyeReason::SessionRevoked)
            }
            Self::Suspended(id) => (*id == reader.id, GoodbyeReason::Suspended),
            Self::Removed(id) => (*id == reader.id, GoodbyeReason::Removed),
            Self::Workspace => (true, GoodbyeReason::WorkspaceClosed),
            Self::Unknown => (true, GoodbyeReason::Draining),
        };
        hit.then_some(reason)
    }
}
