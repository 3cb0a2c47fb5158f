//! HTTP: extract, one call, respond.

mod auth;
mod chat;
mod invite;
mod member;
mod message;
mod server;
mod user;
mod workspace;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AppState;

#[derive(OpenApi)]
#[openapi(info(title = "Fechatter", description = "A workspace's chats over REST."))]
struct Document;

/// Every route, and the document that describes them.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(server::show))
        .routes(routes!(server::document))
        .routes(routes!(auth::sign_up))
        .routes(routes!(auth::sign_in))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::log_out))
        .routes(routes!(auth::log_out_all))
        .routes(routes!(auth::log_out_all_as_before))
        .routes(routes!(user::me))
        .routes(routes!(user::list))
        .routes(routes!(user::show))
        .routes(routes!(workspace::list, workspace::create))
        .routes(routes!(workspace::join))
        .routes(routes!(workspace::switch))
        .routes(routes!(workspace::show, workspace::update))
        .routes(routes!(invite::list, invite::create))
        .routes(routes!(invite::delete))
        .routes(routes!(chat::list, chat::create))
        .routes(routes!(chat::directory))
        .routes(routes!(chat::show, chat::update, chat::delete))
        .routes(routes!(member::join))
        .routes(routes!(member::leave))
        .routes(routes!(member::list, member::add, member::remove))
        .routes(routes!(member::change))
        .routes(routes!(message::list, message::send))
        .routes(routes!(message::show))
}
