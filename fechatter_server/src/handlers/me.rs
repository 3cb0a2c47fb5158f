//! The caller: their profile, password and e-mail address.

use axum::extract::State;
use axum::http::StatusCode;
use axum_extra::extract::CookieJar;
use fechatter_core::log::Log;
use fechatter_core::user::User;
use sqlx::PgPool;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::handlers::auth::without_cookies;
use crate::models::account::user;
use crate::models::session::authentication::Authentication;
use crate::models::session::credential_change::{self, EmailChange, PasswordChange};
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::erasure::{self, Erasure};
use crate::models::workspace::profile::{self, ProfileChanges};
use crate::state::AppState;
use crate::utils::json::Json;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(show).errors(&[E::NotFound]))
        .routes(routes!(update).errors(&[E::NotFound]))
        .routes(routes!(erase).errors(&[E::InvalidCredentials, E::LastOwnerOf]))
        .routes(routes!(change_password).errors(&[E::InvalidCredentials, E::WeakPassword]))
        .routes(routes!(change_email).errors(&[E::InvalidCredentials, E::EmailTaken, E::NotFound]))
}

/// Returns the caller.
#[utoipa::path(get, path = "/api/me", operation_id = "get_me",
    responses((status = 200, body = User)))]
async fn show(caller: CurrentUser, State(db): State<PgPool>) -> Result<Json<User>> {
    user::find(&db, caller.workspace_id, caller.id).await.map(Json)
}

/// Changes the caller's name and title in the workspace.
#[utoipa::path(patch, path = "/api/me", operation_id = "update_me",
    request_body = ProfileChanges, responses((status = 200, body = User)))]
async fn update(
    caller: CurrentUser,
    State(log): State<Log>,
    Json(changes): Json<ProfileChanges>,
) -> Result<Json<User>> {
    profile::update(&log, caller, changes).await.map(Json)
}

/// Erases the account in all workspaces: the name, the address, and everything stored for the person.
#[utoipa::path(delete, path = "/api/me", operation_id = "erase_me",
    request_body = Erasure, responses((status = 204)))]
async fn erase(
    caller: CurrentUser,
    State(auth): State<Authentication>,
    State(state): State<AppState>,
    jar: CookieJar,
    Json(request): Json<Erasure>,
) -> Result<(StatusCode, CookieJar)> {
    erasure::erase_own(&auth, caller, request).await?;
    state.offboardings.wake();
    state.purge.wake();
    Ok((StatusCode::NO_CONTENT, without_cookies(&state, jar)))
}

/// Changes the account's password, and ends its other sessions.
#[utoipa::path(post, path = "/api/me/password", operation_id = "change_password",
    request_body = PasswordChange, responses((status = 204)))]
async fn change_password(
    caller: CurrentUser,
    State(auth): State<Authentication>,
    Json(change): Json<PasswordChange>,
) -> Result<StatusCode> {
    credential_change::change_password(&auth, caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the account's e-mail address, and ends its other sessions.
#[utoipa::path(post, path = "/api/me/email", operation_id = "change_email",
    request_body = EmailChange, responses((status = 200, body = User)))]
async fn change_email(
    caller: CurrentUser,
    State(auth): State<Authentication>,
    Json(change): Json<EmailChange>,
) -> Result<Json<User>> {
    credential_change::change_email(&auth, caller, change).await.map(Json)
}
