//! What people have said, in bulk.

use anyhow::Result;
use fechatter_core::{
    ChatId, MessageId, Seq, Timestamp,
    event::Event,
    log::{Audience, LogWriter},
    message::{Mentions, Message, MessageKind},
};
use sqlx::query_scalar;
use uuid::Uuid;

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
            let event = Event::NewMessage(message(id, chat_id, sender));
            log.append(workspace_id, Audience::Chat(chat_id), &event)?;
        }
        log.commit().await?;
        Ok(())
    }
}

/// The log stores of a message which it is, and nothing else.
fn message(id: MessageId, chat_id: ChatId, sender: &Person) -> Message {
    Message {
        id,
        chat_id,
        sender_id: sender.id,
        content: String::new(),
        files: Vec::new(),
        created_at: Timestamp::now(),
        idempotency_key: Uuid::nil(),
        seq: Seq(0),
        kind: MessageKind::User,
        reply_to_id: None,
        mentions: Mentions::default(),
        reactions: Vec::new(),
        attachments: Vec::new(),
        edited_at: None,
        deleted_at: None,
    }
}
