//! The way to the logs, which the parts of a server share.

use ::metrics::counter;
use sqlx::PgPool;
use tracing::warn;

use super::announcement::Announcement;
use super::doorbell::{Doorbell, Ephemeral, MAX_PAYLOAD};
use crate::event::EphemeralEvent;
use crate::permits::{Permits, Shares};
use crate::{UserId, WorkspaceId, metrics};

/// The way to the logs: the database and the doorbell that tells readers to look.
#[derive(Debug, Clone)]
pub struct Log {
    db: PgPool,
    doorbell: Doorbell,
    /// For the connections that hold a workspace's log or wait for it.
    pub(super) writers: Permits<WorkspaceId, ()>,
}

/// Writers of one log that may wait for a connection to wait on.
const WAITING_WRITERS: usize = 256;

impl Log {
    /// Starts the doorbell's task, which ends with the last clone of this.
    #[must_use]
    pub fn new(db: PgPool) -> Self {
        let doorbell = Doorbell::new(db.clone());
        Self { db, doorbell, writers: writers(usize::MAX) }
    }

    /// Lets each log be held or waited for by so many connections at a time: those who wait for a
    /// busy workspace must not take the pool from all others.
    #[must_use]
    pub fn with_writers_per_log(self, connections: usize) -> Self {
        Self { writers: writers(connections), ..self }
    }

    /// Tells readers to look, and counts: a commit has added events to the logs of these workspaces,
    /// each named once an event.
    pub fn announce(&self, workspaces: Vec<WorkspaceId>) {
        if !workspaces.is_empty() {
            let written = u64::try_from(workspaces.len()).unwrap_or(u64::MAX);
            counter!(metrics::EVENTS_WRITTEN).increment(written);
            self.doorbell.ring(workspaces);
        }
    }

    /// The same for one message, committed alone: readers who have everything before it need not look.
    pub fn announce_message(&self, announcement: &Announcement) {
        counter!(metrics::EVENTS_WRITTEN).increment(1);
        self.doorbell.announce(announcement);
    }

    /// The database that holds the logs.
    #[must_use]
    pub fn db(&self) -> &PgPool {
        &self.db
    }

    /// Sends an event past the log to one person's streams in a workspace; it may be lost.
    pub fn send_ephemeral(
        &self,
        workspace_id: WorkspaceId,
        user_id: UserId,
        event: EphemeralEvent,
    ) {
        match serde_json::to_string(&Ephemeral { workspace_id, user_id, event }) {
            Ok(text) if text.len() < MAX_PAYLOAD => self.doorbell.send_ephemeral(text),
            Ok(text) => warn!(bytes = text.len(), "an ephemeral event is too large"),
            Err(error) => warn!(%error, "an ephemeral event cannot be written as JSON"),
        }
    }
}

fn writers(per_group: usize) -> Permits<WorkspaceId, ()> {
    Permits::new(Shares {
        in_all: usize::MAX,
        per_group,
        per_member: usize::MAX,
        waiting_per_group: WAITING_WRITERS,
    })
}
