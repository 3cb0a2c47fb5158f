//! Ends the memberships of people who have left their workspace, in small batches.
//!
//! The first commit of an offboarding has ended all access. This task only ends the memberships.
//! Several servers may run it at the same time, and continue the offboardings of each other.

use std::sync::Arc;
use std::time::Duration;

use fechatter_core::log::Log;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Result;
use crate::models::workspace::offboarding::{self, PAUSE};

/// The interval of checks for offboardings that another server, or an earlier run, did not finish.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The delay before a retry of an offboarding that has failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Wakes the task when a person leaves their workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offboardings(Arc<Notify>);

impl Offboardings {
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Continues all offboardings until the shutdown.
    pub(crate) async fn run(self, log: Log, shutdown: CancellationToken) {
        let offboardings = async {
            loop {
                let wait = write_due_batches(&log).await.unwrap_or_else(|error| {
                    warn!(%error, "unfinished offboardings could not be read; trying again");
                    CHECK_INTERVAL
                });
                // A new offboarding begins at once, without the pause of the others.
                let _ = timeout(wait, self.0.notified()).await;
            }
        };
        tokio::select! {
            () = offboardings => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Writes the next batch of each offboarding that is due. Returns the time to wait before the next
/// call.
async fn write_due_batches(log: &Log) -> Result<Duration> {
    let unfinished = offboarding::unfinished(log.db()).await?;
    for offboarding in unfinished.iter().filter(|offboarding| offboarding.is_due) {
        // An offboarding that fails must not stop the others.
        if let Err(error) = offboarding::end_next_memberships(log, offboarding).await {
            let user_id = offboarding.user_id;
            warn!(%error, %user_id, "a batch of an offboarding could not be written; trying again");
            offboarding::postpone(log.db(), offboarding, RETRY_DELAY).await?;
        }
    }
    Ok(if unfinished.is_empty() { CHECK_INTERVAL } else { PAUSE })
}
