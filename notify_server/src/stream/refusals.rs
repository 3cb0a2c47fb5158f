//! The error responses to requests that get no stream.

use std::time::Duration;

use axum::http::StatusCode;
use fechatter_core::http::ApiError;

use super::limits::LimitReached;

/// Returns the error for a person who exceeds the request rate.
pub(super) fn rate_limited(wait: Duration) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests")
        .retry_after(wait)
}

/// Returns the error when no further stream may be opened.
pub(super) fn refuse(limit: LimitReached) -> ApiError {
    let error = match limit {
        LimitReached::Person => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many open streams")
        }
        LimitReached::Server => ApiError::unavailable("too many open streams on this server"),
    };
    with_retry_after(error)
}

/// Adds a `Retry-After` of 3 to 10 s, chosen at random, so that clients do not all come back at
/// once.
pub(super) fn with_retry_after(error: ApiError) -> ApiError {
    error.retry_after(Duration::from_secs(rand::random_range(3..=10)))
}
