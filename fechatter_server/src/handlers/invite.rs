//! Invites to the caller's workspace.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::InviteId;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::models::account::device::Device;
use crate::models::session::authentication::Authentication;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::invite::{self, Invite, InviteDraft, InvitePreview, NewInvite};
use crate::services::limits::Caller;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::{Code, Id};
use crate::utils::query::Params;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(create).errors(&[E::Forbidden, E::NotFound, E::LimitReached]))
        .routes(routes!(delete))
        .routes(routes!(preview).errors(&[E::NotFound]))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<1>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
struct Invites {
    items: Vec<Invite>,
    next_cursor: Option<String>,
}

/// Lists invites, newest first: all for an owner or admin, their own for a member.
#[utoipa::path(get, path = "/api/invites", operation_id = "list_invites", params(ListParams),
    responses((status = 200, body = Invites)))]
async fn list(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<ListParams>,
) -> Result<Json<Invites>> {
    let page = Page::new(params.cursor, params.limit);
    let (items, next_cursor) = invite::list(&db, &caller, page).await?;
    Ok(Json(Invites { items, next_cursor }))
}

/// Creates an invite. Only this response contains its code.
#[utoipa::path(post, path = "/api/invites", operation_id = "create_invite",
    request_body = InviteDraft, responses((status = 201, body = NewInvite)))]
async fn create(
    caller: CurrentUser,
    State(state): State<AppState>,
    Json(draft): Json<InviteDraft>,
) -> Result<(StatusCode, Json<NewInvite>)> {
    state.limits.take_for_ids(caller.id, draft.id_count())?;
    let created =
        invite::create(&state.log, &caller, &state.config, state.verifier.clock(), draft).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Withdraws an invite.
#[utoipa::path(delete, path = "/api/invites/{id}", operation_id = "delete_invite",
    params(("id" = i64, Path)), responses((status = 204)))]
async fn delete(
    caller: CurrentUser,
    Id(id): Id<InviteId>,
    State(db): State<PgPool>,
) -> Result<StatusCode> {
    invite::delete(&db, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows the holder of an invite's code where it leads, before they sign up.
#[utoipa::path(get, path = "/api/invites/{code}/preview", operation_id = "preview_invite", security(()),
    params(("code" = String, Path)), responses((status = 200, body = InvitePreview)))]
async fn preview(
    State(auth): State<Authentication>,
    device: Device,
    Code(code): Code,
) -> Result<Json<InvitePreview>> {
    let caller = Caller::Address(device.network());
    auth.limits.take(caller)?;
    let _permit = auth.connection_permit(caller).await?;
    invite::preview(&auth.db, &code).await.map(Json)
}
