//! Reading messages: a page of a chat, or messages by id.

use fechatter_core::message::{Message, MessageObject};
use fechatter_core::{ChatId, MessageId, Seq};
use sqlx::PgPool;

use crate::error::Result;
use crate::models::chat::membership::Member;
use crate::models::message::reaction;

/// The part of a chat that a page shows.
#[derive(Debug)]
pub(crate) enum Place {
    /// The newest messages.
    End,
    /// The newest messages with a smaller id.
    BeforeId(i64),
    BeforeSeq(i64),
    AfterSeq(i64),
    /// Half of the page on either side.
    AroundSeq(i64),
}

/// Messages of a chat, newest first, with flags for older and newer ones.
#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) messages: Vec<Message>,
    pub(crate) has_older: bool,
    pub(crate) has_newer: bool,
}

/// Reads a page of a chat of at most `limit` messages. Seqs have no gaps (1, 2, 3, …), so that every
/// page is a range of seqs.
pub(crate) async fn page(
    db: &PgPool,
    member: &Member,
    place: Place,
    limit: i64,
) -> Result<MessagePage> {
    let last_id = if let Place::BeforeId(id) = place { Some(id) } else { None };
    let chat = extent(db, member.chat_id, last_id).await?;
    let up_to = |last: i64| (last.min(chat.head) - limit + 1, last.min(chat.head));
    let (first, last) = match place {
        Place::End => up_to(chat.head),
        Place::BeforeId(_) => up_to(chat.last_id_seq.map_or(chat.head, |seq| seq - 1)),
        Place::BeforeSeq(seq) => up_to(seq - 1),
        Place::AfterSeq(seq) => (seq.saturating_add(1), seq.saturating_add(limit).min(chat.head)),
        // The page is full even near the first or the last message of the chat.
        Place::AroundSeq(seq) => up_to(seq.saturating_add(limit / 2).max(limit)),
    };
    Ok(MessagePage {
        messages: between(db, member, Seq(first.max(1)), Seq(last)).await?,
        has_older: first.min(chat.head + 1) > 1,
        has_newer: last < chat.head,
    })
}

/// The last seq of a chat, and the seq of the first message that `last_id` excludes.
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

async fn between(db: &PgPool, member: &Member, first: Seq, last: Seq) -> Result<Vec<Message>> {
    let objects = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and seq between $2 and $3
           order by seq desc"#,
        member.chat_id as _,
        first as _,
        last as _
    )
    .fetch_all(db)
    .await?;
    for_viewer(db, member, objects).await
}

/// Returns the messages of a chat that have these ids, newest first.
pub(crate) async fn by_ids(db: &PgPool, member: &Member, ids: &[MessageId]) -> Result<MessagePage> {
    let objects = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and id = any($2)
           order by seq desc"#,
        member.chat_id as _,
        ids as _
    )
    .fetch_all(db)
    .await?;
    let messages = for_viewer(db, member, objects).await?;
    Ok(MessagePage { messages, has_older: false, has_newer: false })
}

async fn for_viewer(
    db: &PgPool,
    viewer: &Member,
    objects: Vec<MessageObject>,
) -> Result<Vec<Message>> {
    let mut messages: Vec<_> = objects.into_iter().map(Message::from).collect();
    reaction::mark_own(db, viewer.user.id, &mut messages).await?;
    Ok(messages)
}
