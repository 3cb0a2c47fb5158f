//! The caller's membership of the chat in a request's path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::error::{AppError, Result};
use crate::models::chat::membership::Member;
use crate::models::session::current_user::CurrentUser;
use crate::state::AppState;
use crate::utils::path::Id;

impl FromRequestParts<AppState> for Member {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let user = CurrentUser::from_request_parts(parts, state).await?;
        let Id(chat_id) = Id::from_request_parts(parts, state).await?;
        Self::find(&state.db, user, chat_id).await
    }
}
