//! Removes the rows and files of deleted workspaces, in small batches. Nobody sees them any more. An
//! interrupted removal goes on where it was, in this process or another one.

use std::time::Duration;

use fechatter_core::{ChatId, WorkspaceId};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::error::Result;
use crate::services::file_store::FileStore;
use crate::services::{chat_removal, file_sweep};

/// The number of rows that one statement removes.
const BATCH: i64 = 1_000;
/// Lets other work use the disk.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(20);

/// Removes the data of all deleted workspaces.
pub(crate) async fn remove_all(db: &PgPool, files: &FileStore) -> Result<()> {
    let workspaces = sqlx::query_scalar!(
        r#"select workspace_id as "id: WorkspaceId"
           from workspace_logs
           where status = 'Deleted'
           order by workspace_id"#
    )
    .fetch_all(db)
    .await?;
    for id in workspaces {
        remove(db, files, id, |_| {}).await?;
    }
    Ok(())
}

/// Removes the data of a deleted workspace, and reports each step. Its log goes last, and no sooner than
/// a minute after the deletion: until then, `notify_server` reads it to end the streams.
pub(crate) async fn remove(
    db: &PgPool,
    files: &FileStore,
    id: WorkspaceId,
    mut report: impl FnMut(&str),
) -> Result<()> {
    let chats = sqlx::query!(
        r#"select id as "id: ChatId", purged_at is null as "has_messages!"
           from chats
           where workspace_id = $1
           order by id"#,
        id as _
    )
    .fetch_all(db)
    .await?;
    for chat in &chats {
        if chat.has_messages {
            chat_removal::purge(db, chat.id).await?;
        }
        chat_removal::remove(db, chat.id).await?;
    }
    report(&format!("{} chats with their messages", chats.len()));
    let removed = file_sweep::remove_all_of(db, files, id).await?;
    report(&format!("{removed} files"));
    while remove_rows(db, id, false).await? > 0 {
        sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    report("its people's memberships and everything else but its log");
    let is_told = sqlx::query_scalar!(
        r#"select changed_at < clock_timestamp() - interval '1 minute' as "is_told!"
           from workspace_logs
           where workspace_id = $1"#,
        id as _
    )
    .fetch_optional(db)
    .await?;
    if is_told == Some(true) {
        while remove_rows(db, id, true).await? > 0 {
            sleep(PAUSE_BETWEEN_BATCHES).await;
        }
    }
    Ok(())
}

async fn remove_rows(db: &PgPool, id: WorkspaceId, with_log: bool) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select remove_workspace_rows($1, $2, $3) as "removed!""#,
        id as _,
        BATCH,
        with_log
    )
    .fetch_one(db)
    .await
}
