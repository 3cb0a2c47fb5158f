//! The state that a client needs at its start.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::document::WithErrors;
use crate::error::{ErrorKind, Result};
use crate::models::session::current_user::CurrentUser;
use crate::models::sync::{self, Sync, SyncUsers};
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::query::Params;

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show).errors(&[ErrorKind::NotFound]))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SyncParams {
    /// The people in the response: all (true, the default), none (false), or those whom the list of chats
    /// shows (sidebar).
    #[param(inline)]
    users: Option<SyncUsers>,
}

/// Returns the caller's view of their workspace, and the cursor from which `GET /events` continues.
#[utoipa::path(get, path = "/api/sync", operation_id = "sync", params(SyncParams),
    responses((status = 200, body = Sync)))]
async fn show(
    caller: CurrentUser,
    State(state): State<AppState>,
    Params(params): Params<SyncParams>,
) -> Result<Json<Sync>> {
    let clock = state.verifier.clock();
    sync::read(&state.db, &caller, clock, params.users.unwrap_or_default()).await.map(Json)
}
