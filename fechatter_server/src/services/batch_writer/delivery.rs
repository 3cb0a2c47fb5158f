//! Writes a batch, and answers all callers in it.

use std::sync::Arc;
use std::time::Instant;

use ::metrics::histogram;
use fechatter_core::metrics;
use tracing::{error, warn};

use super::queue::{Item, Progress};
use crate::error::{AppError, Result};
use crate::models::message::write_batch::{Command, Locking, Outcome};

/// Writes batches, each in one commit.
pub(super) trait BatchExecutor: Clone + Send + Sync + 'static {
    /// Writes a batch. The outcomes are in the batch's order.
    ///
    /// # Errors
    /// Fails if nothing was written, or if it is unknown whether the batch was written.
    fn execute(
        &self,
        batch: Vec<Arc<Command>>,
        locking: Locking,
    ) -> impl Future<Output = Result<Vec<Outcome>>> + Send;
}

/// Writes a batch and answers its callers. Returns the commands whose logs are locked by others.
///
/// A command that the database rejects or does not finish in time, or that causes a panic, must not
/// fail the other commands: a failed batch is split into halves until that command is alone.
pub(super) async fn deliver(
    executor: &impl BatchExecutor,
    progress: &Progress,
    batch: Vec<Item>,
    locking: Locking,
) -> Vec<Item> {
    let mut deferred_items = Vec::new();
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        match attempt_twice(executor, &part, locking).await {
            Ok(outcomes) => {
                progress.note();
                for (item, outcome) in part.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Locked => deferred_items.push(item),
                        outcome => item.answer(Ok(outcome)),
                    }
                }
            }
            Err(error) if error.is_unavailable() && !error.is_cancelled() => {
                let commands = part.len();
                warn!(%error, commands, "it is unknown whether these commands were written");
                for item in part {
                    item.answer(Err(AppError::Busy));
                }
            }
            Err(error) => {
                let right = part.split_off(part.len() / 2);
                match (part.is_empty(), <[Item; 1]>::try_from(right)) {
                    (true, Ok([item])) => item.answer(Err(error)),
                    (_, right) => {
                        warn!(%error, "a batch failed; its halves are written separately");
                        parts.push(right.map_or_else(|right| right, Vec::from));
                        parts.push(part);
                    }
                }
            }
        }
    }
    deferred_items
}

/// Writes a batch, and retries once if it is unknown whether it was written. The keys of the
/// commands are the same, so that no command is carried out twice.
async fn attempt_twice(
    executor: &impl BatchExecutor,
    batch: &[Item],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    match attempt(executor, batch, locking).await {
        Err(error) if error.is_unavailable() && !error.is_cancelled() => {
            warn!(%error, commands = batch.len(), "retrying a batch with the same keys");
            attempt(executor, batch, locking).await
        }
        result => result,
    }
}

/// Writes in a separate task, so that a panic becomes an error.
async fn attempt(
    executor: &impl BatchExecutor,
    batch: &[Item],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    let began = Instant::now();
    let commands: Vec<_> = batch.iter().map(|item| Arc::clone(&item.command)).collect();
    let executor = executor.clone();
    let written = tokio::spawn(async move { executor.execute(commands, locking).await }).await;
    histogram!(metrics::BATCH_SECONDS).record(began.elapsed());
    histogram!(metrics::BATCH_COMMANDS).record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
    match written {
        Ok(Ok(outcomes)) if outcomes.len() != batch.len() => {
            Err(sqlx::Error::Protocol("the numbers of outcomes and commands differ".into()).into())
        }
        Ok(result) => result,
        Err(panic) => {
            error!(%panic, "writing a batch panicked");
            Err(panic.into())
        }
    }
}
