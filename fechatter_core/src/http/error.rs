//! The common error format.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An error response. The [shared layers](super::shared) write its JSON, because they know the
/// request's id and also handle the framework's own errors.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
}

/// The problem with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Detail {
    pub field: String,
    pub issue: String,
}

/// An error's JSON.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody<'a> {
    /// The status.
    #[schema(minimum = 400, maximum = 599)]
    code: u16,
    /// For people.
    error: &'a str,
    /// Stable, for programs.
    #[schema(example = "not_found")]
    r#type: &'a str,
    /// Names the request in the server's log.
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    details: &'a [Detail],
}

impl ApiError {
    /// Creates an error with this status, stable type, and text for people.
    #[must_use]
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, kind, message: message.into(), details: Vec::new(), retry_after: None }
    }

    /// The caller must sign in, or refresh their token.
    #[must_use]
    pub fn unauthenticated(kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, kind, message)
    }

    /// The object does not exist, is not visible to the caller, or belongs to another workspace.
    /// The response does not show which.
    #[must_use]
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The input breaks a rule of the contract.
    #[must_use]
    pub fn invalid_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_input", message)
    }

    /// The server cannot answer now; the client may retry after one second.
    #[must_use]
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            .retry_after(Duration::from_secs(1))
    }

    /// The cause is in the server's log only.
    #[must_use]
    pub fn internal() -> Self {
        Self::from_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Adds a problem with one field.
    #[must_use]
    pub fn detail(mut self, field: impl Into<String>, issue: impl Into<String>) -> Self {
        self.details.push(Detail { field: field.into(), issue: issue.into() });
        self
    }

    /// Sets the `Retry-After` header, which is sent in whole seconds, at least 1.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The error for a status that a framework answered without one.
    pub(super) fn from_status(status: StatusCode) -> Self {
        let (kind, message) = match status {
            StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "this address does not take this method")
            }
            StatusCode::REQUEST_TIMEOUT => ("timeout", "the request took too long"),
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is too large"),
            StatusCode::URI_TOO_LONG => ("uri_too_long", "the address is too long"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ("headers_too_large", "the headers are too large")
            }
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "try again in a moment"),
            status if status.is_client_error() => {
                ("invalid_input", "the request cannot be understood")
            }
            _ => ("internal", "something went wrong here; the request id names it in our log"),
        };
        Self::new(status, kind, message)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn body<'a>(&'a self, request_id: &'a str) -> ErrorBody<'a> {
        ErrorBody {
            code: self.status.as_u16(),
            error: &self.message,
            r#type: self.kind,
            request_id,
            details: &self.details,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}
