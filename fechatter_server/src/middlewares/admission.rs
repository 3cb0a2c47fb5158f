//! Admits requests of signed-in people within the person's rate, if there is room for the bytes of
//! the body and of the response.
//!
//! The body is read here, so that a slow client does not hold scarce resources while it sends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fechatter_core::finish::Finish;
use fechatter_core::http::Requester;
use fechatter_core::token::{self, AuthUser};
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use tracing::Instrument;

use crate::error::{AppError, Result};
use crate::services::bytes_in_flight::{CountedBytes, MAX_UNCOUNTED};
use crate::services::limits::{Caller, ConnectionPermit, RequestLimits};
use crate::state::AppState;

/// The largest body of a request, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;
const UPLOAD: &str = "/api/upload";
const SEND: &str = "/api/chat/{id}/messages";
/// The `Retry-After` that a person with too many bytes in flight gets.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An admitted request of a signed-in person, stored in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) user: AuthUser,
    /// Held until the response is ready.
    connection: Arc<Mutex<Option<ConnectionPermit>>>,
}

impl Admission {
    /// Waits for a permit to use a database connection, for the rest of the request.
    /// Refuses a person whose clients have too many unread response bytes.
    pub(crate) async fn connection(&self, limits: &RequestLimits) -> Result<()> {
        let permit =
            limits.connection_in(self.user.workspace_id, Caller::Person(self.user.id)).await?;
        // Checked after the wait: other requests of the person may have used up the rate meanwhile.
        limits.check_debt(self.user.id)?;
        if !limits.response_bytes.has_room(&self.user) {
            return Err(AppError::RateLimited(RETRY_AFTER));
        }
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        Ok(())
    }
}

/// Admits a request, or refuses it: with 400 for unknown parameters or an unreadable body, with 413
/// for a body that is too large, else with 429. A request without a valid access token is passed to
/// its handler after the check of its parameters.
pub(crate) async fn admit(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let token = token::bearer(request.headers());
    let user = token.and_then(|token| app.verifier.verify(token).ok());
    if let Err(error) = app.parameters.check(&request, user.is_some()) {
        return error.into_response();
    }
    let Some(user) = user else { return next.run(request).await };
    let mut response = admit_user(app, user, request, next).await;
    response.extensions_mut().insert(Requester(user.id));
    response
}

async fn admit_user(app: AppState, user: AuthUser, request: Request, next: Next) -> Response {
    if is_upload(&request) {
        return match app.limits.take(Caller::Person(user.id)) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        };
    }
    let (mut parts, body) = request.into_parts();
    let (body, counted) = match receive(&app.limits, &user, body).await {
        Ok(received) => received,
        Err(error) => return error.into_response(),
    };
    let admission = Admission { user, connection: Arc::default() };
    parts.extensions.insert(admission.clone());
    if sends_message(&parts) {
        // The batch writer finishes the message in any case, and it uses no connection of the pool.
        return next.run(Request::from_parts(parts, body)).await;
    }
    // A request is finished and keeps its permits even if the client disconnects, because
    // PostgreSQL does not stop the query of a client that has disconnected.
    let responding = async move {
        let response = next.run(Request::from_parts(parts, body)).await;
        drop(counted);
        let response = count_response(&app.limits, &user, response).await;
        // Released after the count, so that the person's next request sees this response.
        drop(admission);
        response
    };
    Finish::new(responding.in_current_span()).await
}

/// Returns true if the request uploads files: its body is written to the disk, and never read into
/// memory.
fn is_upload(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == UPLOAD)
}

/// Returns true if the request sends a message, which is the most frequent operation.
fn sends_message(parts: &Parts) -> bool {
    let route = parts.extensions.get::<MatchedPath>();
    parts.method == Method::POST && route.is_some_and(|route| route.as_str() == SEND)
}

/// Receives the whole body, if there is room for it.
async fn receive(
    limits: &RequestLimits,
    user: &AuthUser,
    body: Body,
) -> Result<(Body, Option<CountedBytes>)> {
    limits.take(Caller::Person(user.id))?;
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    if length.is_some_and(|length| length == 0 || length > MAX_BODY) {
        // The handler refuses such a body, if it reads one.
        return Ok((body, None));
    }
    let counted = match length {
        Some(..=MAX_UNCOUNTED) => None,
        length => {
            let counted = limits.request_bytes.reserve(user, length.unwrap_or(MAX_BODY));
            Some(counted.ok_or(AppError::RateLimited(RETRY_AFTER))?)
        }
    };
    let received = Limited::new(body, MAX_BODY).collect().await;
    let bytes = received.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => AppError::TooLarge("the body is too large"),
        None => AppError::invalid("body", "cannot be read"),
    })?;
    Ok((bytes.to_bytes().into(), counted))
}

/// Counts a large response for its person until the client has read it.
async fn count_response(limits: &RequestLimits, user: &AuthUser, response: Response) -> Response {
    let length =
        response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length > MAX_UNCOUNTED) else { return response };
    limits.charge_for_response(user.id, length);
    let (parts, body) = response.into_parts();
    // The body is already in memory, so this does not wait.
    let bytes = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    Response::from_parts(parts, limits.response_bytes.count_until_dropped(user, bytes).into())
}
