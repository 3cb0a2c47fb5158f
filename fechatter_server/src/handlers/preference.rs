//! The caller's preferences, for a chat and for all their clients.

use axum::extract::State;
use fechatter_core::ChatId;
use fechatter_core::token::AuthUser;
use serde::Serialize;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{AppError, ErrorKind, Result};
use crate::middlewares::auth::Caller;
use crate::models::chat::preference::{self, ChatPreferences, PreferenceChange, Preferences};
use crate::models::chat::sidebar::{self, ChatSidebar};
use crate::models::session::current_user::CurrentUser;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::path::Id;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(update_for_chat))
        .routes(routes!(show))
        .routes(routes!(update).errors(&[ErrorKind::NotFound]))
}

/// Changes the caller's preferences for a chat.
#[utoipa::path(patch, path = "/api/chat/{id}/me", operation_id = "update_chat_preferences",
    params(("id" = i64, Path)), request_body = ChatPreferences,
    responses((status = 200, body = ChatSidebar)))]
async fn update_for_chat(
    Caller(caller): Caller,
    Id(chat_id): Id<ChatId>,
    State(state): State<AppState>,
    Json(preferences): Json<ChatPreferences>,
) -> Result<Json<ChatSidebar>> {
    let user = change(&state, caller, Some(chat_id), &preferences).await?;
    let chats = sidebar::list(&state.db, &user, Some(chat_id), None).await?;
    chats.into_iter().next().map(Json).ok_or(AppError::NotFound)
}

/// Returns the object that the caller's clients have stored for them.
#[utoipa::path(get, path = "/api/me/preferences", operation_id = "get_preferences",
    responses((status = 200, body = Preferences)))]
async fn show(caller: CurrentUser, State(db): State<PgPool>) -> Result<Json<Preferences>> {
    preference::read(&db, &caller).await.map(Json)
}

/// Sets keys of the object that the caller's clients have stored; null removes a key.
#[utoipa::path(patch, path = "/api/me/preferences", operation_id = "update_preferences",
    request_body = Preferences, responses((status = 200, body = Preferences)))]
async fn update(
    Caller(caller): Caller,
    State(state): State<AppState>,
    Json(preferences): Json<Preferences>,
) -> Result<Json<Preferences>> {
    let user = change(&state, caller, None, &preferences).await?;
    preference::read(&state.db, &user).await.map(Json)
}

/// Changes preferences in the next batch, which checks the caller and their membership.
async fn change(
    state: &AppState,
    caller: AuthUser,
    chat_id: Option<ChatId>,
    values: &impl Serialize,
) -> Result<CurrentUser> {
    let values =
        serde_json::to_string(values).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let changed = state.writer.prefer(PreferenceChange { actor: caller.into(), chat_id, values });
    let changed = changed.await;
    changed.inspect_err(|error| state.limits.charge_if_too_slow(caller.id, error))?;
    let AuthUser { id, workspace_id, session_id, .. } = caller;
    CurrentUser::find(&state.db, id, workspace_id, session_id).await
}
