//! Creates messages in bulk.

use anyhow::Result;
use fechatter_core::{ChatId, MessageId, log::LogWriter};
use sqlx::{Connection, PgPool, query, query_scalar};
use tokio::task::JoinSet;

use crate::{Person, Town};

/// The number of connections that write messages without events.
const WRITERS: usize = 2;

const INSERT: &str = "
    insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
    select $1, $2, newest.seq + more, $3, $5, gen_random_uuid(), ''
    from (select coalesce(max(seq), 0) as seq from messages where chat_id = $2) as newest
    cross join generate_series(1, $4) as more
    order by more
    returning id";

impl Town {
    /// Adds `messages` messages of 100 characters to a chat, all from one member, each with its
    /// event.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(&self, sender: &Person, chat_id: ChatId, messages: usize) -> Result<()> {
        let workspace_id = sender.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await?;
        let ids: Vec<MessageId> = query_scalar(INSERT)
            .bind(workspace_id)
            .bind(chat_id)
            .bind(sender.id)
            .bind(i64::try_from(messages)?)
            .bind(default_content())
            .fetch_all(log.db())
            .await?;
        for id in ids {
            log.append_message(workspace_id, chat_id, id)?;
        }
        log.commit().await?;
        Ok(())
    }

    /// Adds `messages_each` messages of 100 characters to each of the chats, all from the member
    /// that is given with the chat. The messages have no events, like old messages whose events
    /// were pruned. This takes minutes for millions of messages.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ancient_history(
        &self,
        chats: &[(ChatId, Person)],
        messages_each: usize,
    ) -> Result<()> {
        let mut open = JoinSet::new();
        for part in chats.chunks(chats.len().div_ceil(WRITERS).max(1)) {
            let messages = i64::try_from(messages_each)?;
            open.spawn(write(self.db.clone(), part.to_vec(), messages, default_content()));
        }
        while let Some(written) = open.join_next().await {
            written??;
        }
        Ok(())
    }

    /// Like [`ancient_history`](Self::ancient_history), for one chat and with this content.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ancient_history_of(
        &self,
        content: String,
        sender: &Person,
        chat_id: ChatId,
        messages: usize,
    ) -> Result<()> {
        let chats = vec![(chat_id, sender.clone())];
        write(self.db.clone(), chats, i64::try_from(messages)?, content).await
    }
}

fn default_content() -> String {
    "x".repeat(100)
}

async fn write(
    db: PgPool,
    chats: Vec<(ChatId, Person)>,
    messages: i64,
    content: String,
) -> Result<()> {
    let mut db = db.acquire().await?.detach();
    // Disables the checks of foreign keys (and other triggers): the rows are correct by
    // construction, and the checks would take twice as long as everything else.
    for setting in ["set session_replication_role = replica", "set synchronous_commit = off"] {
        query(setting).execute(&mut db).await?;
    }
    for (chat_id, sender) in chats {
        query(INSERT)
            .bind(sender.workspace_id)
            .bind(chat_id)
            .bind(sender.id)
            .bind(messages)
            .bind(&content)
            .execute(&mut db)
            .await?;
    }
    db.close().await?;
    Ok(())
}
