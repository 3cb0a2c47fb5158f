//! Reading messages: a page of a chat, or messages by id.

use fechatter_core::message::{Message, MessageObject};
use fechatter_core::{ChatId, MessageId, Seq};
use serde::Deserialize;
use sqlx::PgPool;

use crate::error::{AppError, Result};
use crate::models::membership::Member;
use crate::utils::page;

/// The query string that selects messages: at most one of the places, or ids.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Selection {
    last_id: Option<String>,
    before_seq: Option<String>,
    after_seq: Option<String>,
    around_seq: Option<String>,
    ids: Option<String>,
    limit: Option<String>,
}

/// Messages of a chat, newest first, with flags for older and newer ones.
#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) messages: Vec<Message>,
    pub(crate) has_older: bool,
    pub(crate) has_newer: bool,
}

/// Reads a page of a chat. Seqs have no gaps (1, 2, 3, …), so that every page is a range of seqs.
pub(crate) async fn page(
    db: &PgPool,
    member: &Member,
    selection: Selection,
) -> Result<MessagePage> {
    let limit = page::limit(selection.limit.as_deref(), 100)?;
    let place = |field, text: &Option<String>| -> Result<Option<i64>> {
        let number = text.as_deref().map(page::number);
        number
            .map(|number| number.ok_or_else(|| AppError::invalid(field, "must be a number ≥ 0")))
            .transpose()
    };
    let last_id = place("last_id", &selection.last_id)?;
    let before = place("before_seq", &selection.before_seq)?;
    let after = place("after_seq", &selection.after_seq)?;
    let around = place("around_seq", &selection.around_seq)?;
    let given = [last_id, before, after, around].iter().flatten().count();
    if given + usize::from(selection.ids.is_some()) > 1 {
        return Err(AppError::invalid("query", "takes only one place at a time"));
    }
    if let Some(ids) = &selection.ids {
        return by_ids(db, member.chat_id, &page::ids("ids", ids)?).await;
    }
    let chat = extent(db, member.chat_id, last_id).await?;
    let (first, last) = if let Some(after) = after {
        (after.saturating_add(1), after.saturating_add(limit).min(chat.head))
    } else if let Some(around) = around {
        // Half of the page on either side, and a whole page also near the ends.
        let last = around.saturating_add(limit / 2).max(limit).min(chat.head);
        (last - limit + 1, last)
    } else {
        let before = before.or(chat.last_id_seq).unwrap_or(i64::MAX);
        let last = (before - 1).min(chat.head);
        (last - limit + 1, last)
    };
    Ok(MessagePage {
        messages: between(db, member.chat_id, Seq(first.max(1)), Seq(last)).await?,
        has_older: first.min(chat.head + 1) > 1,
        has_newer: last < chat.head,
    })
}

/// The last seq of a chat, and the seq of the first message that `last_id` leaves out.
struct Extent {
    head: i64,
    last_id_seq: Option<i64>,
}

async fn extent(db: &PgPool, chat_id: ChatId, last_id: Option<i64>) -> Result<Extent> {
    let extent = sqlx::query_as!(
        Extent,
        r#"select coalesce((select max(seq) from messages where chat_id = $1), 0) as "head!",
                  case when $2::bigint is not null then coalesce((
                      select seq from messages
                      where chat_id = $1 and id < $2
                      order by id desc
                      limit 1
                  ), 0) + 1 end as last_id_seq"#,
        chat_id as _,
        last_id
    )
    .fetch_one(db)
    .await?;
    Ok(extent)
}

async fn between(db: &PgPool, chat_id: ChatId, first: Seq, last: Seq) -> Result<Vec<Message>> {
    let objects = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and seq between $2 and $3
           order by seq desc"#,
        chat_id as _,
        first as _,
        last as _
    )
    .fetch_all(db)
    .await?;
    Ok(objects.into_iter().map(Message::from).collect())
}

async fn by_ids(db: &PgPool, chat_id: ChatId, ids: &[MessageId]) -> Result<MessagePage> {
    if ids.len() > 100 {
        return Err(AppError::invalid("ids", "must be at most 100"));
    }
    let objects = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and id = any($2)
           order by seq desc"#,
        chat_id as _,
        ids as _
    )
    .fetch_all(db)
    .await?;
    let messages = objects.into_iter().map(Message::from).collect();
    Ok(MessagePage { messages, has_older: false, has_newer: false })
}
