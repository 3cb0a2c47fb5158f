//! The caller of a request, with their current state in the database.

use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, UserStatus};
use fechatter_core::workspace::WorkspaceStatus;
use fechatter_core::{SessionId, UserId, WorkspaceId};
use sqlx::PgExecutor;

use crate::error::{AppError, Result};

/// A caller whose session has not ended and who is active in the workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CurrentUser {
    pub(crate) id: UserId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) session_id: SessionId,
    pub(crate) role: Role,
}

impl CurrentUser {
    /// Locks the log of the caller's workspace and checks the caller again, because the session may
    /// have ended, or the caller may have been suspended, since the request arrived.
    pub(crate) async fn lock(&self, log: &Log) -> Result<(LogWriter, Self)> {
        let mut writer = LogWriter::lock(log, &[self.workspace_id]).await?;
        let user = self.recheck(writer.db()).await?;
        Ok((writer, user))
    }

    pub(crate) fn require_role(&self, role: Role) -> Result<()> {
        if self.role >= role { Ok(()) } else { Err(AppError::Forbidden) }
    }

    /// Returns the same caller with their current role, if they still may act.
    pub(crate) async fn recheck(&self, db: impl PgExecutor<'_>) -> Result<Self> {
        Self::find(db, self.id, self.workspace_id, self.session_id).await
    }

    /// Finds the caller, if the session has not ended and its person is active in the workspace.
    pub(crate) async fn find(
        db: impl PgExecutor<'_>,
        id: UserId,
        workspace_id: WorkspaceId,
        session_id: SessionId,
    ) -> Result<Self> {
        let found = sqlx::query!(
            r#"select m.role, m.status, l.status as "workspace_status: WorkspaceStatus"
             from sessions as s
             join workspace_members as m on m.user_id = s.user_id
             join workspace_logs as l on l.workspace_id = m.workspace_id
             where s.id = $1
               and s.user_id = $2
               and s.revoked_at is null
               and s.expires_at > clock_timestamp()
               and m.workspace_id = $3"#,
            session_id as _,
            id as _,
            workspace_id as _
        )
        .fetch_optional(db)
        .await?
        .ok_or(AppError::SessionEnded)?;
        match found.status {
            UserStatus::Left => Err(AppError::SessionEnded),
            _ if !found.workspace_status.is_active() => Err(AppError::WorkspaceSuspended),
            UserStatus::Suspended => Err(AppError::Suspended),
            UserStatus::Active => Ok(Self { id, workspace_id, session_id, role: found.role }),
        }
    }
}
