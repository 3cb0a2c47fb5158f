//! The workspaces with open streams here, and the way from the tail to the streams.
//!
//! One lock, held without waiting for anything else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fechatter_core::log::{self, Cursor, Ephemeral};
use fechatter_core::token::AuthUser;
use fechatter_core::{Timestamp, WorkspaceId};

use crate::frame::{self, Control};
use crate::outbox::{End, Next, Outbox};
use crate::room::{Room, Snapshot};
use crate::tail::News;

/// All that is shared between the tail and the streams.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    rooms: Mutex<HashMap<WorkspaceId, Room>>,
    streams_so_far: AtomicU64,
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

/// A stream's end of the hub. Dropping it detaches the stream, and the last one of a workspace
/// takes the workspace with it.
#[derive(Debug)]
pub(crate) struct Attachment {
    hub: Arc<Hub>,
    id: u64,
    reader: AuthUser,
    reached: Cursor,
    /// Where the workspace was: what comes after it and after `reached` comes by itself.
    pub(crate) head: Cursor,
    outbox: Arc<Outbox>,
}

impl Hub {
    /// Where a workspace is, if it is loaded.
    pub(crate) fn head(&self, workspace_id: WorkspaceId) -> Option<Cursor> {
        self.rooms().get(&workspace_id).map(Room::head)
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

    /// Adds the stream of a reader who has everything up to `reached`; none if the workspace has to
    /// be loaded first.
    pub(crate) fn attach(
        self: &Arc<Self>,
        reader: AuthUser,
        reached: Cursor,
    ) -> Option<Attachment> {
        let room = &mut *self.rooms();
        Some(self.enter(room.get_mut(&reader.workspace_id)?, reader, reached))
    }

    /// Begins a workspace, unless it is there by now, with its first stream.
    pub(crate) fn begin(
        self: &Arc<Self>,
        reader: AuthUser,
        reached: Cursor,
        snapshot: Snapshot,
    ) -> Attachment {
        let rooms = &mut *self.rooms();
        let room = rooms.entry(reader.workspace_id).or_insert_with(|| Room::new(snapshot));
        self.enter(room, reader, reached)
    }

    fn enter(self: &Arc<Self>, room: &mut Room, reader: AuthUser, reached: Cursor) -> Attachment {
        let id = self.streams_so_far.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::default());
        room.attach(id, reader, reached.position, Arc::clone(&outbox));
        Attachment { hub: Arc::clone(self), id, reader, reached, head: room.head(), outbox }
    }

    /// Hands on what the log says from `from` on, which was the workspace's own position.
    pub(crate) fn advance(
        &self,
        workspace_id: WorkspaceId,
        from: Cursor,
        entries: &[log::Entry],
    ) -> Advance {
        let rooms = &mut self.rooms();
        let Some(room) = rooms.get_mut(&workspace_id).filter(|room| room.head() == from) else {
            return Advance::Outdated;
        };
        match room.advance(entries) {
            Ok(()) => Advance::To(room.head()),
            Err(_) => Advance::Diverged,
        }
    }

    /// Whether one of the workspace's streams still has much to take.
    pub(crate) fn is_crowded(&self, workspace_id: WorkspaceId) -> bool {
        self.rooms().get(&workspace_id).is_some_and(Room::is_crowded)
    }

    /// Ends all streams of a workspace and forgets it; its next stream loads it anew.
    pub(crate) fn forget(&self, workspace_id: WorkspaceId, end: End) {
        if let Some(room) = self.rooms().remove(&workspace_id) {
            room.end(end);
        }
    }

    /// Hands on an event past the log.
    pub(crate) fn send(&self, ephemeral: &Ephemeral) {
        if let Some(room) = self.rooms().get(&ephemeral.workspace_id) {
            room.send(ephemeral.user_id, &frame::ephemeral(&ephemeral.event));
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    /// Waits for what comes next. Losing this future loses nothing.
    pub(crate) async fn next(&self) -> Next {
        self.outbox.next().await
    }

    /// Queues a heartbeat behind everything at or below its cursor.
    pub(crate) fn heartbeat(&self) {
        let rooms = self.hub.rooms();
        let Some(room) = rooms.get(&self.reader.workspace_id) else { return };
        // The reader may have started ahead of us: going back would repeat events to them.
        let ahead = self.reached.position > room.head().position;
        let cursor = if ahead { self.reached } else { room.head() };
        let heartbeat = Control::Heartbeat { cursor, server_time: Timestamp::now() };
        self.outbox.push(heartbeat.frame());
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let rooms = &mut self.hub.rooms();
        let workspace_id = self.reader.workspace_id;
        if let Some(room) = rooms.get_mut(&workspace_id) {
            room.detach(self.id, self.reader.id);
            if room.is_empty() {
                rooms.remove(&workspace_id);
            }
        }
    }
}
