//! Looking up workspaces.

use fechatter_core::WorkspaceId;
use fechatter_core::workspace::Workspace;
use sqlx::PgExecutor;

use crate::error::{AppError, Result};

/// Finds a workspace. It does not check whether the caller may see the workspace.
pub(crate) async fn find(db: impl PgExecutor<'_>, id: WorkspaceId) -> Result<Workspace> {
    let workspace = sqlx::query_scalar!(
        r#"select w as "workspace!: Workspace" from workspace_objects as w where id = $1"#,
        id as _
    )
    .fetch_optional(db)
    .await?;
    workspace.ok_or(AppError::NotFound)
}
