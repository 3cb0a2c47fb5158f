//! The choice of the commands that make the next batch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use fechatter_core::WorkspaceId;
use tokio::time::Instant;

use super::limits::{BATCH_BYTES, BATCH_COMMANDS, UNTIL_BATCH};
use super::queue::Item;
use crate::error::AppError;
use crate::models::write_batch::Key;

/// The pause before a log is tried again that somebody else held.
const RETRY: Duration = Duration::from_millis(2);
/// For how long a log is only tried, before a batch waits for it.
const UNTIL_PATIENT: Duration = Duration::from_millis(50);

/// Commands in the order of their arrival, and the workspaces whose logs others hold.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    items: VecDeque<Item>,
    held: HashMap<WorkspaceId, Held>,
    /// Those of the batch on its way, held or not.
    tried: HashSet<WorkspaceId>,
    /// The one whose log a batch waits for.
    patient: Option<WorkspaceId>,
}

/// A log that was held by somebody else when it was last tried.
#[derive(Debug, Clone, Copy)]
struct Held {
    since: Instant,
    retry_at: Instant,
}

/// Commands for one call; no key twice.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
    keys: HashSet<Key>,
}

impl Waiting {
    pub(super) fn push(&mut self, item: Item) {
        self.items.push_back(item);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next batch: first the commands that nothing is known to hold up, then those whose logs are
    /// to be tried again, as far as there is room.
    pub(super) fn batch(&mut self) -> Vec<Item> {
        let mut batch = Batch::default();
        let (held, patient) = (self.held.clone(), self.patient);
        self.fill(&mut batch, |id| !held.contains_key(&id) && patient != Some(id));
        self.tried.clear();
        if !held.is_empty() {
            let now = Instant::now();
            let is_due = |held: &Held| held.retry_at <= now;
            self.fill(&mut batch, |id| held.get(&id).is_some_and(is_due) && patient != Some(id));
            self.tried = batch.items.iter().map(Item::workspace_id).collect();
            // Their callers may have withdrawn all commands of some.
            let waiting: HashSet<_> = self.items.iter().map(Item::workspace_id).collect();
            self.held.retain(|id, _| {
                patient == Some(*id) || self.tried.contains(id) || waiting.contains(id)
            });
        }
        batch.items
    }

    /// A batch of one workspace whose log has been held for long, to wait for it; one at a time.
    pub(super) fn patient_batch(&mut self) -> Option<Vec<Item>> {
        if self.patient.is_some() {
            return None;
        }
        let (id, held) = self.held.iter().min_by_key(|(_, held)| held.since)?;
        if held.since.elapsed() < UNTIL_PATIENT {
            return None;
        }
        let id = *id;
        let mut batch = Batch::default();
        self.fill(&mut batch, |workspace_id| workspace_id == id);
        if batch.items.is_empty() {
            self.held.remove(&id);
            return None;
        }
        self.patient = Some(id);
        Some(batch.items)
    }

    /// Takes back what the batch that waited could not carry out.
    pub(super) fn end_patience(&mut self, held_up: Vec<Item>) {
        if let Some(id) = self.patient.take() {
            self.held.remove(&id);
        }
        self.put_back(held_up);
    }

    /// Takes back the commands of a batch whose logs were held by others, in their order.
    pub(super) fn put_back(&mut self, held_up: Vec<Item>) {
        let now = Instant::now();
        let still: HashSet<_> = held_up.iter().map(Item::workspace_id).collect();
        for id in self.tried.drain().filter(|id| !still.contains(id)) {
            self.held.remove(&id);
        }
        for id in still {
            let held = self.held.entry(id).or_insert(Held { since: now, retry_at: now });
            held.retry_at = now + RETRY;
        }
        for item in held_up.into_iter().rev() {
            if item.arrived.elapsed() >= UNTIL_BATCH {
                item.answer(Err(AppError::Busy));
            } else {
                item.claim.put_back();
                self.items.push_front(item);
            }
        }
    }

    /// When there will be something to try again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let held = self.held.iter().filter(|(id, _)| self.patient != Some(**id));
        held.map(|(_, held)| held.retry_at).min()
    }

    /// Adds commands of such workspaces, in their order, until the batch is full.
    fn fill(&mut self, batch: &mut Batch, mut is_wanted: impl FnMut(WorkspaceId) -> bool) {
        let mut left = Vec::new();
        while !batch.is_full() {
            let Some(item) = self.items.pop_front() else { break };
            if is_wanted(item.workspace_id()) && batch.has_room_for(&item) {
                batch.push(item);
            } else if !item.claim.is_withdrawn() {
                left.push(item);
            }
        }
        for item in left.into_iter().rev() {
            self.items.push_front(item);
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() == BATCH_COMMANDS || self.bytes >= BATCH_BYTES
    }

    /// A repeat of something in this batch has to wait for what becomes of that.
    fn has_room_for(&self, item: &Item) -> bool {
        let fits = self.items.is_empty() || self.bytes + item.command.bytes() <= BATCH_BYTES;
        fits && !self.keys.contains(&item.command.key())
    }

    fn push(&mut self, item: Item) {
        if item.claim.take() {
            self.keys.insert(item.command.key());
            self.bytes += item.command.bytes();
            self.items.push(item);
        }
    }
}
