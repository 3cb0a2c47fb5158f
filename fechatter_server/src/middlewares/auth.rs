//! The caller of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fechatter_core::token::AuthUser;

use crate::error::{AppError, Result};
use crate::middlewares::admission::Admission;
use crate::models::session::current_user::CurrentUser;
use crate::state::AppState;

/// The caller of an admitted request with a valid access token. It is not yet checked whether the
/// session has ended and whether the person is active: sending checks both under the log's lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(pub(crate) AuthUser);

impl FromRequestParts<AppState> for Caller {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        match parts.extensions.get::<Admission>() {
            Some(admission) => Ok(Self(admission.user)),
            // Requests without a valid token are not admitted; this returns the error.
            None => AuthUser::from_request_parts(parts, state).await.map(Self).map_err(Into::into),
        }
    }
}

impl FromRequestParts<AppState> for CurrentUser {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if let Some(admission) = parts.extensions.get::<Admission>() {
            admission.connection(&state.limits).await?;
        }
        let AuthUser { id, workspace_id, session_id, .. } = caller.0;
        Self::find(&state.db, id, workspace_id, session_id).await
    }
}
