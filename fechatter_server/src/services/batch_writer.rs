//! The one way in for messages and other small changes.
//!
//! A disk can promise only so many commits a second, and one commit can hold many commands. So one
//! task writes them all: while a batch is on its way to the disk, the next one gathers. Nothing waits
//! for a batch to fill. The task has a thread of its own: among those
//! of the requests, each of its steps would come after thousands of others in the very hour when much
//! is to be written. A command that finds nothing in flight is written by the threads of the requests: a lone
//! sender, who would else wait for two changes of thread, sends up to a fifth more.
//!
//! In reading order: `queue` lets commands in, and refuses more than memory is meant to hold;
//! `waiting` says which of them make the next batch; `delivery` writes a batch and answers everybody
//! in it; `connections` hold the database's connections.

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
use fechatter_core::metrics;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::connections::Connections;
use self::delivery::Write;
use self::limits::UNTIL_BATCH;
use self::queue::{Item, Pace, Progress, Queue};
use self::waiting::Waiting;
use crate::error::{AppError, Result};
use crate::models::message::{self, Outgoing, Sent};
use crate::models::reaction::NewReaction;
use crate::models::write_batch::{Command, Locking, Outcome};

/// How long its caller waits for what became of it: a little less than a request may take.
const UNTIL_ANSWER: Duration = Duration::from_millis(9_800);

/// For how long the writer may write nothing although something waits.
const STALLED: Duration = Duration::from_secs(10);

/// Resolves when everything that was handed in has been answered, after the last clone of the writer
/// is gone; breaks off if the task has failed.
pub(crate) type Ended = oneshot::Receiver<()>;

/// Writes small changes; clones share one task, which ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct BatchWriter {
    queue: Arc<Queue>,
    log: Log,
    direct: DirectPath,
}

/// Resolves to the command if another writer holds its log.
type Unwritten = Pin<Box<dyn Future<Output = Vec<Item>> + Send>>;

/// Writes a command that finds nothing in flight, on the threads of the requests.
#[derive(Clone)]
struct DirectPath {
    in_flight: Arc<Semaphore>,
    /// True if the task's last batch had several commands: the next one will, too, if nobody hurries ahead.
    is_busy: Arc<AtomicBool>,
    write: Arc<dyn Fn(Item) -> Unwritten + Send + Sync>,
}

impl fmt::Debug for DirectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectPath").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl DirectPath {
    fn new(write: impl Write, pace: Pace, progress: Progress) -> Self {
        let write = move |item| -> Unwritten {
            let (write, pace, progress) = (write.clone(), pace.clone(), progress.clone());
            Box::pin(async move {
                let began = Instant::now();
                let held_up = delivery::deliver(&write, &progress, vec![item], Locking::Skip).await;
                pace.note(began.elapsed());
                held_up
            })
        };
        // One batch at a time, besides the one that waits for a log.
        let in_flight = Arc::new(Semaphore::new(1));
        Self { in_flight, is_busy: Arc::default(), write: Arc::new(write) }
    }

    /// The permit to write a command now, if there is one.
    fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        if self.is_busy.load(Ordering::Relaxed) {
            return None;
        }
        // While the task waits for its turn, nobody else is given one.
        Arc::clone(&self.in_flight).try_acquire_owned().ok()
    }
}

/// Watches a writer.
#[derive(Debug, Clone)]
pub(crate) struct Health(Weak<Queue>);

impl Health {
    /// Returns true if the task runs and writes the commands that wait.
    pub(crate) fn is_good(&self) -> bool {
        self.0.upgrade().is_none_or(|queue| queue.stalled() < STALLED)
    }
}

impl BatchWriter {
    /// Starts the task, on its thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(crate) fn start(log: Log) -> io::Result<(Self, Ended)> {
        let [connections, of_requests] = [(); 2].map(|()| Connections::new(log.clone()));
        Self::start_with(log, connections, of_requests)
    }

    /// The same with other ways to write a batch: those of the task, and those of the requests.
    fn start_with(log: Log, write: impl Write, direct: impl Write) -> io::Result<(Self, Ended)> {
        let (sender, arrivals) = unbounded_channel();
        let pace = Pace::default();
        let queue = Arc::new(Queue::new(sender, pace.clone()));
        let progress = queue.progress();
        let direct = DirectPath::new(direct, pace.clone(), progress.clone());
        let for_task = direct.clone();
        let (ends, ended) = oneshot::channel();
        let (begins, begun) = mpsc::channel();
        // A runtime can only be dropped outside of another one: it is made where it stays.
        thread::Builder::new().name("batches".into()).spawn(move || {
            match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = begins.send(Ok(()));
                    runtime.block_on(run(arrivals, write, &for_task, (pace, progress)));
                    let _ = ends.send(());
                }
                Err(error) => _ = begins.send(Err(error)),
            }
        })?;
        begun.recv().map_err(io::Error::other)??;
        Ok((Self { queue, log, direct }, ended))
    }

    /// Tells whether commands are being written, without keeping the task from ending.
    pub(crate) fn health(&self) -> Health {
        Health(Arc::downgrade(&self.queue))
    }

    /// Sends a message; answers when it is durable. A caller who goes away does not stop it.
    ///
    /// # Errors
    /// When it is refused, or with [`AppError::Busy`] when there is no room for it or it would wait
    /// more than 1 s, no batch within 2.5 s, or no answer within 9.8 s. In the last case it may have been sent.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Sent> {
        let command = Arc::new(Command::Send(outgoing));
        let outcome = self.outcome(&command).await?;
        let Command::Send(outgoing) = Arc::unwrap_or_clone(command) else {
            return Err(mixed_up());
        };
        match outcome {
            Outcome::Sent { id, seq, created_at } => {
                Ok(Sent::New(outgoing.into_message(id, seq, created_at)))
            }
            Outcome::Replayed(id) => {
                let message = message::find(self.log.db(), outgoing.chat_id, id).await?;
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

    /// Adds a reaction; answers how many people have added its emoji when that is durable. To add it
    /// again changes nothing.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    #[cfg_attr(not(test), expect(dead_code, reason = "no route adds a reaction yet"))]
    pub(crate) async fn add_reaction(&self, reaction: NewReaction) -> Result<i64> {
        match self.outcome(&Arc::new(Command::AddReaction(reaction))).await? {
            Outcome::ReactionAdded { count } | Outcome::ReactionUnchanged { count } => Ok(count),
            outcome => Err(failure(outcome)),
        }
    }

    async fn outcome(&self, command: &Arc<Command>) -> Result<Outcome> {
        let Some((item, mut receipt)) = self.queue.reserve(Arc::clone(command)) else {
            counter!(metrics::COMMANDS_REFUSED, "reason" => "full").increment(1);
            return Err(AppError::Busy);
        };
        match self.direct.try_permit() {
            Some(permit) => self.write_directly(item, permit),
            None => self.queue.hand_over(item),
        }
        match timeout(UNTIL_BATCH, &mut receipt.answer).await {
            Ok(answer) => return answer.unwrap_or(Err(AppError::Busy)),
            Err(_) if receipt.claim.withdraw() => {
                counter!(metrics::COMMANDS_REFUSED, "reason" => "late").increment(1);
                return Err(AppError::Busy);
            }
            Err(_) => {}
        }
        match timeout(UNTIL_ANSWER.saturating_sub(UNTIL_BATCH), receipt.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AppError::Busy),
        }
    }

    /// Writes a command in a task of its own: a caller who goes away does not stop it.
    fn write_directly(&self, item: Item, permit: OwnedSemaphorePermit) {
        let (direct, queue) = (self.direct.clone(), Arc::clone(&self.queue));
        tokio::spawn(async move {
            if item.claim.take() {
                for held_up in (direct.write)(item).await {
                    held_up.claim.put_back();
                    queue.hand_over(held_up);
                }
            }
            drop(permit);
        });
    }
}

/// The error of a command that came to nothing.
fn failure(outcome: Outcome) -> AppError {
    match outcome {
        Outcome::Refused(refusal) => refusal.into(),
        Outcome::Locked => AppError::Busy,
        _ => mixed_up(),
    }
}

fn mixed_up() -> AppError {
    sqlx::Error::Protocol("the outcome of another kind of command".into()).into()
}

/// Writes batch after batch, until nobody can hand in a command any more.
async fn run(
    mut arrivals: UnboundedReceiver<Item>,
    write: impl Write,
    direct: &DirectPath,
    (pace, progress): (Pace, Progress),
) {
    let mut waiting = Waiting::default();
    // Commands of one workspace, whose log others hold, wait for it here and keep nobody waiting.
    let mut patient: Option<JoinHandle<Vec<Item>>> = None;
    let mut closed = false;
    // Kept for as long as there is something to write.
    let mut permit = None;
    loop {
        while let Ok(item) = arrivals.try_recv() {
            waiting.push(item);
        }
        if let Some(ended) = patient.take_if(|patient| patient.is_finished()) {
            waiting.end_patience(ended.await.unwrap_or_default());
        }
        if let Some(batch) = waiting.patient_batch() {
            let (write, progress) = (write.clone(), progress.clone());
            let deliver =
                async move { delivery::deliver(&write, &progress, batch, Locking::Wait).await };
            patient = Some(tokio::spawn(deliver));
        }
        if permit.is_none() && !waiting.is_empty() {
            permit = direct.in_flight.acquire().await.ok();
            while let Ok(item) = arrivals.try_recv() {
                waiting.push(item);
            }
        }
        let batch = waiting.batch();
        if !batch.is_empty() {
            direct.is_busy.store(batch.len() > 1, Ordering::Relaxed);
            let began = Instant::now();
            let held_up = delivery::deliver(&write, &progress, batch, Locking::Skip).await;
            pace.note(began.elapsed());
            waiting.put_back(held_up);
            continue;
        }
        permit = None;
        if closed && patient.is_none() && waiting.is_empty() {
            return;
        }
        let retry = waiting.retry_at();
        tokio::select! {
            arrival = arrivals.recv(), if !closed => match arrival {
                Some(item) => waiting.push(item),
                None => closed = true,
            },
            ended = ended(&mut patient) => waiting.end_patience(ended),
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
        }
    }
}

/// The commands that a patient batch could not carry out, once there is one and it has ended.
async fn ended(patient: &mut Option<JoinHandle<Vec<Item>>>) -> Vec<Item> {
    match patient {
        Some(running) => {
            let ended = running.await;
            *patient = None;
            ended.unwrap_or_default()
        }
        None => pending().await,
    }
}
