//! The doorbell: a NOTIFY that says "look", and shows messages that were committed alone.
//!
//! It rings after the commit, in a transaction of its own, many commits in one ring: inside the
//! writing transaction it would serialise all writers and fail them when the queue is full. A lost
//! ring costs readers one poll, never an event.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ::metrics::counter;
use serde::{Deserialize, Serialize};
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use super::announcement::Announcement;
use crate::event::EphemeralEvent;
use crate::ids::NotAnId;
use crate::{UserId, WorkspaceId, metrics};

/// Its payload is a [`Ring`].
pub const DOORBELL_CHANNEL: &str = "fechatter_doorbell";
/// Its payload is an [`Ephemeral`] as JSON.
pub const EPHEMERAL_CHANNEL: &str = "fechatter_ephemeral";

/// PostgreSQL refuses payloads of 8,000 bytes.
pub(super) const MAX_PAYLOAD: usize = 7_500;
/// The part of it that announcements may take: the rest is for the ids of some hundred workspaces.
const MAX_ANNOUNCED: usize = 6_500;
/// For how long a connection is kept that has nothing to ring.
const KEEP: Duration = Duration::from_secs(1);
/// Ephemeral events waiting for the database; more are dropped, as they may be.
const MAX_WAITING: usize = 1_000;

/// An event past the log, on its way between the servers.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ephemeral {
    pub workspace_id: WorkspaceId,
    pub user_id: UserId,
    pub event: EphemeralEvent,
}

/// What the doorbell says. As text: the ids of the workspaces, separated by commas, and a line of JSON for each
/// announcement. Empty means any workspace.
#[derive(Debug, Default)]
pub struct Ring {
    /// Those with news; none where they may be in any.
    pub workspaces: Option<BTreeSet<WorkspaceId>>,
    /// New messages, besides.
    pub announcements: Vec<Announcement>,
}

impl Ring {
    /// Reads a payload; anything unreadable may be about any workspace.
    #[must_use]
    pub fn parse(payload: &str) -> Self {
        let (ids, lines) = payload.split_once('\n').unwrap_or((payload, ""));
        let announcements: Result<_, _> = lines.lines().map(serde_json::from_str).collect();
        let is_any = ids.is_empty() && lines.is_empty();
        let ids = ids.split(',').filter(|_| !ids.is_empty()).map(str::parse::<WorkspaceId>);
        let workspaces: Result<_, NotAnId> = ids.collect();
        match (workspaces, announcements) {
            (Ok(workspaces), Ok(announcements)) if !is_any => {
                Self { workspaces: Some(workspaces), announcements }
            }
            _ => Self::default(),
        }
    }
}

/// Rings for the process; clones share one task.
#[derive(Debug, Clone)]
pub(super) struct Doorbell(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pending {
    workspaces: BTreeSet<WorkspaceId>,
    /// Announcements as lines of text, each with the line break before it.
    announced: String,
    ephemeral: Vec<String>,
}

impl Doorbell {
    pub(super) fn new(db: PgPool) -> Self {
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Shared { pending: Mutex::default(), changed: Arc::clone(&changed) });
        tokio::spawn(ring_for(Arc::downgrade(&shared), changed, db));
        Self(shared)
    }

    pub(super) fn ring(&self, workspaces: impl IntoIterator<Item = WorkspaceId>) {
        self.0.update(|pending| pending.workspaces.extend(workspaces));
    }

    /// Rings with the message itself, or for its workspace alone where it finds no room.
    pub(super) fn announce(&self, announcement: &Announcement) {
        let line = serde_json::to_string(announcement).unwrap_or_default();
        self.0.update(|pending| {
            if !line.is_empty() && pending.announced.len() + line.len() < MAX_ANNOUNCED {
                pending.announced.extend(["\n", &line]);
            } else {
                pending.workspaces.insert(announcement.workspace_id);
            }
        });
    }

    pub(super) fn send_ephemeral(&self, text: String) {
        self.0.update(|pending| {
            if pending.ephemeral.len() < MAX_WAITING {
                pending.ephemeral.push(text);
            }
        });
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

async fn ring_for(shared: Weak<Shared>, changed: Arc<Notify>, db: PgPool) {
    // Kept while it rings often: the pool tries each connection when it is taken and given back.
    let mut kept: Option<PoolConnection<Postgres>> = None;
    loop {
        if timeout(KEEP, changed.notified()).await.is_err() {
            kept = None;
            changed.notified().await;
        }
        let Some(pending) = shared.upgrade().map(|shared| shared.take()) else { return };
        let was_kept = kept.is_some();
        let mut rung = notify(&db, &mut kept, &pending).await;
        if rung.is_err() && was_kept {
            rung = notify(&db, &mut kept, &pending).await;
        }
        let outcome = if rung.is_ok() { "rung" } else { "failed" };
        counter!(metrics::DOORBELLS_RUNG, "outcome" => outcome).increment(1);
        if let Err(error) = rung {
            warn!(%error, "the doorbell did not ring; readers find the events by polling");
        }
    }
}

async fn notify(
    db: &PgPool,
    kept: &mut Option<PoolConnection<Postgres>>,
    pending: &Pending,
) -> sqlx::Result<()> {
    let mut channels = vec![EPHEMERAL_CHANNEL; pending.ephemeral.len()];
    let mut payloads = pending.ephemeral.clone();
    if !pending.workspaces.is_empty() || !pending.announced.is_empty() {
        let ids: Vec<_> = pending.workspaces.iter().map(ToString::to_string).collect();
        let payload = ids.join(",") + &pending.announced;
        channels.push(DOORBELL_CHANNEL);
        payloads.push(if payload.len() < MAX_PAYLOAD { payload } else { String::new() });
    }
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => db.acquire().await?,
    };
    sqlx::query!(
        "select pg_notify(channel, payload) from unnest($1::text[], $2::text[]) as rings (channel, payload)",
        &channels as _,
        &payloads
    )
    .fetch_all(&mut *connection)
    .await?;
    *kept = Some(connection);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"workspace_id":7,"after":"00000001-4","cursor":"00000002-5","chat_id":3,"message_id":9,"data":{"id":9}}"#;

    fn heard(payload: &str) -> (Option<Vec<i64>>, usize) {
        let Ring { workspaces, announcements } = Ring::parse(payload);
        let ids = workspaces.map(|ids| ids.into_iter().map(|id| id.0).collect());
        (ids, announcements.len())
    }

    #[test]
    fn a_ring_names_workspaces_and_shows_messages() {
        assert_eq!(heard("7"), (Some(vec![7]), 0));
        assert_eq!(heard("7,12"), (Some(vec![7, 12]), 0));
        assert_eq!(heard(&format!("\n{LINE}\n{LINE}")), (Some(vec![]), 2));
        assert_eq!(heard(&format!("7,12\n{LINE}")), (Some(vec![7, 12]), 1));
    }

    #[test]
    fn what_cannot_be_read_may_be_about_any_workspace() {
        for payload in ["", "x", "7,", "7,-1", "\n", "7\nx", &format!("x\n{LINE}"), &LINE[1..]] {
            assert_eq!(heard(payload), (None, 0), "{payload:?}");
        }
    }
}
