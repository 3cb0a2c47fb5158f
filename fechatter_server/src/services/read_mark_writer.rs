//! Writes read marks in batches.
//!
//! People read far more often than they write, so the marks that arrive while a batch is being
//! committed form the next batch, as messages do. Marks are state, not events: their batches take no
//! lock of a log.

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use ::metrics::counter;
use fechatter_core::log::Log;
use fechatter_core::{ChatId, UserId, metrics};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use crate::error::{AppError, Result};
use crate::models::chat::read_mark::{self, MarkChange, MarkOutcome};

/// The maximum number of marks in a batch.
const BATCH: usize = 256;
/// The maximum number of marks that wait for a batch.
const MAX_WAITING: usize = 4_096;
/// The longest time that a caller waits for the outcome.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);
/// The time limit of a batch. The database itself cancels a statement after 5 s.
const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// Writes read marks in batches. Clones share one task, which ends after the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ReadMarkWriter(mpsc::Sender<Item>);

#[derive(Debug)]
struct Item {
    change: MarkChange,
    answer: oneshot::Sender<Result<MarkOutcome>>,
}

impl ReadMarkWriter {
    /// Starts the task.
    pub(crate) fn start(log: Log) -> Self {
        let (sender, arrivals) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(arrivals, log));
        Self(sender)
    }

    /// Moves a read mark, and returns when that is durable. Tells the person's streams if the mark
    /// has changed. A caller that disconnects does not stop it.
    ///
    /// # Errors
    /// Fails if the session has ended, the person is suspended, or the chat or the message is not
    /// theirs to see. Returns [`AppError::Busy`] if too many marks wait, or if there is no answer
    /// within 2.5 s; in the latter case the mark may have moved.
    pub(crate) async fn write(&self, change: MarkChange) -> Result<MarkOutcome> {
        let (answer, answered) = oneshot::channel();
        if self.0.try_send(Item { change, answer }).is_err() {
            counter!(metrics::COMMANDS_REFUSED, "reason" => "full").increment(1);
            return Err(AppError::Busy);
        }
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AppError::Busy),
        }
    }
}

async fn run(mut arrivals: mpsc::Receiver<Item>, log: Log) {
    let mut waiting = Vec::new();
    loop {
        let room = MAX_WAITING - waiting.len();
        if waiting.is_empty() && arrivals.recv_many(&mut waiting, room).await == 0 {
            return;
        }
        while waiting.len() < BATCH
            && let Ok(item) = arrivals.try_recv()
        {
            waiting.push(item);
        }
        let batch = next_batch(&mut waiting);
        // In a separate task, so that a panic ends this batch only.
        let (log, changes) = (log.clone(), batch.iter().map(|item| item.change).collect());
        let written = tokio::spawn(async move { write(&log, changes).await });
        let written = written.await.unwrap_or_else(|panic| Err(panic.into()));
        match written {
            Ok(outcomes) => {
                for (item, outcome) in batch.into_iter().zip(outcomes) {
                    let _ = item.answer.send(outcome);
                }
            }
            Err(error) => {
                warn!(%error, marks = batch.len(), "read marks could not be written");
                for item in batch {
                    let _ = item.answer.send(Err(AppError::Busy));
                }
            }
        }
    }
}

/// Takes the next batch, in which each person has at most one mark in a chat. The others stay.
fn next_batch(waiting: &mut Vec<Item>) -> Vec<Item> {
    let mut keys: HashSet<(ChatId, UserId)> = HashSet::new();
    let mut batch = Vec::new();
    for item in mem::take(waiting) {
        if item.answer.is_closed() {
            continue;
        }
        let key = (item.change.chat_id, item.change.actor.user_id());
        if batch.len() < BATCH && keys.insert(key) {
            batch.push(item);
        } else {
            waiting.push(item);
        }
    }
    batch
}

/// Writes a batch, and tells the people whose marks have changed.
async fn write(log: &Log, changes: Vec<MarkChange>) -> Result<Vec<Result<MarkOutcome>>> {
    let mut db = log.db().acquire().await?;
    let outcomes = timeout(WRITE_TIMEOUT, read_mark::write(&mut db, &changes)).await;
    let outcomes = outcomes.unwrap_or(Err(AppError::Busy))?;
    for (change, outcome) in changes.iter().zip(&outcomes) {
        if let Ok(MarkOutcome::Moved(moved)) = outcome {
            read_mark::publish(log, change.actor, *moved);
        }
    }
    Ok(outcomes)
}
