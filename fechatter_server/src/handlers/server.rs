//! Information about this server.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use fechatter_core::message::MAX_CONTENT;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::WorkspaceCreation;
use crate::error::Result;
use crate::middlewares::admission::MAX_BODY;
use crate::models::file::MAX_FILES;
use crate::models::message::reaction::MAX_KINDS;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace;
use crate::state::AppState;
use crate::utils::json::Json;
use crate::utils::text::{ChatName, Password};

/// The routes of this module.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(document))
}

/// The features that this version has, so that a client can ask before it offers them.
const FEATURES: [&str; 10] = [
    "archive",
    "edit",
    "files",
    "mentions",
    "preferences",
    "reactions",
    "read_state",
    "replies",
    "system_messages",
    "typing",
];

/// Information that a client needs before it signs in.
#[derive(Serialize, ToSchema)]
struct ServerInfo {
    /// Only for a caller with a valid access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    version: Option<&'static str>,
    /// True if a workspace can be created now.
    can_create_workspace: bool,
    api_level: u32,
    features: Vec<&'static str>,
    events_url: String,
    limits: ServerLimits,
    workspace_creation: WorkspaceCreation,
}

#[derive(Serialize, ToSchema)]
struct ServerLimits {
    /// The maximum number of characters in a message.
    message_length: usize,
    /// The maximum number of bytes in a request's body.
    body_size: usize,
    /// The minimum number of characters in a password.
    password_min: usize,
    /// The maximum number of characters in a password.
    password_max: usize,
    /// The maximum number of bytes of a file, and of all files of an upload.
    file_size: u64,
    upload_size: u64,
    /// The maximum number of files of a message.
    message_files: usize,
    /// The maximum number of characters in a chat's name.
    chat_name: usize,
    /// The maximum number of different emojis of the reactions to a message.
    reaction_kinds: usize,
}

/// Returns the server's version, features and limits.
#[utoipa::path(get, path = "/api/server", operation_id = "get_server", security(()),
    responses((status = 200, body = ServerInfo)))]
async fn show(
    caller: Result<CurrentUser>,
    State(state): State<AppState>,
) -> Result<Json<ServerInfo>> {
    let policy = state.config.accounts.workspace_creation;
    Ok(Json(ServerInfo {
        version: caller.ok().map(|_| env!("CARGO_PKG_VERSION")),
        can_create_workspace: workspace::can_create(&state.db, policy).await?,
        api_level: 1,
        features: FEATURES.to_vec(),
        events_url: format!("{}/events", state.config.notify.public_url),
        limits: ServerLimits {
            message_length: MAX_CONTENT,
            body_size: MAX_BODY,
            password_min: Password::MIN,
            password_max: Password::MAX,
            file_size: state.config.files.max_file(),
            upload_size: state.config.files.max_upload(),
            message_files: MAX_FILES,
            chat_name: ChatName::MAX,
            reaction_kinds: MAX_KINDS,
        },
        workspace_creation: policy,
    }))
}

/// The document as `cargo xtask openapi` writes it. A test compares it with the routes.
const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

/// Returns this document.
#[utoipa::path(get, path = "/api-docs/openapi.json", operation_id = "get_openapi", security(()),
    responses((status = 200, body = serde_json::Value)))]
async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT)
}
