//! The caller's sessions.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::SessionId;
use fechatter_core::log::Log;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Result;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::list::{self, SessionEntry};
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::path::Id;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end))
}

#[derive(Serialize, ToSchema)]
struct Sessions {
    items: Vec<SessionEntry>,
}

/// Lists the account's sessions that have not ended, last used first.
#[utoipa::path(get, path = "/api/sessions", operation_id = "list_sessions",
    responses((status = 200, body = Sessions)))]
async fn list(caller: CurrentUser, State(db): State<PgPool>) -> Result<Json<Sessions>> {
    Ok(Json(Sessions { items: list::list(&db, &caller).await? }))
}

/// Ends one of the account's sessions.
#[utoipa::path(delete, path = "/api/sessions/{id}", operation_id = "end_session",
    params(("id" = uuid::Uuid, Path)), responses((status = 204)))]
async fn end(
    caller: CurrentUser,
    Id(id): Id<SessionId>,
    State(db): State<PgPool>,
    State(log): State<Log>,
) -> Result<StatusCode> {
    list::end(&db, &log, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
