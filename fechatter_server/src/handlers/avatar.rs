//! The pictures of people.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_extra::extract::CookieJar;
use fechatter_core::log::Log;
use fechatter_core::{UserId, WorkspaceId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::handlers::file::{Binary, PROTECTED, find_reader, is_known};
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::avatar;
use crate::state::AppState;
use crate::utils::path::Id;
use crate::utils::query::{OneId, Params};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(set).errors(&[E::NotAnImage, E::TooLarge]))
        .routes(routes!(remove))
        .routes(routes!(show).errors(&[
            E::NotFound,
            E::CrossSite,
            E::SessionEnded,
            E::Suspended,
            E::WorkspaceSuspended,
        ]))
}

/// Sets the caller's picture in the workspace: a PNG, JPEG, GIF or WebP image as the body.
#[utoipa::path(put, path = "/api/me/avatar", operation_id = "set_avatar",
    request_body(content = inline(Binary), content_type = "application/octet-stream"),
    responses((status = 204)))]
async fn set(caller: CurrentUser, State(log): State<Log>, image: Bytes) -> Result<StatusCode> {
    avatar::set(&log, caller, &image).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the caller's picture in the workspace.
#[utoipa::path(delete, path = "/api/me/avatar", operation_id = "remove_avatar",
    responses((status = 204)))]
async fn remove(caller: CurrentUser, State(log): State<Log>) -> Result<StatusCode> {
    avatar::remove(&log, caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShowParams {
    /// The workspace, if the request has the cookie `media` instead of an access token.
    #[param(value_type = Option<i64>, minimum = 1)]
    workspace_id: Option<OneId<WorkspaceId>>,
    /// The version of the picture, which makes its address new when it changes.
    #[expect(dead_code, reason = "decides nothing")]
    v: Option<String>,
}

/// Returns the picture of a person to everybody in the workspace.
#[utoipa::path(get, path = "/api/users/{id}/avatar", operation_id = "get_avatar", security(()),
    params(("id" = i64, Path), ShowParams),
    responses(
        (status = 200, body = inline(Binary), content_type = "application/octet-stream"),
        (status = 304)))]
async fn show(
    State(state): State<AppState>,
    Id(id): Id<UserId>,
    jar: CookieJar,
    Params(params): Params<ShowParams>,
    parts: Parts,
) -> Result<Response> {
    let named = params.workspace_id.map(|OneId(id)| id);
    let (_, workspace_id, _permit) = find_reader(&state, &jar, &parts, named, None).await?;
    let avatar = avatar::find(&state.db, workspace_id, id).await?;
    let etag = format!("\"{}\"", avatar.version);
    let mut headers = HeaderMap::new();
    let own = [(ETAG, &*etag), (CONTENT_DISPOSITION, "inline"), (CONTENT_TYPE, &avatar.mime)];
    for (name, value) in own.into_iter().chain(PROTECTED) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    if is_known(&parts.headers, &etag) {
        headers.remove(CONTENT_TYPE);
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, avatar.image).into_response())
}
