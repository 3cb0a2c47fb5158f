//! The operations port: liveness, readiness and metrics.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tracing::{info, warn};

use super::error::ApiError;
use super::layers::{Shared, shared};
use crate::metrics::Metrics;

/// A function that queries the server when an operator asks.
pub type Ask<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// The functions behind the operations port.
#[derive(Clone)]
pub struct Operations {
    /// Checks that the server can serve requests now; the error is the reason why not.
    pub ready: Ask<Result<(), &'static str>>,
    /// Sets the gauges that are measured on demand only.
    pub measure: Ask<()>,
    /// The metrics of this process.
    pub metrics: Metrics,
}

/// `/healthz` (the process lives), `/readyz` (it can serve) and `/metrics`.
pub fn operations(told: Operations) -> Router {
    let Operations { ready, measure, metrics } = told;
    let said = Arc::new(Mutex::new(None));
    let readyz = move || {
        let (answer, said) = (ready(), Arc::clone(&said));
        async move {
            let why = answer.await.err();
            let before =
                mem::replace(&mut *said.lock().unwrap_or_else(PoisonError::into_inner), why);
            match why {
                Some(why) if before != Some(why) => warn!(why, "not ready"),
                None if before.is_some() => info!("ready again"),
                _ => {}
            }
            match why {
                Some(why) => Err(ApiError::unavailable(why)),
                None => Ok(StatusCode::NO_CONTENT),
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
    shared(router, &Shared { allowed_origins: Vec::new(), hsts: None, is_for_probes: true })
}
