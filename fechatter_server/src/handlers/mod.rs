//! HTTP: extract, one call, respond.

mod auth;
mod chat;
mod invite;
mod member;
mod message;
mod server;
mod session;
mod sync;
mod user;
mod workspace;

use axum::extract::DefaultBodyLimit;
use fechatter_core::http::{Detail, ErrorBody};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::AppState;

/// The largest body of somebody who has not signed in, in bytes.
const MAX_STRANGERS_BODY: usize = 16 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(title = "Fechatter", description = "A workspace's chats over REST."),
    components(schemas(ErrorBody, Detail)),
    security(("access_token" = []))
)]
struct Document;

/// What holds for every operation: how callers show who they are, and the one form of errors.
struct Conventions;

impl Modify for Conventions {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("access_token", SecurityScheme::Http(bearer));

        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let error =
            ResponseBuilder::new().description("An error").content("application/json", body);
        let error = RefOr::T(error.build());
        for item in document.paths.paths.values_mut() {
            let methods =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                operation.responses.responses.insert("default".into(), error.clone());
            }
        }
    }
}

/// The document of every route.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    Conventions.modify(&mut document);
    document
}

/// Every route, with its description.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(server::show))
        .routes(routes!(server::document))
        .routes(routes!(auth::sign_up).layer(DefaultBodyLimit::max(MAX_STRANGERS_BODY)))
        .routes(routes!(auth::sign_in).layer(DefaultBodyLimit::max(MAX_STRANGERS_BODY)))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::log_out))
        .routes(routes!(auth::log_out_all))
        .routes(routes!(auth::log_out_all_as_before))
        .routes(routes!(user::me))
        .routes(routes!(user::list))
        .routes(routes!(user::show, user::update, user::remove))
        .routes(routes!(session::list))
        .routes(routes!(session::end))
        .routes(routes!(workspace::list, workspace::create))
        .routes(routes!(workspace::join))
        .routes(routes!(workspace::switch))
        .routes(routes!(workspace::show, workspace::update))
        .routes(routes!(workspace::leave))
        .routes(routes!(invite::list, invite::create))
        .routes(routes!(invite::delete))
        .routes(routes!(sync::show))
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
