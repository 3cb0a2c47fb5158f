//! Read marks: how far a person has read in their chats.
//!
//! A mark is state, not an event of the log, and a change takes no lock of the log.

use fechatter_core::chat::{ReadState, UNREAD_CAP};
use fechatter_core::commit::durably;
use fechatter_core::log::Log;
use fechatter_core::{ChatId, MessageId, Seq, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::error::{AppError, Result};
use crate::models::session::actor::Actor;
use crate::models::session::current_user::CurrentUser;

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

/// Moves the caller's marks in these chats, or in all of theirs, to the newest message. Returns the
/// chats whose mark has changed.
pub(crate) async fn advance(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    chats: Option<&[ChatId]>,
) -> Result<Vec<ChatId>> {
    let changed = sqlx::query_scalar!(
        r#"insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq)
           select $1, $2, c.id, newest.seq, newest.seq
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
             and newest.seq > state.seq
           order by c.id
           on conflict (workspace_id, user_id, chat_id) do update
           set seq = greatest(excluded.seq, mark.seq),
               set_at_seq = greatest(excluded.set_at_seq, mark.set_at_seq),
               version = mark.version + 1,
               changed_at = clock_timestamp()
           returning chat_id as "chat_id: ChatId""#,
        caller.workspace_id as _,
        caller.id as _,
        chats as _
    )
    .fetch_all(db)
    .await?;
    Ok(changed)
}

/// A move of one read mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkChange {
    pub(crate) actor: Actor,
    pub(crate) chat_id: ChatId,
    pub(crate) target: MarkTarget,
}

/// The place to which a read mark is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkTarget {
    /// This message or, if it is beyond the end, the newest. A mark that is further stays.
    UpTo(Seq),
    /// Before this message, which is then unread with all later ones, until the person writes again.
    Before(MessageId),
}

/// A read mark after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkOutcome {
    Moved(Versioned),
    Unmoved(ReadState),
}

/// A read state, with the version of its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) state: ReadState,
    pub(crate) version: i64,
}

impl MarkOutcome {
    pub(crate) fn state(&self) -> ReadState {
        match self {
            Self::Moved(Versioned { state, .. }) | Self::Unmoved(state) => *state,
        }
    }
}

/// Moves read marks in one statement. No two changes may be about the same person and chat. The
/// outcomes are in the order of the changes.
///
/// # Errors
/// After an error, nothing was written, or it is unknown whether the marks were written.
pub(crate) async fn write(
    db: &mut PgConnection,
    changes: &[MarkChange],
) -> Result<Vec<Result<MarkOutcome>>> {
    let actors = || changes.iter().map(|change| change.actor);
    let workspaces: Vec<_> = actors().map(|actor| actor.workspace_id()).collect();
    let people: Vec<_> = actors().map(|actor| actor.user_id()).collect();
    let sessions: Vec<_> = actors().map(|actor| actor.session_id()).collect();
    let chats: Vec<_> = changes.iter().map(|change| change.chat_id).collect();
    let targets = changes.iter().map(|change| match change.target {
        MarkTarget::UpTo(seq) => (Some(seq), None),
        MarkTarget::Before(id) => (None, Some(id)),
    });
    let (uptos, unread_from): (Vec<_>, Vec<_>) = targets.unzip();
    let answer = sqlx::query!(
        r#"select outcome as "outcome!", version, coalesce(seq, 0) as "seq!: Seq", coalesce(unread, 0) as "unread!",
                  coalesce(mentions, 0) as "mentions!"
           from move_read_marks($1, $2, $3, $4, $5, $6, $7)"#,
        &workspaces as _,
        &people as _,
        &sessions as _,
        &chats as _,
        &uptos as _,
        &unread_from as _,
        UNREAD_CAP + 1
    )
    .fetch_all(db);
    let rows = durably(answer).await?;
    let outcomes = rows.into_iter().zip(changes).map(|(row, change)| match &*row.outcome {
        "found" => {
            let state = ReadState::new(change.chat_id, row.seq, row.unread, row.mentions);
            Ok(row.version.map_or(MarkOutcome::Unmoved(state), |version| {
                MarkOutcome::Moved(Versioned { state, version })
            }))
        }
        "session_ended" => Err(AppError::SessionEnded),
        "workspace_suspended" => Err(AppError::WorkspaceSuspended),
        "suspended" => Err(AppError::Suspended),
        _ => Err(AppError::NotFound),
    });
    Ok(outcomes.collect())
}

/// Tells a person's streams about a change of their read mark.
pub(crate) fn publish(log: &Log, person: Actor, Versioned { state, version }: Versioned) {
    log.send_read_state(person.workspace_id(), person.user_id(), state, version);
}

/// Returns the read states of these chats of the caller, or of all in which something is unread, by
/// id.
pub(crate) async fn states(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    chats: Option<&[ChatId]>,
) -> Result<Vec<Versioned>> {
    let rows = sqlx::query!(
        r#"select chat_id as "chat_id!: ChatId", seq as "seq!: Seq", unread as "unread!",
                  mentions as "mentions!", version as "version!"
           from read_states($1, $2, $3, null, $4)
           where $3::bigint[] is not null or unread > 0
           order by chat_id"#,
        caller.workspace_id as _,
        caller.id as _,
        chats as _,
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let states = rows.into_iter().map(|row| Versioned {
        state: ReadState::new(row.chat_id, row.seq, row.unread, row.mentions),
        version: row.version,
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
