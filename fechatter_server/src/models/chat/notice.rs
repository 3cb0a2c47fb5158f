//! System messages: changes of a chat, told in the chat itself.

use fechatter_core::log::LogWriter;
use fechatter_core::message::{SystemNotice, SystemNoticeType};
use fechatter_core::{ChatId, MessageId, UserId, WorkspaceId};
use sqlx::types::Json;

use crate::error::Result;

/// Writes a system message about a change that the actor makes in this transaction. The caller holds
/// the log's lock.
pub(crate) async fn write(
    writer: &mut LogWriter,
    workspace_id: WorkspaceId,
    chat_id: ChatId,
    actor_id: UserId,
    notice: SystemNotice,
) -> Result<()> {
    let id = sqlx::query_scalar!(
        r#"select insert_system_message($1, $2, $3, $4::jsonb::json) as "id!: MessageId""#,
        workspace_id as _,
        chat_id as _,
        actor_id as _,
        Json(notice) as _
    )
    .fetch_one(writer.db())
    .await?;
    writer.append_message(workspace_id, chat_id, id)?;
    Ok(())
}

/// A change that concerns these people.
pub(crate) fn about(kind: SystemNoticeType, people: &[UserId]) -> SystemNotice {
    SystemNotice { kind, user_ids: people.to_vec(), name: None }
}
