//! The doorbell: a NOTIFY that says "look".
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

use crate::event::EphemeralEvent;
use crate::{UserId, WorkspaceId, metrics};

/// Its payload is the ids of workspaces with news, separated by commas; empty means any.
pub const DOORBELL_CHANNEL: &str = "fechatter_doorbell";
/// Its payload is an [`Ephemeral`] as JSON.
pub const EPHEMERAL_CHANNEL: &str = "fechatter_ephemeral";

/// PostgreSQL refuses payloads of 8,000 bytes.
pub(super) const MAX_PAYLOAD: usize = 7_500;
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
    if !pending.workspaces.is_empty() {
        let ids: Vec<_> = pending.workspaces.iter().map(ToString::to_string).collect();
        let ids = ids.join(",");
        channels.push(DOORBELL_CHANNEL);
        payloads.push(if ids.len() < MAX_PAYLOAD { ids } else { String::new() });
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
