//! Writes messages, and changes to them, in batches: group commit.
//!
//! A disk can flush only a limited number of commits per second, but one commit can contain many
//! commands. While one batch is being committed, newly arrived commands form the next batch; a
//! batch is never delayed to fill it. The writer task runs on its own thread, because on the
//! request runtime it would queue behind thousands of other tasks under load. When no batch is in
//! flight, a command is written directly by a task on the request runtime. This saves two thread
//! switches and gives a single sender up to 20 % more throughput.
//!
//! The modules, in the order in which to read them: `queue` admits commands within limits;
//! `waiting` chooses the commands of the next batch; `delivery` writes a batch and answers its
//! callers; `connections` keeps the database connections.

mod connections;
mod delivery;
mod limits;
mod queue;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;

use std::fmt;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use ::metrics::counter;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::Log;
use fechatter_core::message::Message;
use fechatter_core::{MessageId, metrics};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::connections::Connections;
use self::delivery::BatchExecutor;
use self::limits::QUEUE_TIMEOUT;
use self::queue::{Item, MeanBatchTime, Progress, Queue};
use self::waiting::Waiting;
use crate::error::{AppError, Result};
use crate::models::chat::preference::PreferenceChange;
use crate::models::message::change::Change;
use crate::models::message::write_batch::{Command, Locking, Outcome};
use crate::models::message::{self, Outgoing, Sent};

/// The total time that a caller waits for the outcome of a command: slightly less than the request
/// timeout (10 s).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(9_800);

/// The longest time without a written batch while commands wait. Beyond it the writer is unhealthy.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves when all commands have been answered, after the last clone of the writer is dropped.
/// Resolves to an error if the task has failed.
pub(crate) type WriterEnded = oneshot::Receiver<()>;

/// Writes messages, and changes to messages, in batches. Clones share one task, which ends after
/// the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct BatchWriter {
    queue: Arc<Queue>,
    log: Log,
    direct_path: DirectPath,
}

/// A direct write. It resolves to the command if another writer has locked the log, and otherwise
/// to an empty list.
type DirectWrite = Pin<Box<dyn Future<Output = Vec<Item>> + Send>>;

/// Writes a command on the request runtime if no batch is in flight.
#[derive(Clone)]
struct DirectPath {
    /// Its only permit is held while a batch is in flight.
    batch_slot: Arc<Semaphore>,
    /// True if the last batch of the task had several commands. Direct writes are then disabled, so
    /// that the next batch also groups several commands.
    last_batch_had_several: Arc<AtomicBool>,
    write: Arc<dyn Fn(Item) -> DirectWrite + Send + Sync>,
}

impl fmt::Debug for DirectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectPath").field("batch_slot", &self.batch_slot).finish_non_exhaustive()
    }
}

impl DirectPath {
    fn new(
        executor: impl BatchExecutor,
        mean_batch_time: MeanBatchTime,
        progress: Progress,
    ) -> Self {
        let write = move |item| -> DirectWrite {
            let (executor, mean_batch_time, progress) =
                (executor.clone(), mean_batch_time.clone(), progress.clone());
            Box::pin(async move {
                let began = Instant::now();
                let deferred_items =
                    delivery::deliver(&executor, &progress, vec![item], Locking::Skip).await;
                mean_batch_time.note(began.elapsed());
                deferred_items
            })
        };
        // Only one batch is written at a time, besides the batch that waits for a locked log.
        let batch_slot = Arc::new(Semaphore::new(1));
        Self { batch_slot, last_batch_had_several: Arc::default(), write: Arc::new(write) }
    }

    /// Returns the permit to write a command now, if it is available.
    fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        if self.last_batch_had_several.load(Ordering::Relaxed) {
            return None;
        }
        // Tokio's semaphore is first-in, first-out: while the writer task waits for the permit,
        // this fails.
        Arc::clone(&self.batch_slot).try_acquire_owned().ok()
    }
}

/// Reports the health of a writer, without keeping it alive.
#[derive(Debug, Clone)]
pub(crate) struct Health(Weak<Queue>);

impl Health {
    /// Returns false if the task has failed, or if commands wait and no batch was written for 10 s.
    /// Returns true after the last clone of the writer is dropped: the task then ends as intended.
    pub(crate) fn is_healthy(&self) -> bool {
        self.0.upgrade().is_none_or(|queue| queue.time_without_progress() < STALL_TIMEOUT)
    }
}

impl BatchWriter {
    /// Starts the task, on its own thread.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub(crate) fn start(log: Log) -> io::Result<(Self, WriterEnded)> {
        let [connections, direct_connections] = [(); 2].map(|()| Connections::new(log.clone()));
        Self::start_with(log, connections, direct_connections)
    }

    /// Starts the task, which writes batches with `executor`. Direct writes use `direct_executor`.
    fn start_with(
        log: Log,
        executor: impl BatchExecutor,
        direct_executor: impl BatchExecutor,
    ) -> io::Result<(Self, WriterEnded)> {
        let (sender, arrivals) = unbounded_channel();
        let mean_batch_time = MeanBatchTime::default();
        let queue = Arc::new(Queue::new(sender, mean_batch_time.clone()));
        let progress = queue.progress();
        let direct_path =
            DirectPath::new(direct_executor, mean_batch_time.clone(), progress.clone());
        let task_direct_path = direct_path.clone();
        let (ended_tx, ended_rx) = oneshot::channel();
        let (started_tx, started_rx) = mpsc::channel();
        // A runtime must not be dropped inside another one, so it is created on its own thread.
        thread::Builder::new().name("batches".into()).spawn(move || {
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = started_tx.send(Ok(()));
                    runtime.block_on(run(
                        arrivals,
                        executor,
                        &task_direct_path,
                        (mean_batch_time, progress),
                    ));
                    let _ = ended_tx.send(());
                }
                Err(error) => _ = started_tx.send(Err(error)),
            }
        })?;
        started_rx.recv().map_err(io::Error::other)??;
        Ok((Self { queue, log, direct_path }, ended_rx))
    }

    /// Returns a health check that does not keep the task from ending.
    pub(crate) fn health(&self) -> Health {
        Health(Arc::downgrade(&self.queue))
    }

    /// Sends a message, and returns when it is durable. A caller that disconnects does not stop it.
    ///
    /// # Errors
    /// Fails if the message is refused. Returns [`AppError::Busy`] if the queue is full or its
    /// estimated waiting time exceeds 1 s, if no batch takes the message within 2.5 s, or if there
    /// is no answer within 9.8 s. In the last case the message may have been sent.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Sent> {
        let command = Arc::new(Command::Send(outgoing));
        let outcome = self.execute(&command).await?;
        let Command::Send(outgoing) = Arc::unwrap_or_clone(command) else {
            return Err(unexpected_outcome());
        };
        match outcome {
            Outcome::Sent { id, .. } if outgoing.has_mentions() || outgoing.has_files() => {
                self.find(&outgoing, id).await.map(Sent::New)
            }
            Outcome::Sent { id, seq, created_at } => {
                Ok(Sent::New(outgoing.into_message(id, seq, created_at)))
            }
            Outcome::Replayed(id) => {
                let message = self.find(&outgoing, id).await?;
                let event = EphemeralEvent::DuplicateMessageAttempted {
                    idempotency_key: message.idempotency_key,
                    chat_id: message.chat_id,
                    sender_id: message.sender_id,
                    message_id: message.id,
                };
                let sender = outgoing.actor;
                self.log.send_ephemeral(sender.workspace_id(), sender.user_id(), event);
                Ok(Sent::Replayed(message))
            }
            outcome => Err(failure(outcome)),
        }
    }

    async fn find(&self, outgoing: &Outgoing, id: MessageId) -> Result<Message> {
        message::find(self.log.db(), outgoing.actor.user_id(), outgoing.chat_id, id).await
    }

    /// Applies a change (an edit, a deletion or a reaction) to a message, and returns when it is
    /// durable. If the message already has the requested state, nothing is written.
    ///
    /// # Errors
    /// The same as for [`send`](Self::send).
    pub(crate) async fn change(&self, change: Change) -> Result<()> {
        match self.execute(&Arc::new(Command::Change(change))).await? {
            Outcome::Changed { .. } | Outcome::Unchanged { .. } => Ok(()),
            outcome => Err(failure(outcome)),
        }
    }

    /// Changes a person's preferences, and returns when the change is durable.
    ///
    /// # Errors
    /// The same as for [`send`](Self::send).
    pub(crate) async fn prefer(&self, change: PreferenceChange) -> Result<()> {
        match self.execute(&Arc::new(Command::Prefer(change))).await? {
            Outcome::Changed { .. } | Outcome::Unchanged { .. } => Ok(()),
            outcome => Err(failure(outcome)),
        }
    }

    /// Queues or writes a command, and waits for its outcome.
    async fn execute(&self, command: &Arc<Command>) -> Result<Outcome> {
        let Some((item, mut receipt)) = self.queue.reserve(Arc::clone(command)) else {
            counter!(metrics::COMMANDS_REFUSED, "reason" => "full").increment(1);
            return Err(AppError::Busy);
        };
        match self.direct_path.try_permit() {
            Some(permit) => self.write_directly(item, permit),
            None => self.queue.hand_over(item),
        }
        match timeout(QUEUE_TIMEOUT, &mut receipt.answer).await {
            Ok(answer) => return answer.unwrap_or(Err(AppError::Busy)),
            Err(_) if receipt.state.try_cancel() => {
                counter!(metrics::COMMANDS_REFUSED, "reason" => "late").increment(1);
                return Err(AppError::Busy);
            }
            Err(_) => {}
        }
        match timeout(ANSWER_TIMEOUT.saturating_sub(QUEUE_TIMEOUT), receipt.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AppError::Busy),
        }
    }

    /// Writes a command in a separate task, so that a caller that disconnects does not stop it.
    fn write_directly(&self, item: Item, permit: OwnedSemaphorePermit) {
        let (direct_path, queue) = (self.direct_path.clone(), Arc::clone(&self.queue));
        tokio::spawn(async move {
            if item.state.try_start() {
                for item in (direct_path.write)(item).await {
                    item.state.requeue();
                    queue.hand_over(item);
                }
            }
            drop(permit);
        });
    }
}

/// Returns the error of a command that was not carried out.
fn failure(outcome: Outcome) -> AppError {
    match outcome {
        Outcome::Refused(refusal) => refusal.into(),
        Outcome::Locked => AppError::Busy,
        _ => unexpected_outcome(),
    }
}

fn unexpected_outcome() -> AppError {
    sqlx::Error::Protocol("the outcome does not match the command".into()).into()
}

/// Writes batches until all senders of commands are dropped and all commands are answered.
async fn run(
    mut arrivals: UnboundedReceiver<Item>,
    executor: impl BatchExecutor,
    direct_path: &DirectPath,
    (mean_batch_time, progress): (MeanBatchTime, Progress),
) {
    let mut waiting = Waiting::default();
    // A separate batch with the commands of one workspace whose log is locked by another
    // transaction. It waits for that lock without blocking the other workspaces.
    let mut lock_waiting: Option<JoinHandle<Vec<Item>>> = None;
    let mut closed = false;
    // The permit is kept until there is nothing left to write.
    let mut permit = None;
    loop {
        while let Ok(item) = arrivals.try_recv() {
            waiting.push(item);
        }
        if let Some(ended) = lock_waiting.take_if(|lock_waiting| lock_waiting.is_finished()) {
            waiting.finish_lock_waiting(ended.await.unwrap_or_default());
        }
        if let Some(batch) = waiting.lock_waiting_batch() {
            let (executor, progress) = (executor.clone(), progress.clone());
            let deliver =
                async move { delivery::deliver(&executor, &progress, batch, Locking::Wait).await };
            lock_waiting = Some(tokio::spawn(deliver));
        }
        if permit.is_none() && !waiting.is_empty() {
            permit = direct_path.batch_slot.acquire().await.ok();
            while let Ok(item) = arrivals.try_recv() {
                waiting.push(item);
            }
        }
        let batch = waiting.batch();
        if !batch.is_empty() {
            direct_path.last_batch_had_several.store(batch.len() > 1, Ordering::Relaxed);
            let began = Instant::now();
            let deferred_items =
                delivery::deliver(&executor, &progress, batch, Locking::Skip).await;
            mean_batch_time.note(began.elapsed());
            waiting.put_back(deferred_items);
            continue;
        }
        permit = None;
        if closed && lock_waiting.is_none() && waiting.is_empty() {
            return;
        }
        let retry = waiting.retry_at();
        tokio::select! {
            arrival = arrivals.recv(), if !closed => match arrival {
                Some(item) => waiting.push(item),
                None => closed = true,
            },
            deferred_items = join_lock_waiting_batch(&mut lock_waiting) => {
                waiting.finish_lock_waiting(deferred_items);
            }
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
        }
    }
}

/// Waits for the end of the lock-waiting batch, and returns the commands that it could not carry
/// out. Never resolves if there is no such batch.
async fn join_lock_waiting_batch(lock_waiting: &mut Option<JoinHandle<Vec<Item>>>) -> Vec<Item> {
    match lock_waiting {
        Some(running) => {
            let ended = running.await;
            *lock_waiting = None;
            ended.unwrap_or_default()
        }
        None => pending().await,
    }
}
