//! Who is calling.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use fechatter_core::token::AuthUser;
use fechatter_core::user::{Role, UserStatus};
use fechatter_core::{SessionId, UserId, WorkspaceId};
use sqlx::PgExecutor;

use crate::AppState;
use crate::error::{AppError, Result};
use crate::middlewares::limits::RequestLimits;

/// A caller with a valid access token, within their rate. Whether the session lives and the person
/// is active is still to be asked: sending does so under the log's lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) AuthUser);

/// A caller whose session lives and who is active in the workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CurrentUser {
    pub(crate) id: UserId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) session_id: SessionId,
    pub(crate) role: Role,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let user = AuthUser::from_request_parts(parts, state).await?;
        RequestLimits::from_ref(state).take(user.id)?;
        Ok(Self(user))
    }
}

impl FromRequestParts<AppState> for CurrentUser {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        Self::check(&state.db, caller.0).await
    }
}

impl CurrentUser {
    /// Asks the database whether the token's session lives and its person is active.
    pub(crate) async fn check(db: impl PgExecutor<'_>, user: AuthUser) -> Result<Self> {
        let found = sqlx::query!(
            "select m.role, m.status
             from sessions as s
             join workspace_members as m on m.user_id = s.user_id
             where s.id = $1
               and s.user_id = $2
               and s.revoked_at is null
               and s.expires_at > clock_timestamp()
               and m.workspace_id = $3",
            user.session_id as _,
            user.id as _,
            user.workspace_id as _
        )
        .fetch_optional(db)
        .await?
        .ok_or(AppError::SessionEnded)?;
        match found.status {
            UserStatus::Suspended => Err(AppError::Suspended),
            UserStatus::Active => Ok(Self {
                id: user.id,
                workspace_id: user.workspace_id,
                session_id: user.session_id,
                role: found.role,
            }),
        }
    }
}
