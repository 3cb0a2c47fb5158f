//! Ends the memberships of people who have left their workspace, in small batches.
//!
//! The first commit of a departure has taken away all access; this only makes the chats agree with it. Several
//! servers may do it at the same time, and go on with what another one has left.

use std::sync::Arc;
use std::time::Duration;

use fechatter_core::log::Log;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::Result;
use crate::models::departure::{self, PAUSE};

/// How soon to look for what another server, or an earlier run, has left.
const LOOK: Duration = Duration::from_secs(5);
/// How soon to try a departure again that has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells the task that somebody is leaving their workspace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Departures(Arc<Notify>);

impl Departures {
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Goes on with all departures until the end of the server.
    pub(crate) async fn run(self, log: Log, shutdown: CancellationToken) {
        let departures = async {
            loop {
                let wait = go_on(&log).await.unwrap_or_else(|error| {
                    warn!(%error, "departures could not be looked up; trying again");
                    LOOK
                });
                // A departure that begins in the meantime does not wait for the pause of others.
                let _ = timeout(wait, self.0.notified()).await;
            }
        };
        tokio::select! {
            () = departures => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Makes the next batch of each departure that is due; the answer is how long to wait before the next ones.
async fn go_on(log: &Log) -> Result<Duration> {
    let unfinished = departure::unfinished(log.db()).await?;
    for departure in unfinished.iter().filter(|departure| departure.is_due) {
        // A departure that fails must not keep the others.
        if let Err(error) = departure::go_on(log, departure).await {
            warn!(%error, user_id = %departure.user_id, "a departure could not go on; trying again");
            departure::put_off(log.db(), departure, AGAIN).await?;
        }
    }
    Ok(if unfinished.is_empty() { LOOK } else { PAUSE })
}
