//! The events that end streams.

use fechatter_core::log::Entry;
use fechatter_core::token::AuthUser;
use fechatter_core::user::UserStatus;
use fechatter_core::{SessionId, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::error;

use crate::frame::GoodbyeReason;

/// Whose streams an event is the last one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Those of a session.
    Session(SessionId),
    /// Those of somebody who was suspended.
    Suspended(UserId),
    /// Those of somebody who has left the workspace, or was removed.
    Removed(UserId),
}

#[derive(Deserialize)]
struct SessionRevoked {
    session_id: SessionId,
}

#[derive(Deserialize)]
struct UserUpdated {
    id: UserId,
    status: UserStatus,
}

#[derive(Deserialize)]
struct UserLeftWorkspace {
    user_id: UserId,
}

impl Ending {
    /// What an event ends, if it ends anything.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        match entry.kind.as_str() {
            "SessionRevoked" => {
                read(entry).map(|revoked: SessionRevoked| Self::Session(revoked.session_id))
            }
            "UserUpdated" => read(entry).and_then(|updated: UserUpdated| {
                (updated.status == UserStatus::Suspended).then_some(Self::Suspended(updated.id))
            }),
            "UserLeftWorkspace" => {
                read(entry).map(|left: UserLeftWorkspace| Self::Removed(left.user_id))
            }
            _ => None,
        }
    }

    /// Why it ends a stream of this reader, if it does.
    pub(crate) fn reason_for(self, reader: &AuthUser) -> Option<GoodbyeReason> {
        let (hit, reason) = match self {
            Self::Session(id) => (id == reader.session_id, GoodbyeReason::SessionRevoked),
            Self::Suspended(id) => (id == reader.id, GoodbyeReason::Suspended),
            Self::Removed(id) => (id == reader.id, GoodbyeReason::Removed),
        };
        hit.then_some(reason)
    }
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let read = entry.data.as_ref().and_then(|data| serde_json::from_slice(data).ok());
    if read.is_none() {
        error!(cursor = %entry.cursor, kind = entry.kind, "an event does not say whom it ends");
    }
    read
}
