//! Suspending, restoring and deleting workspaces, which only the operator does.

use fechatter_core::WorkspaceId;
use fechatter_core::event::Event;
use fechatter_core::log::LogWriter;
use fechatter_core::workspace::{Workspace, WorkspaceStatus};
use sqlx::PgConnection;

use crate::error::Result;
use crate::models::workspace::audit::{self, Action, Author};
use crate::models::workspace::lookup;

/// Sets the status of a workspace that is not deleted. Unless it is active again, all its streams end and
/// all requests in it are refused, from the commit on. The caller holds the lock of its log.
///
/// Deletion hides everything at once; the rows and files are removed later, in batches.
pub(crate) async fn set(
    writer: &mut LogWriter,
    author: Author<'_>,
    id: WorkspaceId,
    status: WorkspaceStatus,
) -> Result<Workspace> {
    sqlx::query!(
        "update workspace_logs
         set status = $2, changed_at = clock_timestamp()
         where workspace_id = $1",
        id as _,
        status as _
    )
    .execute(writer.db())
    .await?;
    if status == WorkspaceStatus::Deleted {
        hide(writer.db(), id).await?;
    }
    let workspace = lookup::find(writer.db(), id).await?;
    writer.append(id, &Event::WorkspaceUpdated(workspace.clone()))?;
    audit::record(writer.db(), id, author, Action::ChangedWorkspaceStatus(status)).await?;
    Ok(workspace)
}

/// Removes the people and chats of a workspace from everybody's sight, and makes its name free.
async fn hide(db: &mut PgConnection, id: WorkspaceId) -> Result<()> {
    // No name has a control character.
    sqlx::query!(
        "update workspaces
         set name_unique = chr(1) || id, name_skeleton = chr(1) || id
         where id = $1",
        id as _
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update workspace_members
         set status = 'Left', left_at = clock_timestamp()
         where workspace_id = $1 and left_at is null",
        id as _
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update chats
         set deleted_at = clock_timestamp()
         where workspace_id = $1 and deleted_at is null",
        id as _
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from invites where workspace_id = $1", id as _).execute(db).await?;
    Ok(())
}
