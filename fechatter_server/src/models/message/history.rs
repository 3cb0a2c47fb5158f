//! Reading messages: a page of a chat, or messages by id.

use fechatter_core::message::{Message, MessageObject};
use fechatter_core::{ChatId, MessageId, Seq, Timestamp};
use sqlx::PgPool;

use crate::error::{AppError, Result};
use crate::models::chat::membership::Member;
use crate::models::message::reaction;
use crate::models::session::current_user::CurrentUser;

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
    /// Around the first message that was sent at this time or later.
    AroundTime(Timestamp),
}

/// The part of a message's replies that a page shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReplyPlace {
    /// The newest replies with a smaller seq.
    Before(i64),
    /// The oldest replies with a greater seq.
    After(i64),
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
    let place = match place {
        Place::AroundTime(time) => {
            Place::AroundSeq(first_since(db, member.chat_id, time, chat.head).await?)
        }
        place => place,
    };
    let up_to = |last: i64| (last.min(chat.head) - limit + 1, last.min(chat.head));
    let (first, last) = match place {
        Place::End | Place::AroundTime(_) => up_to(chat.head),
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

/// Returns the seq of the first message that was sent at this time or later; beyond the last one if
/// there is none. Seqs have no gaps and run in the order of times, so that halving finds it.
async fn first_since(db: &PgPool, chat_id: ChatId, time: Timestamp, head: i64) -> Result<i64> {
    let seq = sqlx::query_scalar!(
        r#"with recursive search (low, high) as (
               select 1::bigint, $3::bigint + 1
               union all
               select case when middle.is_earlier then middle.seq + 1 else search.low end,
                      case when middle.is_earlier then search.high else middle.seq end
               from search
               cross join lateral (
                   select m.seq, m.created_at < $2 as is_earlier
                   from messages as m
                   where m.chat_id = $1 and m.seq = (search.low + search.high) / 2
               ) as middle
               where search.low < search.high
           )
           select low as "seq!" from search where low = high"#,
        chat_id as _,
        time as _,
        head
    )
    .fetch_one(db)
    .await?;
    Ok(seq)
}

/// Reads a page of the replies to a message, newest first. Deleted replies are in it.
pub(crate) async fn replies(
    db: &PgPool,
    member: &Member,
    parent: MessageId,
    place: ReplyPlace,
    limit: i64,
) -> Result<MessagePage> {
    let is_there = sqlx::query_scalar!(
        r#"select exists (select from messages where chat_id = $1 and id = $2) as "is_there!""#,
        member.chat_id as _,
        parent as _
    )
    .fetch_one(db)
    .await?;
    if !is_there {
        return Err(AppError::NotFound);
    }
    let parts = (member.chat_id, parent);
    let (mut seqs, has_others) = match place {
        ReplyPlace::Before(seq) => reply_seqs_before(db, parts, seq, limit + 1).await?,
        ReplyPlace::After(seq) => reply_seqs_after(db, parts, seq, limit + 1).await?,
    };
    let has_more = i64::try_from(seqs.len()).is_ok_and(|count| count > limit);
    seqs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let objects = sqlx::query_scalar!(
        r#"select m as "message!: MessageObject"
           from message_objects as m
           where chat_id = $1 and seq = any($2)
           order by seq desc"#,
        member.chat_id as _,
        &seqs
    )
    .fetch_all(db)
    .await?;
    let messages = for_viewer(db, member, objects).await?;
    let (has_older, has_newer) = match place {
        ReplyPlace::Before(_) => (has_more, has_others),
        ReplyPlace::After(_) => (has_others, has_more),
    };
    Ok(MessagePage { messages, has_older, has_newer })
}

/// Returns the seqs of the newest replies before a seq, and whether there are others after it.
async fn reply_seqs_before(
    db: &PgPool,
    (chat_id, parent): (ChatId, MessageId),
    before: i64,
    limit: i64,
) -> Result<(Vec<i64>, bool)> {
    let row = sqlx::query!(
        r#"select array(
                      select seq from message_replies
                      where chat_id = $1
                        and message_id = $2
                        and seq < $3
                      order by seq desc
                      limit $4
                  ) as "seqs!",
                  exists (
                      select from message_replies
                      where chat_id = $1
                        and message_id = $2
                        and seq >= $3
                  ) as "has_others!""#,
        chat_id as _,
        parent as _,
        before,
        limit
    )
    .fetch_one(db)
    .await?;
    Ok((row.seqs, row.has_others))
}

/// Returns the seqs of the oldest replies after a seq, and whether there are others before it.
async fn reply_seqs_after(
    db: &PgPool,
    (chat_id, parent): (ChatId, MessageId),
    after: i64,
    limit: i64,
) -> Result<(Vec<i64>, bool)> {
    let row = sqlx::query!(
        r#"select array(
                      select seq from message_replies
                      where chat_id = $1
                        and message_id = $2
                        and seq > $3
                      order by seq
                      limit $4
                  ) as "seqs!",
                  exists (
                      select from message_replies
                      where chat_id = $1
                        and message_id = $2
                        and seq <= $3
                  ) as "has_others!""#,
        chat_id as _,
        parent as _,
        after,
        limit
    )
    .fetch_one(db)
    .await?;
    Ok((row.seqs, row.has_others))
}

/// Finds the chat of a message, if the caller is a member of it.
pub(crate) async fn locate(
    db: &PgPool,
    caller: &CurrentUser,
    id: MessageId,
) -> Result<(ChatId, Seq)> {
    let found = sqlx::query!(
        r#"select m.chat_id as "chat_id: ChatId", m.seq as "seq: Seq"
           from chat_members as membership
           join chats as c on c.id = membership.chat_id and c.deleted_at is null
           cross join lateral (
               select m.chat_id, m.seq
               from messages as m
               where m.chat_id = membership.chat_id and m.id = $3
               order by m.id
               limit 1
           ) as m
           where membership.workspace_id = $1
             and membership.user_id = $2
             and membership.left_position is null"#,
        caller.workspace_id as _,
        caller.id as _,
        id as _
    )
    .fetch_optional(db)
    .await?
    .ok_or(AppError::NotFound)?;
    Ok((found.chat_id, found.seq))
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
