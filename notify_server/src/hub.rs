//! The workspaces with open streams here, and the way from the tail to the streams.
//!
//! One lock, held without waiting for anything else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fechatter_core::log::{self, Cursor, Ephemeral};
use fechatter_core::token::AuthUser;
use fechatter_core::{Position, UserId, WorkspaceId};
use tokio::sync::watch;

use crate::frame::{self, GoodbyeReason};
use crate::outbox::{End, Outbox, Takers};
use crate::room::{Answer, Missed, Reader, Room, Snapshot};
use crate::tail::News;

/// How long a workspace stays once its last stream has gone.
const LINGER: Duration = Duration::from_secs(30);
const DRAINING: End = End::Goodbye(GoodbyeReason::Draining);

/// All that is shared between the tail and the streams.
#[derive(Debug)]
pub(crate) struct Hub {
    rooms: Mutex<HashMap<WorkspaceId, Room>>,
    streams_so_far: AtomicU64,
    // Changed and read under the rooms' lock, as is the next.
    draining: AtomicBool,
    beat: AtomicU64,
    limits: RecentLimits,
}

/// How much of the newest events is kept: so many of each workspace, and so many bytes in all, of
/// which each workspace here has the same share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecentLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What became of entries that the tail has read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// The workspace has taken them and stands here.
    To(Cursor),
    /// The workspace has left and come back since: what was read is not about the one here now.
    Outdated,
    /// The log does not go on from where the workspace is.
    Diverged,
}

/// A stream's end of the hub. Dropping it detaches the stream.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    id: u64,
    workspace_id: WorkspaceId,
    user_id: UserId,
}

/// What is held for streams.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) workspaces: usize,
    /// The size of the recent events.
    pub(crate) recent_bytes: usize,
    /// Frames that wait in outboxes, and in the one with the most.
    pub(crate) waiting: usize,
    pub(crate) longest: usize,
}

/// What the hub can do for a reader who has everything up to a cursor.
#[derive(Debug)]
pub(crate) enum Follow {
    /// Tell what they missed, and ask again.
    Missed(Missed),
    /// Tell what they missed; from there on, everything queues for them.
    Attached(Missed, Attachment),
    /// Nothing until the log is read up to this position: it is not kept here.
    Forgotten(Position),
    /// Nothing until the workspace, whose place this tells, has come to theirs.
    Behind(watch::Receiver<Position>),
    /// Nothing: the workspace here has another event at their place.
    Diverged,
    /// Nothing until the workspace is loaded.
    Absent,
}

impl Hub {
    pub(crate) fn new(limits: RecentLimits) -> Self {
        let (rooms, streams_so_far, draining, beat) = Default::default();
        Self { rooms, streams_so_far, draining, beat, limits }
    }

    /// How much of its newest events a workspace may keep that is about to come.
    pub(crate) fn limits(&self) -> RecentLimits {
        let bytes = self.limits.bytes / (self.rooms().len() + 1);
        RecentLimits { bytes, ..self.limits }
    }

    /// The workspaces here that may have news, and where they are.
    pub(crate) fn heads(&self, news: &News) -> Vec<(WorkspaceId, Cursor)> {
        let rooms = &self.rooms();
        match news {
            News::Anywhere => rooms.iter().map(|(id, room)| (*id, room.head())).collect(),
            News::In(workspaces) => {
                let here = workspaces.iter().filter_map(|id| Some((*id, rooms.get(id)?.head())));
                here.collect()
            }
        }
    }

    /// Goes on with a reader who has everything up to `reached`: what they missed, and once that is
    /// all, their place among the streams, with nothing in between.
    pub(crate) fn follow(self: &Arc<Self>, reader: &Reader, reached: Cursor) -> Follow {
        let rooms = &mut *self.rooms();
        let Some(room) = rooms.get_mut(&reader.user.workspace_id) else { return Follow::Absent };
        match room.missed(reader, reached) {
            Answer::Missed(missed) => {
                if missed.reached != room.head() || missed.end.is_some() {
                    return Follow::Missed(missed);
                }
                let attachment = self.attach(room, *reader);
                Follow::Attached(missed, attachment)
            }
            Answer::Forgotten(upto) => Follow::Forgotten(upto),
            Answer::Behind => Follow::Behind(room.place()),
            Answer::Diverged => Follow::Diverged,
        }
    }

    fn attach(self: &Arc<Self>, room: &mut Room, reader: Reader) -> Attachment {
        let id = self.streams_so_far.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::default());
        if self.draining.load(Ordering::Relaxed) {
            outbox.end(DRAINING, &mut Takers::default());
        }
        let beat = self.beat.load(Ordering::Relaxed);
        room.attach([id, beat], reader, Arc::clone(&outbox));
        let AuthUser { workspace_id, id: user_id, .. } = reader.user;
        Attachment { outbox, hub: Arc::clone(self), id, workspace_id, user_id }
    }

    /// Begins a workspace, unless it is there by now; whoever does so is about to follow it.
    pub(crate) fn begin(&self, workspace_id: WorkspaceId, snapshot: Snapshot) {
        // Large ones take their time, so they are built before the lock.
        let room = Room::new(snapshot);
        let rooms = &mut *self.rooms();
        rooms.entry(workspace_id).or_insert(room);
        let share = self.limits.bytes / rooms.len();
        for room in rooms.values_mut() {
            room.trim(self.limits.events, share);
        }
    }

    /// What is held here.
    pub(crate) fn load(&self) -> Load {
        let rooms = &*self.rooms();
        let mut load = Load { workspaces: rooms.len(), ..Load::default() };
        for room in rooms.values() {
            room.add_to(&mut load);
        }
        load
    }

    /// Whether a workspace is here.
    pub(crate) fn has(&self, workspace_id: WorkspaceId) -> bool {
        self.rooms().contains_key(&workspace_id)
    }

    /// Forgets the workspaces that nobody has followed for a while. Not at once: whoever was alone
    /// there and comes back soon would have it loaded anew.
    pub(crate) fn forget_deserted(&self) {
        let deserted: Vec<_> =
            self.rooms().extract_if(|_, room| room.is_deserted(LINGER)).collect();
        // Outside the lock, for the same reason.
        drop(deserted);
    }

    /// Hands on what the log says from `from` on, which was the workspace's own position.
    pub(crate) fn advance(
        &self,
        workspace_id: WorkspaceId,
        from: Cursor,
        entries: &[log::Entry],
    ) -> Advance {
        let rooms = &mut self.rooms();
        let share = self.limits.bytes / rooms.len().max(1);
        let Some(room) = rooms.get_mut(&workspace_id).filter(|room| room.head() == from) else {
            return Advance::Outdated;
        };
        if room.advance(entries).is_err() {
            return Advance::Diverged;
        }
        room.trim(self.limits.events, share);
        Advance::To(room.head())
    }

    /// Whether one of the workspace's streams still has much to take.
    pub(crate) fn is_crowded(&self, workspace_id: WorkspaceId) -> bool {
        self.rooms().get(&workspace_id).is_some_and(Room::is_crowded)
    }

    /// Ends all streams of a workspace and forgets it; its next stream loads it anew.
    pub(crate) fn forget(&self, workspace_id: WorkspaceId, end: End) {
        let room = self.rooms().remove(&workspace_id);
        if let Some(room) = room {
            room.end(end);
        }
    }

    /// Hands on an event past the log.
    pub(crate) fn send(&self, ephemeral: &Ephemeral) {
        if let Some(room) = self.rooms().get(&ephemeral.workspace_id) {
            room.send(ephemeral.user_id, &frame::ephemeral(&ephemeral.event));
        }
    }

    /// Sends every stream a heartbeat each 15 beats, and ends those whose token has expired
    /// by this moment, in Unix seconds.
    pub(crate) fn beat(&self, number: u64, now: i64) {
        let rooms = self.rooms();
        self.beat.store(number, Ordering::Relaxed);
        rooms.values().for_each(|room| room.beat(number, now));
    }

    /// Ends all streams, and those that are still on their way here.
    pub(crate) fn drain(&self) {
        let rooms = self.rooms();
        self.draining.store(true, Ordering::Relaxed);
        rooms.values().for_each(|room| room.end(DRAINING));
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let rooms = &mut self.hub.rooms();
        if let Some(room) = rooms.get_mut(&self.workspace_id) {
            room.detach(self.id, self.user_id);
        }
    }
}
