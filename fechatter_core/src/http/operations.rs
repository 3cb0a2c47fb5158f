//! The operations port: whether a server lives and whether it may be sent requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::{ApiError, Shared, shared};

/// Asks whether the server can serve right now.
pub type Ready = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// `/healthz` (the process lives) and `/readyz` (it can serve).
pub fn operations(ready: Ready) -> Router {
    let readyz = move || {
        let answer = ready();
        async move {
            if answer.await {
                Ok(StatusCode::NO_CONTENT)
            } else {
                Err(ApiError::unavailable("not ready"))
            }
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { StatusCode::NO_CONTENT }))
        .route("/readyz", get(readyz));
    shared(router, &Shared { allowed_origins: Vec::new(), https: false })
}
