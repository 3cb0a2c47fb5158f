//! The queue of admitted commands, with its limits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fechatter_core::WorkspaceId;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::limits::{BATCH_BYTES, BATCH_COMMANDS};
use crate::error::Result;
use crate::models::message::write_batch::{Command, Outcome};

/// The maximum number of commands that wait for their answers.
const MAX_COMMANDS: usize = 4_096;
/// The maximum total size of the texts of these commands, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The divisor of the queue's limits that gives the limits of one workspace: 2 means one half. A
/// workspace whose log stays locked must leave room in the queue for the others.
const WORKSPACE_SHARE_DIVISOR: u32 = 2;

/// The maximum estimated waiting time in the queue. A command that would wait longer, at the
/// current write speed, is rejected immediately. The limit for one workspace is this limit divided
/// by [`WORKSPACE_SHARE_DIVISOR`].
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Admits commands as long as there is room.
#[derive(Debug)]
pub(super) struct Queue {
    budget: Arc<Mutex<Budget>>,
    mean_batch_time: MeanBatchTime,
    arrivals: UnboundedSender<Item>,
}

/// The moving average of the time per batch, in microseconds. Clones share it.
#[derive(Debug, Default, Clone)]
pub(super) struct MeanBatchTime(Arc<AtomicU64>);

/// Records that a batch was written.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Budget>>);

/// A command, from its admission until its answer.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) command: Arc<Command>,
    pub(super) state: Arc<CommandState>,
    pub(super) arrived: Instant,
    answer: oneshot::Sender<Result<Outcome>>,
    _slot: QueueSlot,
}

/// The caller's part of a queued command.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) state: Arc<CommandState>,
    /// Resolves to an error if the writer task has failed.
    pub(super) answer: oneshot::Receiver<Result<Outcome>>,
}

/// The state of a command: waiting, taken by a batch, or cancelled by its caller. A command that a
/// batch has taken can no longer be cancelled.
#[derive(Debug, Default)]
pub(super) struct CommandState(AtomicU8);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const CANCELLED: u8 = 2;

/// The load of all commands that wait for their answers.
#[derive(Debug)]
struct Budget {
    all: Load,
    of_workspaces: HashMap<WorkspaceId, Load>,
    /// The time of the last written batch, or of the first command that was queued into an empty
    /// queue, whichever is later.
    last_progress: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { all: Load::default(), of_workspaces: HashMap::new(), last_progress: Instant::now() }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    commands: usize,
    bytes: usize,
}

/// A command's part of the budget, which it returns when dropped.
#[derive(Debug)]
struct QueueSlot {
    budget: Arc<Mutex<Budget>>,
    workspace_id: WorkspaceId,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(arrivals: UnboundedSender<Item>, mean_batch_time: MeanBatchTime) -> Self {
        Self { budget: Arc::default(), mean_batch_time, arrivals }
    }

    /// Returns the time since the last written batch, or zero if no command waits, or
    /// [`Duration::MAX`] if the writer task has ended.
    pub(super) fn time_without_progress(&self) -> Duration {
        if self.arrivals.is_closed() {
            return Duration::MAX;
        }
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.all.commands == 0 { Duration::ZERO } else { budget.last_progress.elapsed() }
    }

    /// Returns the handle that records the writer's progress.
    pub(super) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.budget))
    }

    /// Admits a command, if there is room. The caller then writes it, or [hands it
    /// over](Self::hand_over).
    pub(super) fn reserve(&self, command: Arc<Command>) -> Option<(Item, Receipt)> {
        let workspace_id = command.actor().workspace_id();
        let slot =
            QueueSlot::take(&self.budget, workspace_id, command.bytes(), &self.mean_batch_time)?;
        let (answer, answered) = oneshot::channel();
        let state = Arc::<CommandState>::default();
        let receipt = Receipt { state: Arc::clone(&state), answer: answered };
        let item = Item { command, state, arrived: Instant::now(), answer, _slot: slot };
        Some((item, receipt))
    }

    /// Sends a command to the writer task. If the task has failed, the item is dropped and its
    /// caller gets `AppError::Busy`.
    pub(super) fn hand_over(&self, item: Item) {
        let _ = self.arrivals.send(item);
    }
}

impl Progress {
    /// Records that the database has executed a batch, even if it has refused its commands.
    pub(super) fn note(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_progress = Instant::now();
    }
}

impl MeanBatchTime {
    /// Adds the duration of a batch to the moving average.
    pub(super) fn note(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mean = self.0.load(Ordering::Relaxed);
        self.0.store(mean - mean / 4 + micros / 4, Ordering::Relaxed);
    }

    /// Estimates the time to write the full batches in the queue. Commands that do not fill a batch
    /// are always admitted, so that the mean batch time can be measured again.
    fn estimated_wait(&self, load: Load) -> Duration {
        let batches = load.commands / BATCH_COMMANDS;
        let batches = batches.max(load.bytes / BATCH_BYTES);
        let batches = u32::try_from(batches).unwrap_or(u32::MAX);
        Duration::from_micros(self.0.load(Ordering::Relaxed)).saturating_mul(batches)
    }
}

impl Item {
    /// Sends the result to the caller, who may have stopped waiting.
    pub(super) fn answer(self, answer: Result<Outcome>) {
        let _ = self.answer.send(answer);
    }

    pub(super) fn workspace_id(&self) -> WorkspaceId {
        self.command.actor().workspace_id()
    }
}

impl CommandState {
    /// Takes the command into a batch. Returns false if the caller has cancelled it.
    pub(super) fn try_start(&self) -> bool {
        self.change(WAITING, STARTED)
    }

    /// Returns the command to the queue after a batch could not carry it out.
    pub(super) fn requeue(&self) {
        self.change(STARTED, WAITING);
    }

    /// Cancels the command for the caller. Returns false if a batch has taken it.
    pub(super) fn try_cancel(&self) -> bool {
        self.change(WAITING, CANCELLED)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CANCELLED
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Load {
    /// Returns the load with one more command of this many bytes, if it is within the limits.
    fn with(self, bytes: usize, divisor: u32) -> Option<Self> {
        let load = Self { commands: self.commands + 1, bytes: self.bytes + bytes };
        let divisor = divisor as usize;
        let fits = load.commands <= MAX_COMMANDS / divisor && load.bytes <= MAX_BYTES / divisor;
        fits.then_some(load)
    }

    fn without(self, bytes: usize) -> Self {
        Self { commands: self.commands - 1, bytes: self.bytes - bytes }
    }
}

impl QueueSlot {
    fn take(
        budget: &Arc<Mutex<Budget>>,
        workspace_id: WorkspaceId,
        bytes: usize,
        mean_batch_time: &MeanBatchTime,
    ) -> Option<Self> {
        let mut guard = budget.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace_load = guard.of_workspaces.get(&workspace_id).copied().unwrap_or_default();
        let exceeds_max_wait =
            |load, divisor: u32| mean_batch_time.estimated_wait(load) > MAX_WAIT / divisor;
        if exceeds_max_wait(guard.all, 1)
            || exceeds_max_wait(workspace_load, WORKSPACE_SHARE_DIVISOR)
        {
            return None;
        }
        let all = guard.all.with(bytes, 1)?;
        if guard.all.commands == 0 {
            guard.last_progress = Instant::now();
        }
        guard
            .of_workspaces
            .insert(workspace_id, workspace_load.with(bytes, WORKSPACE_SHARE_DIVISOR)?);
        guard.all = all;
        Some(Self { budget: Arc::clone(budget), workspace_id, bytes })
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.all = budget.all.without(self.bytes);
        if let Some(workspace_load) = budget.of_workspaces.get_mut(&self.workspace_id) {
            *workspace_load = workspace_load.without(self.bytes);
            if workspace_load.commands == 0 {
                budget.of_workspaces.remove(&self.workspace_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_refused_when_the_estimated_wait_is_too_long() {
        let budget = Arc::default();
        let mean_batch_time = MeanBatchTime::default();
        let take_slots = |mean_batch_time: &MeanBatchTime| -> Vec<_> {
            let ids = (1..).map(WorkspaceId);
            ids.map_while(|id| QueueSlot::take(&budget, id, 10, mean_batch_time)).collect()
        };
        assert_eq!(take_slots(&mean_batch_time).len(), MAX_COMMANDS);

        (0..100).for_each(|_| mean_batch_time.note(Duration::from_millis(300)));
        assert_eq!(take_slots(&mean_batch_time).len(), 4 * BATCH_COMMANDS);

        let of_workspace: Vec<_> =
            std::iter::from_fn(|| QueueSlot::take(&budget, WorkspaceId(1), 10, &mean_batch_time))
                .collect();
        assert_eq!(of_workspace.len(), 2 * BATCH_COMMANDS);
        assert!(
            QueueSlot::take(&budget, WorkspaceId(2), 10, &mean_batch_time).is_some(),
            "one workspace uses the whole queue"
        );
        drop(of_workspace);

        // Even after a very slow batch, one full batch is admitted, so that the mean batch time is
        // measured again.
        mean_batch_time.note(Duration::from_mins(1));
        assert_eq!(take_slots(&mean_batch_time).len(), BATCH_COMMANDS);
        (0..100).for_each(|_| mean_batch_time.note(Duration::from_millis(1)));
        assert_eq!(take_slots(&mean_batch_time).len(), MAX_COMMANDS);
    }
}
