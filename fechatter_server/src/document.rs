//! The OpenAPI document of both servers.

use axum::http::StatusCode;
use fechatter_core::http::{Detail, ErrorBody};
use fechatter_core::stream_event::StreamEvent;
use serde_json::json;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::{Server, ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{
    Content, HttpMethod, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::error::ErrorKind;
use crate::state::AppState;

/// The extension that lists the `type`s of the errors of a response.
const ERROR_TYPES: &str = "x-error-types";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fechatter",
        description = "A workspace's chats: REST calls, and `GET /events`, a stream of the events \
                       for one person. New versions only add fields and events: clients must \
                       ignore those that they do not know.",
    ),
    components(schemas(ErrorBody, Detail, StreamEvent)),
    security(("access_token" = []))
)]
pub(crate) struct Document;

/// Sets the tag of all operations.
pub(crate) fn tag(document: &mut utoipa::openapi::OpenApi, name: &str) {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            operation.tags = Some(vec![name.into()]);
        }
    }
}

/// Adds the errors that are specific to an operation to its description.
pub(crate) trait WithErrors {
    fn errors(self, kinds: &[ErrorKind]) -> Self;
}

impl WithErrors for UtoipaMethodRouter<AppState> {
    fn errors(mut self, kinds: &[ErrorKind]) -> Self {
        for item in self.1.paths.values_mut() {
            for operation in operations(item) {
                for kind in kinds {
                    add_error(operation, kind.status(), kind.name());
                }
            }
        }
        self
    }
}

/// Adds the parts that many operations share: security schemes, common errors, path parameters, and
/// the stream of `notify_server`.
pub(crate) fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let in_query = ApiKey::Query(ApiKeyValue::with_description(
        "access_token",
        "The access token, for clients that cannot send headers.",
    ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("access_token", SecurityScheme::Http(bearer));
    components.add_security_scheme("access_token_in_query", SecurityScheme::ApiKey(in_query));
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            describe_path_parameters(operation);
            add_common_errors(operation);
        }
    }
    document.paths.paths.insert("/events".into(), stream());
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            describe_responses(operation);
        }
    }
    let components = document.components.get_or_insert_default();
    for schema in components.schemas.values_mut() {
        require_nulls(schema);
        unwrap_single(schema);
    }
    for (status, name) in COMMON_ERRORS.into_iter().chain(ERRORS_OF_BODIES) {
        let response = error_response(status, &[name.to_owned()]);
        components.responses.insert(name.to_owned(), RefOr::T(response));
    }
    document.servers =
        Some(vec![ServerBuilder::new().url("/").description(Some("fechatter_server")).build()]);
    document
}

/// The statuses and types of errors that any operation can return.
const COMMON_ERRORS: [(StatusCode, &str); 7] = [
    (StatusCode::BAD_REQUEST, "invalid_input"),
    (StatusCode::REQUEST_TIMEOUT, "timeout"),
    (StatusCode::URI_TOO_LONG, "uri_too_long"),
    (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
    (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
];
const ERRORS_OF_BODIES: [(StatusCode, &str); 3] = [
    (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    (StatusCode::UNPROCESSABLE_ENTITY, "malformed_json"),
];
const ERRORS_OF_TOKENS: [(StatusCode, &str); 2] =
    [(StatusCode::UNAUTHORIZED, "unauthenticated"), (StatusCode::UNAUTHORIZED, "token_expired")];

fn add_common_errors(operation: &mut Operation) {
    let mut errors = COMMON_ERRORS.to_vec();
    if operation.request_body.is_some() {
        errors.extend(ERRORS_OF_BODIES);
    }
    if operation.security.is_none() {
        errors.extend(ERRORS_OF_TOKENS);
        for kind in [ErrorKind::Suspended, ErrorKind::WorkspaceSuspended] {
            errors.push((kind.status(), kind.name()));
        }
    }
    if parameters(operation).any(|parameter| parameter.parameter_in == ParameterIn::Path) {
        errors.push((ErrorKind::NotFound.status(), ErrorKind::NotFound.name()));
    }
    for (status, name) in errors {
        add_error(operation, status, name);
    }
}

/// Adds a type to the error response with this status.
fn add_error(operation: &mut Operation, status: StatusCode, name: &str) {
    let responses = &mut operation.responses.responses;
    let key = status.as_str().to_owned();
    let mut names = match responses.get(&key) {
        Some(RefOr::T(response)) => error_types(response),
        _ => Vec::new(),
    };
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    responses.insert(key, RefOr::T(error_response(status, &names)));
}

/// Returns the types of the errors that a response describes.
fn error_types(response: &Response) -> Vec<String> {
    let types = response.extensions.as_ref().and_then(|extensions| extensions.get(ERROR_TYPES));
    types.and_then(|types| serde_json::from_value(types.clone()).ok()).unwrap_or_default()
}

fn error_response(status: StatusCode, names: &[String]) -> Response {
    let listed: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let body = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
    let text = || Header::new(Object::with_type(Type::String));
    let response = ResponseBuilder::new()
        .description(listed.join(", "))
        .content("application/json", body)
        .extensions(Some(ExtensionsBuilder::new().add(ERROR_TYPES, json!(names)).build()));
    match status {
        StatusCode::UNAUTHORIZED => response.header("WWW-Authenticate", text()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            response.header("Retry-After", Header::new(Object::with_type(Type::Integer)))
        }
        _ => response,
    }
    .build()
}

/// Describes the success responses, and replaces each error response that many operations share by
/// a reference to it.
fn describe_responses(operation: &mut Operation) {
    let shared = || COMMON_ERRORS.into_iter().chain(ERRORS_OF_BODIES);
    for (key, entry) in &mut operation.responses.responses {
        let RefOr::T(response) = entry else { continue };
        if response.extensions.is_none() && response.description.is_empty() {
            response.description = match key.as_str() {
                "200" => "The result",
                "201" => "The new object",
                "204" => "Done",
                "304" => "The list has not changed since the response with this `ETag`",
                _ => "",
            }
            .into();
        }
        if let [only] = &error_types(response)[..]
            && let Some((_, name)) = shared().find(|(_, name)| name == only)
        {
            *entry = RefOr::Ref(Ref::from_response_name(name));
        }
    }
}

/// Requires the nullable properties of the objects that the servers send, because the servers send
/// null instead of omitting them. Objects that clients send forbid unknown properties, which
/// identifies them here; clients may omit their nullable properties.
fn require_nulls(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            if matches!(
                object.additional_properties.as_deref(),
                Some(AdditionalProperties::FreeForm(false))
            ) {
                return;
            }
            let nullable = object.properties.iter().filter(|(_, schema)| is_nullable(schema));
            for (name, _) in nullable {
                if !object.required.contains(name) {
                    object.required.push(name.clone());
                }
            }
        }
        Schema::AllOf(all) => all.items.iter_mut().for_each(require_nulls),
        Schema::OneOf(one) => one.items.iter_mut().for_each(require_nulls),
        _ => {}
    }
}

fn is_nullable(schema: &RefOr<Schema>) -> bool {
    let is_null = |schema_type: &SchemaType| match schema_type {
        SchemaType::Type(kind) => *kind == Type::Null,
        SchemaType::Array(kinds) => kinds.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => is_null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => is_null(&array.schema_type),
        RefOr::T(Schema::OneOf(one)) => one.items.iter().any(is_nullable),
        _ => false,
    }
}

/// Replaces a `oneOf` with a single schema by this schema.
fn unwrap_single(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::OneOf(one)) = schema
        && one.items.len() == 1
        && let Some(only) = one.items.pop()
    {
        *schema = only;
    }
}

fn describe_path_parameters(operation: &mut Operation) {
    let parameters = operation.parameters.iter_mut().flatten();
    for parameter in parameters {
        let RefOr::T(parameter) = parameter else { continue };
        if parameter.parameter_in != ParameterIn::Path {
            continue;
        }
        let meaning = match parameter.name.as_str() {
            "mid" => "The message's id",
            "member_id" => "The member's id",
            _ => "The id",
        };
        parameter.description = Some(format!("{meaning}. Other values are refused with 404."));
        if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
            && schema.schema_type == Type::Integer.into()
        {
            schema.minimum = Some(1.into());
        }
    }
}

/// `GET /events`, which `notify_server` serves.
fn stream() -> PathItem {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let in_query = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text()))
    };
    let last_event_id = in_query("Last-Event-ID", "The same as `cursor`, which it overrides.");
    let event = Content::new(Some(Ref::from_schema_name(StreamEvent::name())));
    let response = ResponseBuilder::new()
        .description(
            "An unlimited number of frames. Each has `event: <name>` and `data: <JSON>`. All but \
             `Goodbye` and events that are not in the log also have `id: <cursor>`. The schema \
             describes the `data` of one frame.",
        )
        .content("text/event-stream", event);
    let operation = OperationBuilder::new()
        .tags(Some(["events"]))
        .operation_id(Some("events"))
        .summary(Some("Streams the events of the caller's workspace."))
        .description(Some(
            "The number of open streams per person and server is limited (10 by default). The \
             address is the `events_url` of `GET /api/server`.",
        ))
        .parameter(in_query("cursor", "Resume after this event (by default, the newest)."))
        .parameter(in_query("lastEventId", "The same as `cursor`, for polyfills of `EventSource`."))
        .parameter(in_query("token", "The same as `access_token`, for existing clients."))
        .parameter(last_event_id.parameter_in(ParameterIn::Header))
        .securities(Some(
            ["access_token", "access_token_in_query"]
                .map(|scheme| utoipa::openapi::SecurityRequirement::new(scheme, [""; 0])),
        ))
        .response("200", response)
        .build();
    let mut item = PathItem::new(HttpMethod::Get, operation);
    for operation in operations(&mut item) {
        for (status, name) in COMMON_ERRORS.into_iter().chain(ERRORS_OF_TOKENS) {
            add_error(operation, status, name);
        }
        for kind in [ErrorKind::Suspended, ErrorKind::WorkspaceSuspended, ErrorKind::NotFound] {
            add_error(operation, kind.status(), kind.name());
        }
    }
    item.servers = Some(vec![notify_server()]);
    item
}

fn notify_server() -> Server {
    let address = ServerVariableBuilder::new()
        .default_value("http://localhost:6687")
        .description(Some("`events_url` of `GET /api/server`, without its `/events`."));
    ServerBuilder::new()
        .url("{address}")
        .description(Some("notify_server"))
        .parameter("address", address)
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete]
        .into_iter()
        .flatten()
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &utoipa::openapi::path::Parameter> {
    operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}
