//! Access to the logs, shared by the parts of a server.

use ::metrics::counter;
use sqlx::PgPool;
use tracing::warn;

use super::announcement::Announcement;
use super::doorbell::{Doorbell, Ephemeral, MAX_EPHEMERAL_BYTES};
use crate::chat::ReadState;
use crate::event::EphemeralEvent;
use crate::permits::{PermitLimits, Permits};
use crate::{UserId, WorkspaceId, metrics};

/// Access to the logs: the database, and the doorbell that notifies readers.
#[derive(Debug, Clone)]
pub struct Log {
    db: PgPool,
    doorbell: Doorbell,
    /// Permits for the connections that hold the lock of a workspace's log or wait for it.
    pub(super) writers: Permits<WorkspaceId, ()>,
}

/// The maximum number of writers of one log that wait for a permit.
const WAITING_WRITERS: usize = 256;

impl Log {
    /// Starts the doorbell's task, which ends with the last clone of this.
    #[must_use]
    pub fn new(db: PgPool) -> Self {
        let doorbell = Doorbell::new(db.clone());
        Self { db, doorbell, writers: writers(usize::MAX) }
    }

    /// Limits the connections that hold or wait for the lock of one log, because the writers of a
    /// busy workspace must not take all connections of the pool.
    #[must_use]
    pub fn with_writers_per_log(self, connections: usize) -> Self {
        Self { writers: writers(connections), ..self }
    }

    /// Rings the doorbell after a commit and counts the events. `workspaces` contains a workspace
    /// once for each event that the commit has added to its log.
    pub fn announce(&self, workspaces: Vec<WorkspaceId>) {
        if !workspaces.is_empty() {
            let written = u64::try_from(workspaces.len()).unwrap_or(u64::MAX);
            counter!(metrics::EVENTS_WRITTEN).increment(written);
            self.doorbell.ring(workspaces);
        }
    }

    /// Announces one message that was committed alone, and counts it. Readers that have all events
    /// before it need not read the log.
    pub fn announce_message(&self, announcement: &Announcement) {
        counter!(metrics::EVENTS_WRITTEN).increment(1);
        self.doorbell.announce(announcement);
    }

    /// The database that holds the logs.
    #[must_use]
    pub fn db(&self) -> &PgPool {
        &self.db
    }

    /// Sends an event that is not in the log to a person's streams in a workspace, or about what a person
    /// does to others: see [`EphemeralEvent`]. The event may be lost.
    pub fn send_ephemeral(
        &self,
        workspace_id: WorkspaceId,
        user_id: UserId,
        event: EphemeralEvent,
    ) {
        self.send(&Ephemeral { workspace_id, user_id, event, version: 0 });
    }

    /// Sends a person's read state to their streams in a workspace. It may be lost.
    pub fn send_read_state(
        &self,
        workspace_id: WorkspaceId,
        user_id: UserId,
        state: ReadState,
        version: i64,
    ) {
        let event = EphemeralEvent::ReadStateUpdated(state);
        self.send(&Ephemeral { workspace_id, user_id, event, version });
    }

    fn send(&self, ephemeral: &Ephemeral) {
        match serde_json::to_string(ephemeral) {
            Ok(text) if text.len() <= MAX_EPHEMERAL_BYTES => self.doorbell.send_ephemeral(text),
            Ok(text) => warn!(bytes = text.len(), "an ephemeral event is too large"),
            Err(error) => warn!(%error, "an ephemeral event cannot be written as JSON"),
        }
    }
}

fn writers(per_group: usize) -> Permits<WorkspaceId, ()> {
    Permits::new(PermitLimits {
        total: usize::MAX,
        per_group,
        per_member: usize::MAX,
        waiting_per_group: WAITING_WRITERS,
    })
}
