//! HTTP handlers: each extracts its input, makes one call, and responds.

mod auth;
mod avatar;
mod chat;
pub(crate) mod file;
mod invite;
mod me;
mod member;
mod message;
mod preference;
mod reaction;
mod read_state;
mod server;
mod session;
mod sync;
mod typing;
mod user;
mod workspace;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::document::{self, Document};
use crate::state::AppState;

/// Returns the OpenAPI document of all routes, and of `notify_server`.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut uploads = file::uploads();
    document::tag(uploads.get_openapi_mut(), "files");
    document::complete(routes().merge(uploads).into_openapi())
}

/// Returns all routes, with their descriptions.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    let all = OpenApiRouter::with_openapi(Document::openapi());
    vec![
        ("server", server::routes()),
        ("auth", auth::routes()),
        ("me", me::routes()),
        ("users", user::routes()),
        ("avatars", avatar::routes()),
        ("sessions", session::routes()),
        ("workspaces", workspace::routes()),
        ("invites", invite::routes()),
        ("sync", sync::routes()),
        ("chats", chat::routes()),
        ("members", member::routes()),
        ("messages", message::routes()),
        ("reactions", reaction::routes()),
        ("files", file::routes()),
        ("read states", read_state::routes()),
        ("typing", typing::routes()),
        ("preferences", preference::routes()),
    ]
    .into_iter()
    .fold(all, |all, (tag, mut routes)| {
        document::tag(routes.get_openapi_mut(), tag);
        all.merge(routes)
    })
}
