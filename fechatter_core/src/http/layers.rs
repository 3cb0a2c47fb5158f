//! The layers around every route of either server.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::{Label, SharedString};
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tracing::{Instrument, debug, error, info, info_span};
use uuid::Uuid;

use super::error::ApiError;
use super::well_formed;
use crate::{UserId, metrics};

const STANDARD_METHODS: [(Method, &str); 7] = [
    (Method::GET, "GET"),
    (Method::HEAD, "HEAD"),
    (Method::POST, "POST"),
    (Method::PUT, "PUT"),
    (Method::PATCH, "PATCH"),
    (Method::DELETE, "DELETE"),
    (Method::OPTIONS, "OPTIONS"),
];
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIME: HeaderName = HeaderName::from_static("x-server-time");

/// The settings of the layers.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The exact origins that browsers may call from.
    pub allowed_origins: Vec<String>,
    /// The `max-age` of the HSTS header in seconds; `None` if the header is not sent.
    pub hsts: Option<u32>,
    /// True if the requests are probes, which come every few seconds: their log lines are at DEBUG.
    pub is_for_probes: bool,
}

/// The id of a request: the client's own where it is a valid one, else a `UUIDv7`.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The person who made a request. It is in the extensions of the response, for the log line.
#[derive(Debug, Clone, Copy)]
pub struct Requester(pub UserId);

/// Adds the shared layers to a router: request id, one log line per request, the common error
/// format, security headers, CORS, and refusal of requests that are not well
/// formed.
pub fn shared<S: Clone + Send + Sync + 'static>(router: Router<S>, shared: &Shared) -> Router<S> {
    let hsts = shared.hsts.map(|seconds| HeaderValue::try_from(format!("max-age={seconds}")));
    let hsts = hsts.and_then(Result::ok);
    let is_for_probes = shared.is_for_probes;
    // In one call, and few functions of our own: for each request, each call copies all layers inside
    // of it, and so does each function.
    router.layer((
        middleware::from_fn(move |request, next| {
            envelope(request, next, hsts.clone(), is_for_probes)
        }),
        cors(&shared.allowed_origins),
        CatchPanicLayer::custom(panicked),
    ))
}

/// Gives the request its id, refuses it if it is not well-formed, writes errors in the common format,
/// adds the headers of every response, and logs the request. This is the outermost layer: the others
/// can use the id, and CORS answers preflight requests itself.
async fn envelope(
    mut request: Request,
    next: Next,
    hsts: Option<HeaderValue>,
    is_for_probes: bool,
) -> Response {
    let started = Instant::now();
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = given.filter(|id| is_request_id(id)).map(ToOwned::to_owned);
    let id = RequestId(id.unwrap_or_else(|| Uuid::now_v7().to_string()));
    request.extensions_mut().insert(id.clone());
    // The span has only the id, because all its fields are formatted for each request, even if
    // nothing is logged.
    let span = info_span!("request", request_id = id.0);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match well_formed::check(&request) {
        Ok(()) => next.run(request).instrument(span).await,
        Err(error) => error.into_response(),
    };
    let status = response.status();
    count(&method, route.as_ref(), status, started.elapsed());
    let path = route.as_ref().map_or("-", MatchedPath::as_str);
    let user_id = response.extensions().get::<Requester>().map(|requester| requester.0.0);
    let (status_code, ms) = (status.as_u16(), milliseconds(started.elapsed()));
    if is_for_probes {
        debug!(parent: None, %method, path, request_id = id.0, user_id, status = status_code, ms, "answered");
    } else {
        info!(parent: None, %method, path, request_id = id.0, user_id, status = status_code, ms, "answered");
    }
    if status.is_client_error() || status.is_server_error() {
        response = render(response, &id.0);
    }
    let headers = response.headers_mut();
    let elapsed = format!("{}us", started.elapsed().as_micros());
    if let Ok(value) = HeaderValue::try_from(elapsed) {
        headers.insert(SERVER_TIME, value);
    }
    protect(headers);
    if let Some(value) = hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
    if let Ok(value) = HeaderValue::try_from(id.0) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

fn is_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Adds the security headers that the response does not have yet.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Counts a request by the route's pattern, not its path, so that the number of labels is limited.
fn count(method: &Method, route: Option<&MatchedPath>, status: StatusCode, took: Duration) {
    // The same text for both metrics.
    let route: Arc<str> = route.map_or("none", MatchedPath::as_str).into();
    let route = || Label::new("route", SharedString::from_shared(Arc::clone(&route)));
    // Clients can invent methods, which would add any number of labels.
    let standard = STANDARD_METHODS.iter().find(|(standard, _)| standard == method);
    let method = || Label::from_static_parts("method", standard.map_or("other", |(_, name)| name));
    let status = Label::new("status", status.as_u16().to_string());
    ::metrics::counter!(metrics::REQUESTS, vec![method(), route(), status]).increment(1);
    ::metrics::histogram!(metrics::REQUEST_SECONDS, vec![method(), route()]).record(took);
}

fn render(response: Response, request_id: &str) -> Response {
    let error = response.extensions().get::<ApiError>().cloned();
    let error = error.unwrap_or_else(|| ApiError::from_status(response.status()));
    let body = axum::Json(error.body(request_id)).into_response();
    // The framework's headers stay (`Allow`, `Retry-After`); those of its body go.
    let (mut parts, _) = response.into_parts();
    parts.status = error.status();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if parts.status == StatusCode::SERVICE_UNAVAILABLE {
        parts.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    Response::from_parts(parts, body.into_body())
}

/// Returns milliseconds, rounded to tenths.
fn milliseconds(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 10_000.0).round() / 10.0
}

#[expect(clippy::needless_pass_by_value, reason = "tower-http's signature")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let cause = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    error!(cause = cause.unwrap_or("unknown"), "a request panicked");
    ApiError::internal().into_response()
}

fn cors(allowed_origins: &[String]) -> CorsLayer {
    let origins = allowed_origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok());
    let exposed = [
        "x-next-cursor",
        "x-has-older",
        "x-has-newer",
        "idempotency-replayed",
        "x-request-id",
        "retry-after",
    ];
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("last-event-id")])
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_mins(10))
}
