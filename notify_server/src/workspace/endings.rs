//! The events that end streams.

use std::sync::Arc;

use fechatter_core::event::Effect;
use fechatter_core::token::AuthUser;
use fechatter_core::{SessionId, UserId};

use crate::frame::GoodbyeReason;

/// Whose streams an event is the last one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Those of these sessions.
    Sessions(Arc<[SessionId]>),
    /// Those of somebody who was suspended.
    Suspended(UserId),
    /// Those of somebody who has left the workspace, or was removed.
    Removed(UserId),
    /// All: a newer version has written what it does. Whoever comes back is checked anew.
    Unknown,
}

impl Ending {
    /// The ending that this effect is, if it is one.
    pub(crate) fn of(effect: Option<&Effect>) -> Option<Self> {
        let Some(effect) = effect else { return Some(Self::Unknown) };
        match effect {
            Effect::EndsSessions(ids) => Some(Self::Sessions(ids.as_slice().into())),
            Effect::Suspends(id) => Some(Self::Suspended(*id)),
            Effect::RemovesPerson(id) => Some(Self::Removed(*id)),
            _ => None,
        }
    }

    /// Why it ends a stream of this reader, if it does.
    pub(crate) fn reason_for(&self, reader: &AuthUser) -> Option<GoodbyeReason> {
        let (hit, reason) = match self {
            Self::Sessions(ids) => {
                (ids.contains(&reader.session_id), GoodbyeReason::SessionRevoked)
            }
            Self::Suspended(id) => (*id == reader.id, GoodbyeReason::Suspended),
            Self::Removed(id) => (*id == reader.id, GoodbyeReason::Removed),
            Self::Unknown => (true, GoodbyeReason::Draining),
        };
        hit.then_some(reason)
    }
}
