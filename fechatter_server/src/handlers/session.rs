//! The caller's sessions.

use axum::extract::State;
use axum::http::StatusCode;
use fechatter_core::SessionId;
use fechatter_core::log::Log;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Result;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::list::{self, SessionEntry};
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::page::{Cursor, Limit, Page};
use crate::utils::path::Id;
use crate::utils::query::Params;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(end))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// The cursor from the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<5>>,
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
struct Sessions {
    items: Vec<SessionEntry>,
    next_cursor: Option<String>,
}

/// Lists the account's sessions that have not ended, last used first.
#[utoipa::path(get, path = "/api/sessions", operation_id = "list_sessions", params(ListParams),
    responses((status = 200, body = Sessions)))]
async fn list(
    caller: CurrentUser,
    State(db): State<PgPool>,
    Params(params): Params<ListParams>,
) -> Result<Json<Sessions>> {
    let page = Page::new(params.cursor, params.limit);
    let (items, next_cursor) = list::list(&db, &caller, page).await?;
    Ok(Json(Sessions { items, next_cursor }))
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
