//! The workspaces with open streams on this server, which receive the tail's events.
//!
//! Each workspace has its own lock, so that load in one workspace does not block another. Lock
//! order: first the lock of the map, which is held only briefly, then a workspace lock.

use std::collections::HashMap;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fechatter_core::Timestamp;
use fechatter_core::log::{self, Cursor, Ephemeral};
use fechatter_core::stream_event::GoodbyeReason;
use fechatter_core::token::AuthUser;
use fechatter_core::{Position, UserId, WorkspaceId};
use tokio::sync::watch;

use crate::workspace::outbox::{End, Outbox, Wakers};
use crate::workspace::scan_scope::ScanScope;
use crate::workspace::state::{
    ApplyError, HubStats, Missed, MissedResult, Reader, Snapshot, WorkspaceState,
};

/// The time for which a workspace stays in memory after its last stream ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const DRAINING: End = End::Goodbye(GoodbyeReason::Draining);

/// The state that the tail and the streams share.
#[derive(Debug)]
pub(crate) struct Hub {
    workspaces: Mutex<HashMap<WorkspaceId, Arc<Slot>>>,
    next_stream_id: AtomicU64,
    // Set before `drain` locks any workspace and read under the workspace lock, so that a stream
    // attached later also sees it.
    draining: AtomicBool,
    tick: AtomicU64,
    limits: RecentLimits,
}

/// A workspace's place in the hub. It is empty after the workspace was removed.
#[derive(Debug)]
struct Slot(Mutex<Option<WorkspaceState>>);

/// The limits of the recent events in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentLimits {
    /// The maximum number of events of each workspace.
    pub(crate) events: usize,
    /// The maximum number of bytes in total, shared equally among the workspaces here.
    pub(crate) bytes: usize,
}

/// The limits of the recent events of one workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkspaceLimits {
    pub(crate) events: usize,
    /// The workspace's share of [`RecentLimits::bytes`].
    pub(crate) bytes: usize,
}

/// The result of applying entries that the tail has read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// The workspace has applied them; this is its new local head.
    To(Cursor),
    /// The entries are not applied, because the workspace is not loaded, or its local head is not
    /// `from` (it was reloaded or has advanced since the read).
    Skipped,
    /// The workspace cannot apply the entries.
    Failed(ApplyError),
}

/// A stream's registration in the hub. Dropping it detaches the stream.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    id: u64,
    workspace_id: WorkspaceId,
    user_id: UserId,
}

/// The next step for a reader who has everything up to a cursor.
#[derive(Debug)]
pub(crate) enum FollowOutcome {
    /// Send these missed events, and call `follow` again.
    Missed(Missed),
    /// Send these missed events; later events are queued in the attachment's outbox.
    Attached(Missed, Attachment),
    /// The events up to this position are no longer in memory. Read them from the database first.
    NotInMemory(Position),
    /// The local head of the workspace is before the reader's cursor. Wait until the received
    /// position, which is that of the local head, reaches it.
    ServerBehind(watch::Receiver<Position>),
    /// The workspace has another event at the cursor's position.
    Diverged,
    /// The workspace is not loaded.
    NotLoaded,
}

impl Hub {
    pub(crate) fn new(limits: RecentLimits) -> Self {
        Self {
            workspaces: Mutex::default(),
            next_stream_id: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            tick: AtomicU64::new(0),
            limits,
        }
    }

    /// Returns the limits of the recent events for a workspace that is about to be loaded.
    pub(crate) fn limits_for_new_workspace(&self) -> WorkspaceLimits {
        let bytes = self.limits.bytes / (self.workspaces().len() + 1);
        WorkspaceLimits { events: self.limits.events, bytes }
    }

    /// Returns the workspaces in this scope that are loaded here, with their local heads.
    pub(crate) fn local_heads(&self, scope: &ScanScope) -> Vec<(WorkspaceId, Cursor)> {
        let slots = match scope {
            ScanScope::All => self.slots(),
            ScanScope::Workspaces(workspaces) => {
                let all = self.workspaces();
                let here = workspaces.iter().filter_map(|id| Some((*id, Arc::clone(all.get(id)?))));
                here.collect()
            }
        };
        slots
            .into_iter()
            .filter_map(|(id, slot)| Some((id, slot.state().as_ref()?.local_head())))
            .collect()
    }

    /// Returns the next events that a reader who has everything up to `reached` has missed. If
    /// these end at the local head, also attaches the stream, under the same lock, so that no event
    /// is lost in between.
    pub(crate) fn follow(self: &Arc<Self>, reader: &Reader, reached: Cursor) -> FollowOutcome {
        let Some(slot) = self.slot(reader.user.workspace_id) else {
            return FollowOutcome::NotLoaded;
        };
        let Some(state) = &mut *slot.state() else { return FollowOutcome::NotLoaded };
        match state.missed(reader, reached) {
            MissedResult::Missed(missed) => {
                if missed.reached != state.local_head() || missed.end.is_some() {
                    return FollowOutcome::Missed(missed);
                }
                let attachment = self.attach(state, *reader);
                FollowOutcome::Attached(missed, attachment)
            }
            MissedResult::NotInMemory(upto) => FollowOutcome::NotInMemory(upto),
            MissedResult::ServerBehind => FollowOutcome::ServerBehind(state.subscribe_local_head()),
            MissedResult::Diverged => FollowOutcome::Diverged,
        }
    }

    fn attach(self: &Arc<Self>, state: &mut WorkspaceState, reader: Reader) -> Attachment {
        let id = self.next_stream_id.fetch_add(1, Ordering::Relaxed);
        let tick = self.tick.load(Ordering::Relaxed);
        let outbox = state.attach([id, tick], reader);
        if self.draining.load(Ordering::Relaxed) {
            outbox.end(DRAINING, &mut Wakers::default());
        }
        let AuthUser { workspace_id, id: user_id, .. } = reader.user;
        Attachment { outbox, hub: Arc::clone(self), id, workspace_id, user_id }
    }

    /// Inserts a loaded workspace, unless another task has inserted it. This attaches no stream:
    /// the stream that needs the workspace must call `follow`. If no stream does so, the workspace
    /// is removed after `IDLE_TIMEOUT`.
    pub(crate) fn insert(&self, workspace_id: WorkspaceId, snapshot: Snapshot) {
        // Built before the lock is taken, because building a large workspace takes long.
        let slot = Arc::new(Slot(Mutex::new(Some(WorkspaceState::new(snapshot)))));
        self.workspaces().entry(workspace_id).or_insert(slot);
        let slots = self.slots();
        let share = self.limits.bytes / slots.len().max(1);
        for (_, slot) in slots {
            if let Some(state) = &mut *slot.state() {
                state.trim(self.limits.events, share);
            }
        }
    }

    /// Returns the memory use and queue lengths of all workspaces here.
    pub(crate) fn stats(&self) -> HubStats {
        let slots = self.slots();
        let mut stats = HubStats { workspaces: slots.len(), ..HubStats::default() };
        for (_, slot) in slots {
            if let Some(state) = &*slot.state() {
                state.add_to(&mut stats);
            }
        }
        stats
    }

    /// Returns true if a workspace is loaded here.
    pub(crate) fn has(&self, workspace_id: WorkspaceId) -> bool {
        self.workspaces().contains_key(&workspace_id)
    }

    /// Removes the workspaces that have had no stream for `IDLE_TIMEOUT`. The delay avoids a reload
    /// when the only client reconnects soon.
    pub(crate) fn evict_idle(&self) {
        let mut evicted = Vec::new();
        self.workspaces().retain(|_, slot| {
            evicted.extend(slot.state().take_if(|state| state.is_idle_for(IDLE_TIMEOUT)));
            slot.state().is_some()
        });
        // Dropped after the lock is released, because dropping a large workspace takes long.
        drop(evicted);
    }

    /// Returns true if a workspace is loaded here and this event is among its recent ones.
    pub(crate) fn has_event(&self, workspace_id: WorkspaceId, cursor: Cursor) -> bool {
        let slot = self.slot(workspace_id);
        slot.is_some_and(|slot| slot.state().as_ref().is_some_and(|state| state.has(cursor)))
    }

    /// Delivers the entries after `from`. The first entry must be the one at `from` itself, which
    /// proves that the log still has it. Returns `Skipped` if `from` is not the local head.
    pub(crate) fn advance(
        &self,
        workspace_id: WorkspaceId,
        from: Cursor,
        entries: &[log::Entry],
    ) -> Advance {
        self.advance_with(workspace_id, from, |state| state.advance(entries))
    }

    /// Delivers `next`, the entry after `from`. Returns `Skipped` if `from` is not the local head.
    pub(crate) fn deliver_next(
        &self,
        workspace_id: WorkspaceId,
        from: Cursor,
        next: &log::Entry,
    ) -> Advance {
        self.advance_with(workspace_id, from, |state| state.append(slice::from_ref(next)))
    }

    fn advance_with(
        &self,
        workspace_id: WorkspaceId,
        from: Cursor,
        advance: impl FnOnce(&mut WorkspaceState) -> Result<(), ApplyError>,
    ) -> Advance {
        let share = self.limits.bytes / self.workspaces().len().max(1);
        let Some(slot) = self.slot(workspace_id) else { return Advance::Skipped };
        let mut state = slot.state();
        let Some(state) = state.as_mut().filter(|state| state.local_head() == from) else {
            return Advance::Skipped;
        };
        if let Err(error) = advance(state) {
            return Advance::Failed(error);
        }
        state.trim(self.limits.events, share);
        Advance::To(state.local_head())
    }

    /// Returns true if an outbox of the workspace is more than half full.
    pub(crate) fn has_backlog(&self, workspace_id: WorkspaceId) -> bool {
        let slot = self.slot(workspace_id);
        slot.is_some_and(|slot| slot.state().as_ref().is_some_and(WorkspaceState::has_backlog))
    }

    /// Ends all streams of a workspace and removes it; its next stream loads it again.
    pub(crate) fn close_workspace(&self, workspace_id: WorkspaceId, end: End) {
        let slot = self.workspaces().remove(&workspace_id);
        let state = slot.and_then(|slot| slot.state().take());
        if let Some(state) = state {
            state.end(end);
        }
    }

    /// Delivers an event that is not in the log.
    pub(crate) fn send(&self, ephemeral: &Ephemeral) {
        let Some(slot) = self.slot(ephemeral.workspace_id) else { return };
        if let Some(state) = &mut *slot.state() {
            state.send(ephemeral);
        }
    }

    /// Returns the people with streams here.
    pub(crate) fn people(&self) -> Vec<(WorkspaceId, Vec<UserId>)> {
        let slots = self.slots().into_iter();
        slots.filter_map(|(id, slot)| Some((id, slot.state().as_ref()?.people()))).collect()
    }

    /// Sends every stream a heartbeat every 15 ticks, and ends streams whose token has expired.
    pub(crate) fn tick(&self, number: u64, now: Timestamp) {
        self.each_workspace(|state| state.tick(number, now));
        // A stream stores this number when it is attached, and gets a heartbeat whenever the number
        // of ticks since then is a multiple of 15, including 0. If the new number were stored
        // first, a stream attached during the loop would get a heartbeat in this tick.
        self.tick.store(number, Ordering::Relaxed);
    }

    /// Ends all streams, including those that attach later.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.each_workspace(|state| state.end(DRAINING));
    }

    fn each_workspace(&self, work: impl Fn(&WorkspaceState)) {
        for (_, slot) in self.slots() {
            slot.state().as_ref().inspect(|state| work(state));
        }
    }

    fn slots(&self) -> Vec<(WorkspaceId, Arc<Slot>)> {
        self.workspaces().iter().map(|(id, slot)| (*id, Arc::clone(slot))).collect()
    }

    fn slot(&self, workspace_id: WorkspaceId) -> Option<Arc<Slot>> {
        self.workspaces().get(&workspace_id).cloned()
    }

    fn workspaces(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Arc<Slot>>> {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, Option<WorkspaceState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(slot) = self.hub.slot(self.workspace_id) else { return };
        if let Some(state) = &mut *slot.state() {
            state.detach(self.id, self.user_id);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;
    use std::thread;

    use fechatter_core::SessionId;
    use fechatter_core::event::Effect;
    use fechatter_core::log::Entry;

    use super::*;
    use crate::workspace::recent::Recent;

    pub(crate) const BUSY: WorkspaceId = WorkspaceId(1);
    pub(crate) const QUIET: WorkspaceId = WorkspaceId(2);

    pub(crate) fn at(position: i64) -> Cursor {
        Cursor { position: Position(position), .."00000001-1".parse().unwrap() }
    }

    /// Returns an event for all members of a workspace.
    pub(crate) fn entry(workspace_id: WorkspaceId, position: i64, bytes: usize) -> Entry {
        Entry {
            workspace_id,
            cursor: at(position),
            kind: "WorkspaceUpdated".into(),
            effect: Some(Effect::None),
            chat_id: None,
            user_id: None,
            message_id: None,
            joined: Vec::new(),
            data: Some(vec![b'x'; bytes].into()),
            shows_message: false,
            shows_person: None,
            changed: None,
            parent: None,
        }
    }

    fn reader(workspace_id: WorkspaceId) -> Reader {
        let session_id = SessionId(uuid::Uuid::nil());
        let user = AuthUser { id: UserId(1), workspace_id, session_id, expires_at: i64::MAX };
        Reader { user, authorized_position: Position(1) }
    }

    /// Returns two workspaces at position 1, each with a stream that reads nothing.
    pub(crate) fn hub_with_streams() -> (Arc<Hub>, [Attachment; 2]) {
        let hub = Arc::new(Hub::new(RecentLimits { events: 10, bytes: 1024 * 1024 }));
        let attachments = [BUSY, QUIET].map(|workspace_id| {
            let recent = Recent::new(&[entry(workspace_id, 1, 1)]).unwrap();
            hub.insert(workspace_id, Snapshot { recent, memberships: Vec::new() });
            let FollowOutcome::Attached(_, attachment) = hub.follow(&reader(workspace_id), at(1))
            else {
                panic!("the workspace is not there")
            };
            attachment
        });
        (hub, attachments)
    }

    #[test]
    fn a_locked_workspace_does_not_block_other_workspaces() {
        let (hub, [_busy_stream, quiet_stream]) = hub_with_streams();
        let busy = hub.slot(BUSY).unwrap();
        let _busy = busy.state();
        let (done, is_done) = mpsc::channel();
        let hub_in_thread = Arc::clone(&hub);
        thread::spawn(move || {
            let entries = [entry(QUIET, 1, 1), entry(QUIET, 2, 1)];
            assert_eq!(hub_in_thread.advance(QUIET, at(1), &entries), Advance::To(at(2)));
            let attached = hub_in_thread.follow(&reader(QUIET), at(1));
            assert!(matches!(attached, FollowOutcome::Attached(..)));
            drop((attached, quiet_stream));
            assert!(hub_in_thread.has(BUSY));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_closed_workspace_has_no_streams_and_is_loaded_again() {
        let (hub, [busy_stream, _quiet_stream]) = hub_with_streams();
        let late = hub.slot(BUSY).unwrap();
        hub.close_workspace(BUSY, DRAINING);
        assert!(late.state().is_none());
        assert!(matches!(hub.follow(&reader(BUSY), at(1)), FollowOutcome::NotLoaded));
        let recent = Recent::new(&[entry(BUSY, 7, 1)]).unwrap();
        hub.insert(BUSY, Snapshot { recent, memberships: Vec::new() });
        drop(busy_stream);
        assert_eq!(hub.local_heads(&ScanScope::Workspaces([BUSY].into())), [(BUSY, at(7))]);
    }
}
