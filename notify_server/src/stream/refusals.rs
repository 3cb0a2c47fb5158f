//! The answers to requests that get no stream.

use std::time::Duration;

use axum::http::StatusCode;
use fechatter_core::http::ApiError;

use super::limits::LimitReached;

/// The answer to more requests than a person may make.
pub(super) fn rate_limited(wait: Duration) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests")
        .retry_after(wait)
}

/// The answer when no further stream may be opened.
pub(super) fn refuse(limit: LimitReached) -> ApiError {
    let error = match limit {
        LimitReached::Person => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many open streams")
        }
        LimitReached::Server => ApiError::unavailable("too many open streams on this server"),
    };
    later(error)
}

/// Asks the client to come back after 3 to 10 s, chosen at random, so that not all come at once.
pub(super) fn later(error: ApiError) -> ApiError {
    error.retry_after(Duration::from_secs(rand::random_range(3..=10)))
}
