//! HTTP handlers: each extracts its input, makes one call, and responds.

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

use fechatter_core::http::{Detail, ErrorBody};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(title = "Fechatter", description = "A workspace's chats over REST."),
    components(schemas(ErrorBody, Detail)),
    security(("access_token" = []))
)]
struct Document;

/// Adds the parts that all operations share: the security scheme and the error response.
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

/// Returns the OpenAPI document of all routes.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    Conventions.modify(&mut document);
    document
}

/// Returns all routes, with their descriptions.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    [
        server::routes(),
        auth::routes(),
        user::routes(),
        session::routes(),
        workspace::routes(),
        invite::routes(),
        sync::routes(),
        chat::routes(),
        member::routes(),
        message::routes(),
    ]
    .into_iter()
    .fold(OpenApiRouter::with_openapi(Document::openapi()), OpenApiRouter::merge)
}
