//! The operations port: whether a server lives, whether it may be sent requests, what it counts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::{ApiError, Shared, shared};
use crate::metrics::Metrics;

/// Asks something of the server when an operator does.
pub type Ask<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// What the operations port tells.
#[derive(Clone)]
pub struct Operations {
    /// Whether the server can serve right now.
    pub ready: Ask<bool>,
    /// Measures what is measured only when somebody looks.
    pub measure: Ask<()>,
    /// What has been counted.
    pub metrics: Metrics,
}

/// `/healthz` (the process lives), `/readyz` (it can serve) and `/metrics`.
pub fn operations(told: Operations) -> Router {
    let Operations { ready, measure, metrics } = told;
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
    let metrics = move || {
        let measured = measure();
        async move {
            measured.await;
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { StatusCode::NO_CONTENT }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    shared(router, &Shared { allowed_origins: Vec::new(), hsts: None })
}
