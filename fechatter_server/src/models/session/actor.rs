//! Actors: the people in whose name something is done.

use fechatter_core::token::AuthUser;
use fechatter_core::{SessionId, UserId, WorkspaceId};

use crate::models::session::current_user::CurrentUser;

/// The person who acts in a workspace. Functions that take an actor need no separate session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    /// A person, as long as they are active and this session has not ended.
    Session { user_id: UserId, workspace_id: WorkspaceId, session_id: SessionId },
    /// Fechatter itself, in the name of a person of the workspace. The person need not be active.
    /// Only `services/` create this variant.
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing acts without a session yet"))]
    System { user_id: UserId, workspace_id: WorkspaceId },
}

impl Actor {
    /// Returns the person who acts, or in whose name Fechatter acts.
    pub(crate) fn user_id(&self) -> UserId {
        match self {
            Self::Session { user_id, .. } | Self::System { user_id, .. } => *user_id,
        }
    }

    pub(crate) fn workspace_id(&self) -> WorkspaceId {
        match self {
            Self::Session { workspace_id, .. } | Self::System { workspace_id, .. } => *workspace_id,
        }
    }

    /// Returns the session that must not have ended. The database treats an actor without a session
    /// as Fechatter itself.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::Session { session_id, .. } => Some(*session_id),
            Self::System { .. } => None,
        }
    }
}

impl From<CurrentUser> for Actor {
    fn from(CurrentUser { id, workspace_id, session_id, .. }: CurrentUser) -> Self {
        Self::Session { user_id: id, workspace_id, session_id }
    }
}

impl From<AuthUser> for Actor {
    fn from(AuthUser { id: user_id, workspace_id, session_id, .. }: AuthUser) -> Self {
        Self::Session { user_id, workspace_id, session_id }
    }
}
