//! Looking up chats.

use fechatter_core::chat::Chat;
use fechatter_core::{ChatId, WorkspaceId};
use sqlx::PgExecutor;

use crate::error::{AppError, Result};

/// Finds a chat of the workspace. It does not check whether the caller may see the chat.
pub(crate) async fn find(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    id: ChatId,
) -> Result<Chat> {
    let chat = sqlx::query_scalar!(
        r#"select c as "chat!: Chat" from chat_objects as c where workspace_id = $1 and id = $2"#,
        workspace_id as _,
        id as _
    )
    .fetch_optional(db)
    .await?;
    chat.ok_or(AppError::NotFound)
}

/// Refuses unless every person of the workspace may see the chat.
pub(crate) async fn check_public(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    id: ChatId,
) -> Result<()> {
    let public = sqlx::query_scalar!(
        r#"select true as "public!" from chats
           where workspace_id = $1
             and id = $2
             and chat_type = 'PublicChannel'
             and deleted_at is null"#,
        workspace_id as _,
        id as _
    )
    .fetch_optional(db)
    .await?;
    public.map(|_| ()).ok_or(AppError::NotFound)
}
