//! Chooses the commands of the next batch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use fechatter_core::{MessageId, WorkspaceId};
use tokio::time::Instant;

use super::limits::{BATCH_BYTES, BATCH_COMMANDS, QUEUE_TIMEOUT};
use super::queue::Item;
use crate::error::AppError;
use crate::models::message::write_batch::Key;

/// The pause before another attempt at a log that another transaction has locked.
const RETRY: Duration = Duration::from_millis(2);
/// The time during which batches skip a locked log, before a batch waits for it.
const SKIP_LOCKED_TIMEOUT: Duration = Duration::from_millis(50);

/// Commands in the order of their arrival, and the workspaces whose logs others have locked.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    items: VecDeque<Item>,
    locked_logs: HashMap<WorkspaceId, LockedLog>,
    /// The workspaces of the current batch, locked or not.
    attempted: HashSet<WorkspaceId>,
    /// The workspace whose log a batch waits for.
    awaited_log: Option<WorkspaceId>,
}

/// A log that another transaction had locked at the last attempt.
#[derive(Debug, Clone, Copy)]
struct LockedLog {
    since: Instant,
    retry_at: Instant,
}

/// The commands of the batch that is being filled. It contains each key at most once.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
    keys: HashSet<Key>,
    /// The messages that commands of the batch change, and those that they delete.
    targets: HashSet<MessageId>,
    deleted: HashSet<MessageId>,
}

impl Waiting {
    pub(super) fn push(&mut self, item: Item) {
        self.items.push_back(item);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the next batch: first the commands whose logs are not known to be locked, then those
    /// whose logs are due for another attempt, as far as there is room.
    pub(super) fn batch(&mut self) -> Vec<Item> {
        let mut batch = Batch::default();
        let (locked_logs, awaited_log) = (self.locked_logs.clone(), self.awaited_log);
        self.fill(&mut batch, |id| !locked_logs.contains_key(&id) && awaited_log != Some(id));
        self.attempted.clear();
        if !locked_logs.is_empty() {
            let now = Instant::now();
            let is_due = |log: &LockedLog| log.retry_at <= now;
            self.fill(&mut batch, |id| {
                locked_logs.get(&id).is_some_and(is_due) && awaited_log != Some(id)
            });
            self.attempted = batch.items.iter().map(Item::workspace_id).collect();
            // Callers may have cancelled all commands of a workspace.
            let waiting: HashSet<_> = self.items.iter().map(Item::workspace_id).collect();
            self.locked_logs.retain(|id, _| {
                awaited_log == Some(*id) || self.attempted.contains(id) || waiting.contains(id)
            });
        }
        batch.items
    }

    /// Returns a batch for the workspace whose log has been locked longest, if this is at least 50
    /// ms. The batch waits for the lock. There is only one such batch at a time.
    pub(super) fn lock_waiting_batch(&mut self) -> Option<Vec<Item>> {
        if self.awaited_log.is_some() {
            return None;
        }
        let (id, log) = self.locked_logs.iter().min_by_key(|(_, log)| log.since)?;
        if log.since.elapsed() < SKIP_LOCKED_TIMEOUT {
            return None;
        }
        let id = *id;
        let mut batch = Batch::default();
        self.fill(&mut batch, |workspace_id| workspace_id == id);
        if batch.items.is_empty() {
            self.locked_logs.remove(&id);
            return None;
        }
        self.awaited_log = Some(id);
        Some(batch.items)
    }

    /// Takes back the commands that the lock-waiting batch could not carry out.
    pub(super) fn finish_lock_waiting(&mut self, deferred_items: Vec<Item>) {
        if let Some(id) = self.awaited_log.take() {
            self.locked_logs.remove(&id);
        }
        self.put_back(deferred_items);
    }

    /// Takes back the commands of a batch whose logs others have locked, in their order. Answers
    /// those that have waited too long with [`AppError::Busy`].
    pub(super) fn put_back(&mut self, deferred_items: Vec<Item>) {
        let now = Instant::now();
        let still_locked: HashSet<_> = deferred_items.iter().map(Item::workspace_id).collect();
        for id in self.attempted.drain().filter(|id| !still_locked.contains(id)) {
            self.locked_logs.remove(&id);
        }
        for id in still_locked {
            let log = self.locked_logs.entry(id).or_insert(LockedLog { since: now, retry_at: now });
            log.retry_at = now + RETRY;
        }
        for item in deferred_items.into_iter().rev() {
            if item.arrived.elapsed() >= QUEUE_TIMEOUT {
                item.answer(Err(AppError::Busy));
            } else {
                item.state.requeue();
                self.items.push_front(item);
            }
        }
    }

    /// Returns the time of the next attempt at a locked log.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let locked_logs = self.locked_logs.iter().filter(|(id, _)| self.awaited_log != Some(**id));
        locked_logs.map(|(_, log)| log.retry_at).min()
    }

    /// Adds commands of the wanted workspaces, in their order, until the batch is full.
    fn fill(&mut self, batch: &mut Batch, mut is_wanted: impl FnMut(WorkspaceId) -> bool) {
        let mut skipped = Vec::new();
        while !batch.is_full() {
            let Some(item) = self.items.pop_front() else { break };
            if is_wanted(item.workspace_id()) && batch.has_room_for(&item) {
                batch.push(item);
            } else if !item.state.is_cancelled() {
                skipped.push(item);
            }
        }
        for item in skipped.into_iter().rev() {
            self.items.push_front(item);
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() == BATCH_COMMANDS || self.bytes >= BATCH_BYTES
    }

    /// Returns true if the command fits. A command whose key is in the batch waits for the next
    /// one.
    fn has_room_for(&self, item: &Item) -> bool {
        let fits = self.items.is_empty() || self.bytes + item.command.bytes() <= BATCH_BYTES;
        fits && !self.keys.contains(&item.command.key()) && !self.is_deletion_in_doubt(item)
    }

    /// Returns true if the command deletes a message that another command of the batch changes, or
    /// changes one that another command deletes: the checks of a batch come before all its changes.
    fn is_deletion_in_doubt(&self, item: &Item) -> bool {
        item.command.target().is_some_and(|target| {
            self.deleted.contains(&target)
                || (item.command.is_delete() && self.targets.contains(&target))
        })
    }

    fn push(&mut self, item: Item) {
        if item.state.try_start() {
            self.targets.extend(item.command.target());
            self.deleted.extend(item.command.target().filter(|_| item.command.is_delete()));
            self.keys.insert(item.command.key());
            self.bytes += item.command.bytes();
            self.items.push(item);
        }
    }
}
