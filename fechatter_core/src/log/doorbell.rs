//! The doorbell: a NOTIFY that tells readers to read the log, and carries messages that were
//! committed alone.
//!
//! It is sent after the commit, in a separate transaction that covers many commits: a NOTIFY inside
//! the writing transaction would serialise all writers and make them fail when the queue is full. A
//! lost notification delays readers until their next poll; it never loses an event.

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

/// The channel of the doorbell. Its payload is a [`DoorbellPayload`].
pub const DOORBELL_CHANNEL: &str = "fechatter_doorbell";
/// The channel of ephemeral events. Its payload is a JSON array of [`Ephemeral`]s.
pub const EPHEMERAL_CHANNEL: &str = "fechatter_ephemeral";

/// The payload limit in bytes. PostgreSQL refuses payloads of 8,000 bytes.
const MAX_PAYLOAD: usize = 7_500;
/// The length limit of one ephemeral event in bytes.
pub(super) const MAX_EPHEMERAL_BYTES: usize = MAX_PAYLOAD - 3;
/// The part of [`MAX_PAYLOAD`] for announcements. The rest is for the ids of some hundred
/// workspaces.
const MAX_ANNOUNCEMENT_BYTES: usize = 6_500;
/// The time for which an idle connection is cached.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of queued ephemeral events. Further ones are dropped; their delivery is best
/// effort.
const MAX_QUEUED_EPHEMERAL: usize = 1_000;

/// An event that is not in the log, sent from one server to the others.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ephemeral {
    pub workspace_id: WorkspaceId,
    pub user_id: UserId,
    pub event: EphemeralEvent,
    /// Of a read state: the version of its mark. Notifications of several servers may overtake each
    /// other.
    #[serde(default)]
    pub version: i64,
}

/// The content of a doorbell notification. Its text consists of the ids of the workspaces,
/// separated by commas, and a line of JSON for each announcement. An empty text means any
/// workspace.
#[derive(Debug, Default)]
pub struct DoorbellPayload {
    /// The workspaces with new events; `None` if any workspace may have new events.
    pub workspaces: Option<BTreeSet<WorkspaceId>>,
    /// New messages of these or other workspaces.
    pub announcements: Vec<Announcement>,
}

impl DoorbellPayload {
    /// Parses a payload. An invalid payload means that any workspace may have new events.
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

/// Sends the notifications of this process. Clones share one task.
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
    announced: Vec<(WorkspaceId, String)>,
    ephemeral: Vec<String>,
}

impl Doorbell {
    pub(super) fn new(db: PgPool) -> Self {
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Shared { pending: Mutex::default(), changed: Arc::clone(&changed) });
        tokio::spawn(run_doorbell(Arc::downgrade(&shared), changed, db));
        Self(shared)
    }

    pub(super) fn ring(&self, workspaces: impl IntoIterator<Item = WorkspaceId>) {
        self.0.update(|pending| pending.workspaces.extend(workspaces));
    }

    /// Queues the announcement, or only its workspace id if there is no room for the message.
    pub(super) fn announce(&self, announcement: &Announcement) {
        let line = serde_json::to_string(announcement).unwrap_or_default();
        self.0.update(|pending| {
            let bytes: usize = pending.announced.iter().map(|(_, line)| line.len()).sum();
            if !line.is_empty() && bytes + line.len() < MAX_ANNOUNCEMENT_BYTES {
                pending.announced.push((announcement.workspace_id, format!("\n{line}")));
            } else {
                pending.workspaces.insert(announcement.workspace_id);
            }
        });
    }

    pub(super) fn send_ephemeral(&self, text: String) {
        self.0.update(|pending| {
            if pending.ephemeral.len() < MAX_QUEUED_EPHEMERAL {
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

async fn run_doorbell(shared: Weak<Shared>, changed: Arc<Notify>, db: PgPool) {
    // Kept between frequent notifications, because the pool tests a connection when it is taken and
    // when it is given back.
    let mut cached: Option<PoolConnection<Postgres>> = None;
    loop {
        if timeout(IDLE_CONNECTION_TIMEOUT, changed.notified()).await.is_err() {
            cached = None;
            changed.notified().await;
        }
        let Some(pending) = shared.upgrade().map(|shared| shared.take()) else { return };
        let was_cached = cached.is_some();
        let mut result = notify(&db, &mut cached, &pending).await;
        if result.is_err() && was_cached {
            result = notify(&db, &mut cached, &pending).await;
        }
        let outcome = if result.is_ok() { "rung" } else { "failed" };
        counter!(metrics::DOORBELLS_RUNG, "outcome" => outcome).increment(1);
        if let Err(error) = result {
            warn!(%error, "the doorbell did not ring; readers find the events by polling");
        }
    }
}

/// Returns the text of a [`DoorbellPayload`]: with the announcements if they fit, else with the ids of their
/// workspaces; empty if not all ids fit.
fn payload(pending: &Pending) -> String {
    let ids = |workspaces: &BTreeSet<WorkspaceId>| {
        let ids: Vec<_> = workspaces.iter().map(ToString::to_string).collect();
        ids.join(",")
    };
    let lines: String = pending.announced.iter().map(|(_, line)| line.as_str()).collect();
    let with_announcements = ids(&pending.workspaces) + &lines;
    if with_announcements.len() < MAX_PAYLOAD {
        return with_announcements;
    }
    let announced = pending.announced.iter().map(|(id, _)| *id);
    let all = ids(&pending.workspaces.iter().copied().chain(announced).collect());
    if all.len() < MAX_PAYLOAD { all } else { String::new() }
}

/// Returns these JSON texts, each of at most [`MAX_EPHEMERAL_BYTES`], in as few JSON arrays as fit into
/// payloads.
fn arrays(texts: &[String]) -> Vec<String> {
    let mut arrays: Vec<String> = Vec::new();
    for text in texts {
        match arrays.last_mut() {
            Some(array) if array.len() + text.len() + 2 < MAX_PAYLOAD => {
                array.push(',');
                array.push_str(text);
            }
            _ => arrays.push(format!("[{text}")),
        }
    }
    for array in &mut arrays {
        array.push(']');
    }
    arrays
}

async fn notify(
    db: &PgPool,
    cached: &mut Option<PoolConnection<Postgres>>,
    pending: &Pending,
) -> sqlx::Result<()> {
    let mut payloads = arrays(&pending.ephemeral);
    let mut channels = vec![EPHEMERAL_CHANNEL; payloads.len()];
    if !pending.workspaces.is_empty() || !pending.announced.is_empty() {
        channels.push(DOORBELL_CHANNEL);
        payloads.push(payload(pending));
    }
    let mut connection = match cached.take() {
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
    *cached = Some(connection);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"workspace_id":7,"after":"00000001-4","cursor":"00000002-5","kind":"NewMessage","effect":"none","chat_id":3,"message_id":9,"data":{"id":9}}"#;

    fn heard(payload: &str) -> (Option<Vec<i64>>, usize) {
        let DoorbellPayload { workspaces, announcements } = DoorbellPayload::parse(payload);
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
    fn announcements_give_way_to_the_ids_of_all_workspaces() {
        let pending = |ids: i64, lines: i64| Pending {
            workspaces: (100_000..100_000 + ids).map(WorkspaceId).collect(),
            announced: (1..=lines).map(|id| (WorkspaceId(id), format!("\n{LINE}"))).collect(),
            ephemeral: Vec::new(),
        };
        assert_eq!(heard(&payload(&pending(0, 3))), (Some(vec![]), 3));
        assert_eq!(heard(&payload(&pending(2, 3))), (Some(vec![100_000, 100_001]), 3));
        let (ids, announcements) = heard(&payload(&pending(1_050, 3)));
        assert_eq!((ids.unwrap()[..4].to_vec(), announcements), (vec![1, 2, 3, 100_000], 0));
        assert_eq!(payload(&pending(1_100, 3)), "");
    }

    #[test]
    fn ephemeral_events_share_as_few_payloads_as_possible() {
        let short: Vec<_> = (0..3).map(|number| number.to_string()).collect();
        assert_eq!(arrays(&short), ["[0,1,2]"]);
        assert!(arrays(&[]).is_empty());
        let long = vec!["7".repeat(2_000); 7];
        let payloads = arrays(&long);
        assert!(payloads.iter().all(|payload| payload.len() < MAX_PAYLOAD));
        let counts = payloads.iter().map(|payload| payload.split(',').count());
        assert_eq!(counts.collect::<Vec<_>>(), [3, 3, 1]);
        assert!(arrays(&["7".repeat(MAX_EPHEMERAL_BYTES)])[0].len() < MAX_PAYLOAD);
    }

    #[test]
    fn what_cannot_be_read_may_be_about_any_workspace() {
        let newer = format!("7\n{}", LINE.replace("{\"id\"", "0,\"new\":{\"id\""));
        for payload in ["", "x", "7,", "7,-1", "\n", "7\nx", &format!("x\n{LINE}"), &newer] {
            assert_eq!(heard(payload), (None, 0), "{payload:?}");
        }
    }
}
