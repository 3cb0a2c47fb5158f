//! The caller's workspaces.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::log::Log;
use fechatter_core::workspace::Workspace;
use fechatter_core::{UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::handlers::auth::{AuthResponse, respond};
use crate::models::session;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::audit::{self, AuditEntry};
use crate::models::workspace::lookup;
use crate::models::workspace::offboarding;
use crate::models::workspace::{self, JoinRequest, WorkspaceChanges, WorkspaceWithRole};
use crate::services::offboarding::Offboardings;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::Id;
use crate::utils::query::{OneId, Params};
use crate::utils::text::WorkspaceName;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    use ErrorKind as E;
    let create_errors = [E::WorkspaceCreationClosed, E::WorkspaceTaken, E::LimitReached];
    let join_errors = [E::InviteRequired, E::InviteInvalid];
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(create).errors(&create_errors))
        .routes(routes!(join).errors(&join_errors))
        .routes(routes!(switch))
        .routes(routes!(show))
        .routes(routes!(update).errors(&[E::Forbidden, E::WorkspaceTaken]))
        .routes(routes!(leave).errors(&[E::LastOwner]))
        .routes(routes!(list_audit).errors(&[E::Forbidden]))
}

#[derive(Serialize, ToSchema)]
struct Workspaces {
    items: Vec<WorkspaceWithRole>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WorkspaceDraft {
    name: WorkspaceName,
}

/// Lists the workspaces in which the account is active.
#[utoipa::path(get, path = "/api/workspaces", operation_id = "list_workspaces",
    responses((status = 200, body = Workspaces)))]
async fn list(caller: CurrentUser, State(db): State<PgPool>) -> Result<Json<Workspaces>> {
    Ok(Json(Workspaces { items: workspace::list(&db, caller.id).await? }))
}

/// Creates a workspace with the caller as its owner.
#[utoipa::path(post, path = "/api/workspaces", operation_id = "create_workspace",
    request_body = WorkspaceDraft, responses((status = 201, body = Workspace)))]
async fn create(
    caller: CurrentUser,
    State(state): State<AppState>,
    Json(draft): Json<WorkspaceDraft>,
) -> Result<(StatusCode, Json<Workspace>)> {
    let config = &state.config;
    let created = workspace::create_another(&state.log, config, &caller, &draft.name).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Joins a workspace by invite, or an open one by name.
#[utoipa::path(post, path = "/api/workspaces/join", operation_id = "join_workspace",
    request_body = JoinRequest,
    responses((status = 201, body = Workspace), (status = 200, body = Workspace)))]
async fn join(
    caller: CurrentUser,
    State(log): State<Log>,
    Json(request): Json<JoinRequest>,
) -> Result<(StatusCode, Json<Workspace>)> {
    let (joined, is_new) = workspace::join(&log, &caller, request).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(joined)))
}

/// Returns an access token for another workspace, in the same session.
#[utoipa::path(post, path = "/api/workspaces/{id}/switch", operation_id = "switch_workspace",
    params(("id" = i64, Path)), responses((status = 200, body = AuthResponse)))]
async fn switch(
    caller: CurrentUser,
    Id(id): Id<WorkspaceId>,
    State(state): State<AppState>,
) -> Result<Json<AuthResponse>> {
    let session = session::switch(&state.db, caller.session_id, caller.id, id).await?;
    respond(&state, session, None).map(Json)
}

/// Returns the workspace of the access token.
#[utoipa::path(get, path = "/api/workspace", operation_id = "get_workspace",
    responses((status = 200, body = Workspace)))]
async fn show(caller: CurrentUser, State(db): State<PgPool>) -> Result<Json<Workspace>> {
    lookup::find(&db, caller.workspace_id).await.map(Json)
}

/// Changes the workspace's name or join policy.
#[utoipa::path(patch, path = "/api/workspace", operation_id = "update_workspace",
    request_body = WorkspaceChanges, responses((status = 200, body = Workspace)))]
async fn update(
    caller: CurrentUser,
    State(log): State<Log>,
    Json(changes): Json<WorkspaceChanges>,
) -> Result<Json<Workspace>> {
    workspace::update(&log, &caller, changes).await.map(Json)
}

/// Removes the caller from the workspace and all its chats.
#[utoipa::path(post, path = "/api/workspace/leave", operation_id = "leave_workspace",
    responses((status = 204)))]
async fn leave(
    caller: CurrentUser,
    State(log): State<Log>,
    State(offboardings): State<Offboardings>,
) -> Result<StatusCode> {
    offboarding::leave(&log, caller).await?;
    offboardings.wake();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditParams {
    /// Only the changes of this person.
    #[param(value_type = Option<i64>, minimum = 1)]
    actor: Option<OneId<UserId>>,
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<1>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
struct AuditEntries {
    items: Vec<AuditEntry>,
    next_cursor: Option<String>,
}

/// Lists what owners, admins and the operator have changed, newest first. For owners.
#[utoipa::path(get, path = "/api/audit", operation_id = "list_audit", params(AuditParams),
    responses((status = 200, body = AuditEntries)))]
async fn list_audit(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<AuditParams>,
) -> Result<Json<AuditEntries>> {
    let page = Page::new(params.cursor, params.limit);
    let actor = params.actor.map(|OneId(id)| id);
    let (items, next_cursor) = audit::list(&db, &caller, actor, page).await?;
    Ok(Json(AuditEntries { items, next_cursor }))
}
