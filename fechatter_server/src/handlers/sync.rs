//! What a client begins with.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::AppState;
use crate::error::Result;
use crate::middlewares::auth::CurrentUser;
use crate::models::sync::{self, Sync};
use crate::utils::json::Json;
use crate::utils::page::Params;

#[derive(Deserialize, IntoParams)]
pub(super) struct SyncParams {
    /// Whether the people come along; they do unless this is false.
    users: Option<bool>,
}

/// The caller's view of their workspace, and the cursor from which `GET /events` continues it.
#[utoipa::path(get, path = "/api/sync", operation_id = "sync", params(SyncParams),
    responses((status = 200, body = Sync)))]
pub(super) async fn show(
    caller: CurrentUser,
    State(state): State<AppState>,
    Params(params): Params<SyncParams>,
) -> Result<Json<Sync>> {
    let clock = state.verifier.clock();
    sync::read(&state.db, &caller, clock, params.users.unwrap_or(true)).await.map(Json)
}
