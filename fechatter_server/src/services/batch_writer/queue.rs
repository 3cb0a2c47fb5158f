//! Commands that have been let in, and how many that may be.

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
use crate::models::write_batch::{Command, Outcome};

/// Commands that wait for their answers, and their bytes.
const MAX_COMMANDS: usize = 4_096;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// No workspace may take more of the room than this part of it: one whose log is held by somebody
/// for long must not keep the others out.
const SHARE: u32 = 2;

/// A command that would wait longer than this, as fast as batches are written at the moment, is not
/// let in: its caller is better told at once. Of the time, too, a workspace may take its part only.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Lets commands in as long as there is room.
#[derive(Debug)]
pub(super) struct Queue {
    budget: Arc<Mutex<Budget>>,
    pace: Pace,
    arrivals: UnboundedSender<Item>,
}

/// How long batches take: the mean of the last few, in microseconds. Clones share it.
#[derive(Debug, Default, Clone)]
pub(super) struct Pace(Arc<AtomicU64>);

/// Notes that batches are written.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Budget>>);

/// A command, from its admission until its answer.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) command: Arc<Command>,
    pub(super) claim: Arc<Claim>,
    pub(super) arrived: Instant,
    answer: oneshot::Sender<Result<Outcome>>,
    _place: Place,
}

/// The part that the caller keeps.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) claim: Arc<Claim>,
    /// Breaks off if the task that writes has failed.
    pub(super) answer: oneshot::Receiver<Result<Outcome>>,
}

/// The owner of a command: a batch, or a caller who has waited long enough.
#[derive(Debug, Default)]
pub(super) struct Claim(AtomicU8);

const WAITING: u8 = 0;
const IN_FLIGHT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// What those who wait take up.
#[derive(Debug)]
struct Budget {
    all: Load,
    of_workspaces: HashMap<WorkspaceId, Load>,
    /// When the database last took a batch, or somebody began to wait where nobody had.
    progressed: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { all: Load::default(), of_workspaces: HashMap::new(), progressed: Instant::now() }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    commands: usize,
    bytes: usize,
}

/// A command's part of the room; given back when dropped.
#[derive(Debug)]
struct Place {
    budget: Arc<Mutex<Budget>>,
    workspace_id: WorkspaceId,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(arrivals: UnboundedSender<Item>, pace: Pace) -> Self {
        Self { budget: Arc::default(), pace, arrivals }
    }

    /// For how long nothing has been written although something waits; for ever, if nobody is there
    /// to write.
    pub(super) fn stalled(&self) -> Duration {
        if self.arrivals.is_closed() {
            return Duration::MAX;
        }
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.all.commands == 0 { Duration::ZERO } else { budget.progressed.elapsed() }
    }

    /// The handle with which the writer notes its progress.
    pub(super) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.budget))
    }

    /// Lets a command in, if there is room. It is still to be written, or [handed over](Self::hand_over).
    pub(super) fn reserve(&self, command: Arc<Command>) -> Option<(Item, Receipt)> {
        let workspace_id = command.actor().workspace_id();
        let place = Place::take(&self.budget, workspace_id, command.bytes(), &self.pace)?;
        let (answer, answered) = oneshot::channel();
        let claim = Arc::<Claim>::default();
        let receipt = Receipt { claim: Arc::clone(&claim), answer: answered };
        let item = Item { command, claim, arrived: Instant::now(), answer, _place: place };
        Some((item, receipt))
    }

    /// Hands a command to the task that writes; where that has failed, its caller is told.
    pub(super) fn hand_over(&self, item: Item) {
        let _ = self.arrivals.send(item);
    }
}

impl Progress {
    /// The database has taken a batch, whatever it thought of the commands in it.
    pub(super) fn note(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).progressed = Instant::now();
    }
}

impl Pace {
    /// Notes how long a batch took.
    pub(super) fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = self.0.load(Ordering::Relaxed);
        self.0.store(mean - mean / 4 + took / 4, Ordering::Relaxed);
    }

    /// How long it will take to write whole batches of what waits. What makes no whole batch is let in
    /// in any case, and shows how fast it goes now.
    fn wait(&self, load: Load) -> Duration {
        let batches = load.commands / BATCH_COMMANDS;
        let batches = batches.max(load.bytes / BATCH_BYTES);
        let batches = u32::try_from(batches).unwrap_or(u32::MAX);
        Duration::from_micros(self.0.load(Ordering::Relaxed)).saturating_mul(batches)
    }
}

impl Item {
    /// Tells the caller what became of it. Nobody may be left to hear it.
    pub(super) fn answer(self, answer: Result<Outcome>) {
        let _ = self.answer.send(answer);
    }

    pub(super) fn workspace_id(&self) -> WorkspaceId {
        self.command.actor().workspace_id()
    }
}

impl Claim {
    /// For a batch; false if the caller has withdrawn the command.
    pub(super) fn take(&self) -> bool {
        self.change(WAITING, IN_FLIGHT)
    }

    /// Back from a batch that could do nothing about it.
    pub(super) fn put_back(&self) {
        self.change(IN_FLIGHT, WAITING);
    }

    /// By the caller; false if a batch has the command.
    pub(super) fn withdraw(&self) -> bool {
        self.change(WAITING, WITHDRAWN)
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Relaxed) == WITHDRAWN
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Load {
    /// With one more command of so many bytes, if it is not too much then.
    fn with(self, bytes: usize, share: u32) -> Option<Self> {
        let load = Self { commands: self.commands + 1, bytes: self.bytes + bytes };
        let share = share as usize;
        let fits = load.commands <= MAX_COMMANDS / share && load.bytes <= MAX_BYTES / share;
        fits.then_some(load)
    }

    fn without(self, bytes: usize) -> Self {
        Self { commands: self.commands - 1, bytes: self.bytes - bytes }
    }
}

impl Place {
    fn take(
        budget: &Arc<Mutex<Budget>>,
        workspace_id: WorkspaceId,
        bytes: usize,
        pace: &Pace,
    ) -> Option<Self> {
        let mut taken = budget.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = taken.of_workspaces.get(&workspace_id).copied().unwrap_or_default();
        let is_long = |load, share: u32| pace.wait(load) > MAX_WAIT / share;
        if is_long(taken.all, 1) || is_long(theirs, SHARE) {
            return None;
        }
        let all = taken.all.with(bytes, 1)?;
        if taken.all.commands == 0 {
            taken.progressed = Instant::now();
        }
        taken.of_workspaces.insert(workspace_id, theirs.with(bytes, SHARE)?);
        taken.all = all;
        Some(Self { budget: Arc::clone(budget), workspace_id, bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.all = budget.all.without(self.bytes);
        if let Some(theirs) = budget.of_workspaces.get_mut(&self.workspace_id) {
            *theirs = theirs.without(self.bytes);
            if theirs.commands == 0 {
                budget.of_workspaces.remove(&self.workspace_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_let_in_to_wait_for_long() {
        let budget = Arc::default();
        let pace = Pace::default();
        let places = |pace: &Pace| -> Vec<_> {
            let ids = (1..).map(WorkspaceId);
            ids.map_while(|id| Place::take(&budget, id, 10, pace)).collect()
        };
        assert_eq!(places(&pace).len(), MAX_COMMANDS);

        (0..100).for_each(|_| pace.note(Duration::from_millis(300)));
        assert_eq!(places(&pace).len(), 4 * BATCH_COMMANDS);

        let of_one: Vec<_> =
            std::iter::from_fn(|| Place::take(&budget, WorkspaceId(1), 10, &pace)).collect();
        assert_eq!(of_one.len(), 2 * BATCH_COMMANDS);
        assert!(Place::take(&budget, WorkspaceId(2), 10, &pace).is_some(), "one shuts out all");
        drop(of_one);

        // However slow it was, there is always somebody who finds out that it is no more.
        pace.note(Duration::from_mins(1));
        assert_eq!(places(&pace).len(), BATCH_COMMANDS);
        (0..100).for_each(|_| pace.note(Duration::from_millis(1)));
        assert_eq!(places(&pace).len(), MAX_COMMANDS);
    }
}
