//! Sending as it would be without the rules that the chaos tests break: one message at a time, through
//! the [`LogWriter`], whose faults these are.

use fechatter_core::log::{Log, LogWriter};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::{MessageId, Seq};

use crate::error::{AppError, Result};
use crate::models::message::{self, Outgoing, Sent};

pub(super) fn is_wanted() -> bool {
    [Sabotage::NoLock, Sabotage::LockWithCheck, Sabotage::EarlyAnswer].into_iter().any(sabotage::is)
}

pub(super) async fn send(log: &Log, outgoing: Outgoing) -> Result<Sent> {
    let (workspace_id, chat_id) = (outgoing.sender.workspace_id, outgoing.chat_id);
    let mut writer = if sabotage::is(Sabotage::LockWithCheck) {
        let mut writer = LogWriter::begin(log).await?;
        check_while_locking(&mut writer, &outgoing).await?;
        writer.add_locks(&[workspace_id]).await?;
        writer
    } else {
        let mut writer = LogWriter::lock(log, &[workspace_id]).await?;
        check_while_locking(&mut writer, &outgoing).await?;
        writer
    };
    if let Some(id) = earlier(&mut writer, &outgoing).await? {
        return Ok(Sent::Replayed(message::find(writer.db(), chat_id, id).await?));
    }
    let row = sqlx::query!(
        r#"insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
           select $1, $2, coalesce(max(seq), 0) + 1, $3, $4, $5, $6 from messages where chat_id = $2
           returning id as "id: MessageId", seq as "seq: Seq", created_at"#,
        workspace_id as _,
        chat_id as _,
        outgoing.sender.id as _,
        outgoing.content,
        outgoing.idempotency_key,
        outgoing.digest.as_ref()
    )
    .fetch_one(writer.db())
    .await?;
    writer.append_message(workspace_id, chat_id, row.id)?;
    writer.commit().await?;
    Ok(Sent::New(outgoing.into_message(row.id, row.seq, row.created_at)))
}

/// Where this waits for the lock, it sees the memberships from before it waited.
async fn check_while_locking(writer: &mut LogWriter, outgoing: &Outgoing) -> Result<()> {
    let member = sqlx::query_scalar!(
        r#"select true as "member!"
           from workspace_logs as l
           join chat_members as m on m.workspace_id = l.workspace_id
           where l.workspace_id = $1
             and m.chat_id = $2
             and m.user_id = $3
             and m.left_position is null
           for no key update of l"#,
        outgoing.sender.workspace_id as _,
        outgoing.chat_id as _,
        outgoing.sender.id as _
    )
    .fetch_optional(writer.db())
    .await?;
    member.map(|_| ()).ok_or(AppError::NotFound)
}

async fn earlier(writer: &mut LogWriter, outgoing: &Outgoing) -> Result<Option<MessageId>> {
    let id = sqlx::query_scalar!(
        r#"select id as "id: MessageId"
           from messages
           where chat_id = $1 and sender_id = $2 and idempotency_key = $3"#,
        outgoing.chat_id as _,
        outgoing.sender.id as _,
        outgoing.idempotency_key
    )
    .fetch_optional(writer.db())
    .await?;
    Ok(id)
}
