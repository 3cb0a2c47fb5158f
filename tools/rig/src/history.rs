//! What people have said, in bulk.

use anyhow::Result;
use fechatter_core::{ChatId, MessageId, log::LogWriter};
use sqlx::{Connection, PgPool, query, query_scalar};
use tokio::task::JoinSet;

use crate::{Person, Town};

/// How many connections write a history that has no events.
const WRITERS: usize = 2;

const INSERT: &str = "
    insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
    select $1, $2, newest.seq + more, $3, $5, gen_random_uuid(), ''
    from (select coalesce(max(seq), 0) as seq from messages where chat_id = $2) as newest
    cross join generate_series(1, $4) as more
    order by more
    returning id";

impl Town {
    /// So many more messages of 100 characters in a chat, all of one member, each with its event.
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
            .bind(usual())
            .fetch_all(log.db())
            .await?;
        for id in ids {
            log.append_message(workspace_id, chat_id, id)?;
        }
        log.commit().await?;
        Ok(())
    }

    /// So many more messages in each of the chats, all of one member, as they are once their events have been pruned:
    /// millions in minutes.
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
            open.spawn(write(self.db.clone(), part.to_vec(), messages, usual()));
        }
        while let Some(written) = open.join_next().await {
            written??;
        }
        Ok(())
    }

    /// The same in one chat, with messages of this content.
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

fn usual() -> String {
    "x".repeat(100)
}

async fn write(
    db: PgPool,
    chats: Vec<(ChatId, Person)>,
    messages: i64,
    content: String,
) -> Result<()> {
    let mut db = db.acquire().await?.detach();
    // Foreign keys hold by construction, and looking each of them up would take twice as long as everything else.
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
