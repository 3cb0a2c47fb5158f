//! The reactions to messages: those of the viewer, and the list of a message.

use fechatter_core::message::Message;
use fechatter_core::{ChatId, MessageId, Timestamp, UserId};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::utils::page::Page;

/// The maximum number of different emojis of a message; `add_reactions` enforces it.
pub(crate) const MAX_KINDS: usize = 20;

/// The number of people that a reaction of a [`Message`] names.
const NAMED_PEOPLE: i64 = 20;

/// An emoji that a person has added to a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReactionEntry {
    #[serde(skip)]
    id: i64,
    emoji: String,
    user_id: UserId,
    created_at: Timestamp,
}

/// A page of the reactions to a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReactionPage {
    items: Vec<ReactionEntry>,
    next_cursor: Option<String>,
}

/// Lists the reactions to a message, or those with one emoji, oldest first. A deleted message has
/// none.
pub(crate) async fn list(
    db: &PgPool,
    (chat_id, message_id): (ChatId, MessageId),
    emoji: Option<&str>,
    page: Page<1>,
) -> Result<ReactionPage> {
    let is_deleted = sqlx::query_scalar!(
        r#"select deleted_at is not null as "is_deleted!"
           from messages
           where chat_id = $1 and id = $2"#,
        chat_id as _,
        message_id as _
    )
    .fetch_optional(db)
    .await?
    .ok_or(AppError::NotFound)?;
    if is_deleted {
        return Ok(ReactionPage { items: Vec::new(), next_cursor: None });
    }
    let mut items = sqlx::query_as!(
        ReactionEntry,
        r#"select id, emoji, user_id as "user_id: UserId", created_at as "created_at: Timestamp"
           from message_reactions
           where chat_id = $1
             and message_id = $2
             and coalesce(emoji = $3, true)
             and id > $4
           order by id
           limit $5"#,
        chat_id as _,
        message_id as _,
        emoji,
        page.after.map_or(0, |[id]| id),
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next_cursor = page.cut(&mut items, |entry| [entry.id]);
    Ok(ReactionPage { items, next_cursor })
}

/// Says of each reaction whether the viewer has added it.
pub(crate) async fn mark_own(db: &PgPool, viewer: UserId, messages: &mut [Message]) -> Result<()> {
    let mut unclear: Vec<(ChatId, MessageId)> = Vec::new();
    for message in messages.iter_mut() {
        for reaction in &mut message.reactions {
            let is_named = reaction.user_ids.contains(&viewer);
            reaction.me = Some(is_named);
            if !is_named && reaction.count > NAMED_PEOPLE {
                unclear.push((message.chat_id, message.id));
            }
        }
    }
    if unclear.is_empty() {
        return Ok(());
    }
    let (chats, ids): (Vec<_>, Vec<_>) = unclear.into_iter().unzip();
    let own = sqlx::query!(
        r#"select distinct r.message_id as "message_id!: MessageId", r.emoji as "emoji!"
           from unnest($1::bigint[], $2::bigint[]) as message (chat_id, id)
           join message_reactions as r on r.chat_id = message.chat_id and r.message_id = message.id
           where r.user_id = $3"#,
        &chats as _,
        &ids as _,
        viewer as _
    )
    .fetch_all(db)
    .await?;
    for message in messages {
        for reaction in &mut message.reactions {
            let is_own =
                own.iter().any(|row| row.message_id == message.id && row.emoji == reaction.emoji);
            reaction.me = Some(reaction.me == Some(true) || is_own);
        }
    }
    Ok(())
}
