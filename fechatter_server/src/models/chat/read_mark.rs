//! Read marks: how far a person has read in their chats.
//!
//! A mark is state, not an event of the log, and a change takes no lock of the log.

use fechatter_core::chat::ReadState;
use fechatter_core::{ChatId, MessageId, Seq, UserId, WorkspaceId};
use sqlx::{PgExecutor, PgPool};

use crate::error::{AppError, Result};
use crate::models::session::current_user::CurrentUser;

/// Unread messages are counted up to here.
pub(crate) const UNREAD_CAP: i64 = 100;

/// Sets the marks of new members to the chat's newest message.
pub(crate) async fn begin(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    chat_id: ChatId,
    people: &[UserId],
) -> Result<()> {
    sqlx::query!(
        "insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq)
         select $1, person, $2, newest.seq, newest.seq
         from unnest($3::bigint[]) as person
         cross join (
             select coalesce(max(seq), 0) as seq from messages where chat_id = $2
         ) as newest
         order by person
         on conflict (workspace_id, user_id, chat_id) do update
         set seq = excluded.seq,
             set_at_seq = excluded.set_at_seq,
             version = mark.version + 1,
             changed_at = clock_timestamp()",
        workspace_id as _,
        chat_id as _,
        people as _
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Moves the caller's marks in these chats, or in all of theirs, forward: to `upto`, or to the newest
/// message. Returns the chats whose mark has changed.
pub(crate) async fn advance(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    chats: Option<&[ChatId]>,
    upto: Option<Seq>,
) -> Result<Vec<ChatId>> {
    let changed = sqlx::query_scalar!(
        r#"insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq)
           select $1, $2, c.id, least(coalesce($4, newest.seq), newest.seq), newest.seq
           from chat_members as me
           join chats as c on c.id = me.chat_id
           left join read_marks as old
               on old.workspace_id = $1 and old.user_id = $2 and old.chat_id = c.id
           cross join lateral (
               select coalesce(max(m.seq), 0) as seq from messages as m where m.chat_id = c.id
           ) as newest
           cross join lateral read_state(
               c.id, $2, coalesce(old.seq, 0), coalesce(old.set_at_seq, 0), newest.seq, 0
           ) as state
           where me.workspace_id = $1
             and me.user_id = $2
             and me.left_position is null
             and c.deleted_at is null
             and coalesce(c.id = any($3), true)
             and least(coalesce($4, newest.seq), newest.seq) > state.seq
           order by c.id
           on conflict (workspace_id, user_id, chat_id) do update
           set seq = greatest(excluded.seq, mark.seq),
               set_at_seq = greatest(excluded.set_at_seq, mark.set_at_seq),
               version = mark.version + 1,
               changed_at = clock_timestamp()
           returning chat_id as "chat_id: ChatId""#,
        caller.workspace_id as _,
        caller.id as _,
        chats as _,
        upto as _
    )
    .fetch_all(db)
    .await?;
    Ok(changed)
}

/// Marks a message of one of the caller's chats and all later ones as unread, until the caller writes
/// there again. Returns true if the mark has changed.
pub(crate) async fn mark_unread(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    chat_id: ChatId,
    message_id: MessageId,
) -> Result<bool> {
    let row = sqlx::query!(
        r#"with target as (
               select m.seq, newest.seq as newest
               from messages as m
               cross join (select max(seq) as seq from messages where chat_id = $3) as newest
               where m.chat_id = $3 and m.id = $4
           ),
           moved as (
               insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq)
               select $1, $2, $3, target.seq - 1, target.newest from target
               on conflict (workspace_id, user_id, chat_id) do update
               set seq = excluded.seq,
                   set_at_seq = excluded.set_at_seq,
                   version = mark.version + 1,
                   changed_at = clock_timestamp()
               where (mark.seq, mark.set_at_seq) <> (excluded.seq, excluded.set_at_seq)
               returning chat_id
           )
           select exists (select from target) as "is_found!",
                  exists (select from moved) as "is_moved!""#,
        caller.workspace_id as _,
        caller.id as _,
        chat_id as _,
        message_id as _
    )
    .fetch_one(db)
    .await?;
    if row.is_found { Ok(row.is_moved) } else { Err(AppError::NotFound) }
}

/// Returns the read states of these chats of the caller, or of all in which something is unread, by
/// id.
pub(crate) async fn states(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    chats: Option<&[ChatId]>,
) -> Result<Vec<ReadState>> {
    let rows = sqlx::query!(
        r#"select c.id as "id!: ChatId", state.seq as "seq!: Seq", state.unread as "unread!"
           from chat_members as me
           join chats as c on c.id = me.chat_id
           left join read_marks as mark
               on mark.workspace_id = $1 and mark.user_id = $2 and mark.chat_id = c.id
           cross join lateral (
               select coalesce(max(m.seq), 0) as seq from messages as m where m.chat_id = c.id
           ) as newest
           cross join lateral read_state(
               c.id, $2, coalesce(mark.seq, 0), coalesce(mark.set_at_seq, 0), newest.seq, $4
           ) as state
           where me.workspace_id = $1
             and me.user_id = $2
             and me.left_position is null
             and c.deleted_at is null
             and case when $3::bigint[] is null then state.unread > 0 else c.id = any($3) end
           order by c.id"#,
        caller.workspace_id as _,
        caller.id as _,
        chats as _,
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let states = rows.into_iter().map(|row| ReadState {
        chat_id: row.id,
        last_read_seq: row.seq,
        unread_count: row.unread.min(UNREAD_CAP),
        unread_capped: row.unread > UNREAD_CAP,
        mention_count: 0,
    });
    Ok(states.collect())
}

/// Refuses unless the caller is a member of all of these chats.
pub(crate) async fn check_chats(db: &PgPool, caller: &CurrentUser, chats: &[ChatId]) -> Result<()> {
    let is_member_of_all = sqlx::query_scalar!(
        r#"select not exists (
               select from unnest($3::bigint[]) as wanted (id)
               where not exists (
                   select
                   from chat_members as me
                   join chats as c on c.id = me.chat_id
                   where me.workspace_id = $1
                     and me.user_id = $2
                     and me.chat_id = wanted.id
                     and me.left_position is null
                     and c.deleted_at is null)
           ) as "is_member_of_all!""#,
        caller.workspace_id as _,
        caller.id as _,
        chats as _
    )
    .fetch_one(db)
    .await?;
    if is_member_of_all { Ok(()) } else { Err(AppError::NotFound) }
}
