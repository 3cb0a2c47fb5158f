//! `GET /events`: the caller, their authorisation, the limits, and the response headers.

use std::convert::Infallible;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, State};
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use fechatter_core::http::{ApiError, Requester};
use fechatter_core::token::{self, AuthUser};
use futures_util::stream;
use serde::Deserialize;

use super::life::Stream;
use super::refusals::{rate_limited, refuse};
use super::start::{self, RequestedCursor};
use crate::app::App;

/// The caller and the requested start of the stream.
pub(crate) struct Request {
    user: AuthUser,
    requested: RequestedCursor,
}

/// The query parameters. They can contain the token, because the native `EventSource` sends no
/// custom headers: never log them.
#[derive(Deserialize)]
struct Parameters {
    access_token: Option<String>,
    token: Option<String>,
    cursor: Option<String>,
    /// The parameter name that polyfills of `EventSource` use.
    #[serde(rename = "lastEventId")]
    last_event_id: Option<String>,
}

impl FromRequestParts<App> for Request {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Query(parameters) = Query::<Parameters>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::invalid_input("the address cannot be understood"))?;
        let given = parameters.access_token.or(parameters.token);
        let token = token::bearer(&parts.headers)
            .or(given.as_deref())
            .ok_or_else(|| ApiError::unauthenticated("unauthenticated", "sign in first"))?;
        let user = app.verifier.verify(token)?;

        // The last one is the newest: some clients add a header at each attempt, and proxies join
        // them.
        let mut headers = parts.headers.get_all("last-event-id").iter();
        let last_event_id = headers.next_back().map(|value| {
            let last = value.as_bytes().rsplit(|byte| *byte == b',').next();
            last.unwrap_or_default().trim_ascii()
        });
        let parameters = [parameters.cursor.as_deref(), parameters.last_event_id.as_deref()];
        let parameters = parameters.map(|cursor| cursor.map(str::as_bytes));
        let mut given = [last_event_id].into_iter().chain(parameters).flatten();
        let requested = match given.find(|cursor| !cursor.is_empty()) {
            None => RequestedCursor::Absent,
            Some(cursor) => str::from_utf8(cursor)
                .ok()
                .and_then(|cursor| cursor.parse().ok())
                .map_or(RequestedCursor::Malformed, RequestedCursor::Present),
        };
        Ok(Self { user, requested })
    }
}

/// Returns the response of one person's stream, or an error.
pub(crate) async fn events(
    State(app): State<App>,
    Request { user, requested }: Request,
) -> Response {
    let mut response = open(app, user, requested).await.into_response();
    response.extensions_mut().insert(Requester(user.id));
    response
}

async fn open(app: App, user: AuthUser, requested: RequestedCursor) -> Result<Response, ApiError> {
    if app.shutdown.is_cancelled() {
        return Err(ApiError::unavailable("the server is about to stop"));
    }
    app.rates.take(user.id, 1).map_err(rate_limited)?;
    let permit = app.limits.acquire(user.id).map_err(refuse)?;
    let start = start::find_start(&app, user, requested).await?;
    let stream = Stream { app, user, start, permit };
    // This body is never sent; it only makes the response one without a length.
    let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        // Without this, nginx would buffer the events.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Extension(stream.takeover()), body).into_response())
}
