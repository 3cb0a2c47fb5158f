//! How much one person may ask of this server: a token bucket each, in memory.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fechatter_core::UserId;
use fechatter_core::config::HttpConfig;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use tokio_util::sync::CancellationToken;

use crate::error::{AppError, Result};

/// The buckets of everybody who has called lately.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits(Arc<DefaultKeyedRateLimiter<UserId>>);

impl RequestLimits {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        let per_second = NonZeroU32::new(config.requests_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(config.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self(Arc::new(DefaultKeyedRateLimiter::keyed(quota)))
    }

    /// Takes one request from the person's bucket.
    pub(crate) fn take(&self, user_id: UserId) -> Result<()> {
        self.0.check_key(&user_id).map_err(|early| {
            AppError::RateLimited(early.wait_time_from(DefaultClock::default().now()))
        })
    }

    /// Forgets full buckets now and then, until the end of the server.
    pub(crate) async fn forget_idle(self, shutdown: CancellationToken) {
        let mut minutes = tokio::time::interval(Duration::from_mins(1));
        loop {
            tokio::select! {
                _ = minutes.tick() => self.0.retain_recent(),
                () = shutdown.cancelled() => return,
            }
        }
    }
}
