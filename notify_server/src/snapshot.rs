//! How a workspace begins here: its position and memberships at one moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fechatter_core::log::{self, Cursor};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, UserId, WorkspaceId, db};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::hub::{Attachment, Hub};
use crate::room::Snapshot;
use crate::tail::{News, Tail};

/// Workspaces that may be loaded side by side; each is loaded once at a time.
const LANES: usize = 8;

/// Loads workspaces for their first streams.
#[derive(Debug)]
pub(crate) struct Loader {
    db: PgPool,
    tail: Arc<Tail>,
    lanes: [Mutex<()>; LANES],
}

impl Loader {
    pub(crate) fn new(db: PgPool, tail: Arc<Tail>) -> Self {
        Self { db, tail, lanes: Default::default() }
    }

    /// Attaches the stream of a reader who has everything up to `reached`, to a workspace that is
    /// loaded if need be.
    pub(crate) async fn attach(
        &self,
        hub: &Arc<Hub>,
        reader: AuthUser,
        reached: Cursor,
    ) -> sqlx::Result<Attachment> {
        if let Some(attachment) = hub.attach(reader, reached) {
            return Ok(attachment);
        }
        let workspace_id = reader.workspace_id;
        let lane = usize::try_from(workspace_id.0).unwrap_or_default() % LANES;
        let _lane = self.lanes[lane].lock().await;
        if let Some(attachment) = hub.attach(reader, reached) {
            return Ok(attachment);
        }
        let snapshot = load(&self.db, workspace_id).await?;
        let attachment = hub.begin(reader, reached, snapshot);
        // Whatever was announced since the snapshot found nobody here.
        self.tail.wake(News::In([workspace_id].into()));
        Ok(attachment)
    }
}

async fn load(db: &PgPool, workspace_id: WorkspaceId) -> sqlx::Result<Snapshot> {
    let mut tx = db::begin(db, "begin isolation level repeatable read read only").await?;
    let head = log::head(&mut *tx, workspace_id).await?;
    let rows = sqlx::query!(
        r#"select chat_id as "chat_id: ChatId", user_id as "user_id: UserId"
           from chat_members
           where workspace_id = $1 and left_position is null"#,
        workspace_id as _
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let mut members: HashMap<_, HashSet<_>> = HashMap::new();
    for row in rows {
        members.entry(row.chat_id).or_default().insert(row.user_id);
    }
    Ok(Snapshot { head, members })
}
