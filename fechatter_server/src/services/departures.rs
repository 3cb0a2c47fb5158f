//! Ends the memberships of people who have left their workspace, in small batches.
//!
//! The first commit of a departure has taken away all access; this task only ends the memberships.
//! Several servers may run it at the same time, and continue the departures of each other.

use std::sync::Arc;
use std::time::Duration;

use fechatter_core::log::Log;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Result;
use crate::models::departure::{self, PAUSE};

/// The interval of checks for departures that another server, or an earlier run, has not finished.
const LOOK: Duration = Duration::from_secs(5);
/// The delay before a retry of a departure that has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Wakes the task when a person leaves their workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Departures(Arc<Notify>);

impl Departures {
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Continues all departures until the shutdown.
    pub(crate) async fn run(self, log: Log, shutdown: CancellationToken) {
        let departures = async {
            loop {
                let wait = go_on(&log).await.unwrap_or_else(|error| {
                    warn!(%error, "departures could not be looked up; trying again");
                    LOOK
                });
                // A new departure begins at once, without the pause of the others.
                let _ = timeout(wait, self.0.notified()).await;
            }
        };
        tokio::select! {
            () = departures => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Writes the next batch of each departure that is due. Returns the time to wait before the next
/// call.
async fn go_on(log: &Log) -> Result<Duration> {
    let unfinished = departure::unfinished(log.db()).await?;
    for departure in unfinished.iter().filter(|departure| departure.is_due) {
        // A departure that fails must not stop the others.
        if let Err(error) = departure::go_on(log, departure).await {
            warn!(%error, user_id = %departure.user_id, "a departure could not go on; trying again");
            departure::put_off(log.db(), departure, AGAIN).await?;
        }
    }
    Ok(if unfinished.is_empty() { LOOK } else { PAUSE })
}
