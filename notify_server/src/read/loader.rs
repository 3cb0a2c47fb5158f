//! Loads the initial state of a workspace: its newest events and its memberships in one snapshot.

use std::sync::Arc;

use bytes::Bytes;
use fechatter_core::log::{self, Cursor, Entry, Range};
use fechatter_core::permits::{PermitLimits, Permits};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Position, UserId, WorkspaceId};
use sqlx::{Connection, PgConnection};

use crate::database::{self, Database, QueryCost, WorkspacePermits};
use crate::read::tail::Tail;
use crate::workspace::hub::{Hub, WorkspaceLimits};
use crate::workspace::memberships::Membership;
use crate::workspace::recent::Recent;
use crate::workspace::scan_scope::ScanScope;
use crate::workspace::state::Snapshot;

/// The maximum number of workspaces that are loaded concurrently.
const LOADS: usize = 8;
/// The maximum number of events that one query reads.
const CHUNK: usize = 1_000;

/// Loads workspaces when their first stream begins.
#[derive(Debug)]
pub(crate) struct Loader {
    db: Database,
    hub: Arc<Hub>,
    tail: Arc<Tail>,
    /// Allows one load per workspace at a time.
    loads: WorkspacePermits,
}

impl Loader {
    pub(crate) fn new(db: Database, hub: Arc<Hub>, tail: Arc<Tail>, streams: usize) -> Self {
        let loads = Permits::new(PermitLimits {
            total: LOADS,
            per_group: 1,
            per_member: 1,
            waiting_per_group: streams,
        });
        Self { db, hub, tail, loads }
    }

    /// Loads the person's workspace, unless it is already here.
    pub(crate) async fn load(&self, user: &AuthUser) -> sqlx::Result<()> {
        let permit = database::acquire(&self.loads, user).await?;
        let workspace_id = user.workspace_id;
        if self.hub.has(workspace_id) {
            return Ok(());
        }
        let (hub, tail) = (Arc::clone(&self.hub), Arc::clone(&self.tail));
        let load = self.db.work(user, QueryCost::Small, |mut db| async move {
            let snapshot = load(&mut db, workspace_id, hub.limits_for_new_workspace()).await?;
            hub.insert(workspace_id, snapshot);
            // Announcements since the snapshot were dropped, because the workspace was not here.
            tail.wake(ScanScope::Workspaces([workspace_id].into()));
            drop(permit);
            Ok(())
        });
        load.await
    }
}

async fn load(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    limits: WorkspaceLimits,
) -> sqlx::Result<Snapshot> {
    let mut tx = db.begin_with("begin isolation level repeatable read read only").await?;
    let head = log::head(&mut *tx, workspace_id).await?;
    let entries = newest(&mut tx, workspace_id, head, limits).await?;
    let recent = Recent::new(&entries).ok_or(sqlx::Error::RowNotFound)?;
    let memberships = memberships(&mut tx, workspace_id, recent.floor().position).await?;
    tx.commit().await?;
    Ok(Snapshot { recent, memberships })
}

/// Reads the newest events, in order, up to the limits or to the beginning of the log.
async fn newest(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    head: Cursor,
    limits: WorkspaceLimits,
) -> sqlx::Result<Vec<Entry>> {
    let (mut chunks, mut events, mut bytes) = (Vec::new(), 0, 0);
    let mut to = head.position;
    while to.0 > 0 && events < limits.events && bytes < limits.bytes {
        let wanted = CHUNK.min(limits.events - events);
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let from = Position((to.0 - wanted + 1).max(1));
        let chunk = log::read(&mut *db, &[Range { workspace_id, from, to }], None, wanted).await?;
        let complete = chunk.first().is_some_and(|entry| entry.cursor.position == from);
        events += chunk.len();
        bytes +=
            chunk.iter().filter_map(|entry| entry.data.as_ref()).map(Bytes::len).sum::<usize>();
        chunks.push(chunk);
        if !complete {
            break;
        }
        to = Position(from.0 - 1);
    }
    chunks.reverse();
    Ok(chunks.into_iter().flatten().collect())
}

async fn memberships(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    since: Position,
) -> sqlx::Result<Vec<Membership>> {
    // Each half uses a different index.
    let rows = sqlx::query!(
        r#"select chat_id as "chat_id!: ChatId", user_id as "user_id!: UserId",
                  joined_position as "joined!: Position", left_position as "left: Position"
           from (
               select chat_id, user_id, joined_position, left_position
               from chat_members
               where workspace_id = $1 and left_position is null
               union all
               select chat_id, user_id, joined_position, left_position
               from chat_members
               where workspace_id = $1 and left_position >= $2
           ) as memberships"#,
        workspace_id as _,
        since as _
    )
    .fetch_all(db)
    .await?;
    let memberships = rows.into_iter().map(|row| Membership {
        chat_id: row.chat_id,
        user_id: row.user_id,
        joined: row.joined,
        left: row.left,
    });
    Ok(memberships.collect())
}
