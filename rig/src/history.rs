//! What people have said, in bulk.

use anyhow::Result;
use fechatter_core::{ChatId, MessageId, log::LogWriter};
use sqlx::query_scalar;

use crate::{Person, Town};

impl Town {
    /// So many more messages of 100 characters in a chat, all of one member, each with its event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(&self, sender: &Person, chat_id: ChatId, messages: usize) -> Result<()> {
        let workspace_id = sender.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await?;
        let ids: Vec<MessageId> = query_scalar(
            "insert into messages
                 (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
             select $1, $2, newest.seq + more, $3, repeat('x', 100), gen_random_uuid(), ''
             from (select coalesce(max(seq), 0) as seq from messages where chat_id = $2) as newest
             cross join generate_series(1, $4) as more
             order by more
             returning id",
        )
        .bind(workspace_id)
        .bind(chat_id)
        .bind(sender.id)
        .bind(i64::try_from(messages)?)
        .fetch_all(log.db())
        .await?;
        for id in ids {
            log.append_message(workspace_id, chat_id, id)?;
        }
        log.commit().await?;
        Ok(())
    }
}
