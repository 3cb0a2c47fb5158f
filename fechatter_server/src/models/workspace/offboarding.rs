//! Offboarding: a person leaves a workspace and all its chats, or is removed from them.
//!
//! The first commit ends all access of this person. The memberships of chats end afterwards, in
//! batches, so that other writers do not wait long for the log.
//! `services/offboarding.rs` writes the batches.

use std::time::Duration;

use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{ChatId, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor};

use crate::error::{AppError, Result};
use crate::models::account::user;
use crate::models::chat::membership;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::audit::{self, Action, Author};
use crate::models::workspace::role;

/// The number of memberships that one transaction ends. Each takes about 0.1 ms under the log's
/// lock, and a message of a colleague should not wait longer than 50 ms for it.
const BATCH: i64 = 100;
/// The pause between two batches of an offboarding, in which others can lock the log.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Removes the caller from the workspace at once, and from all its chats soon afterwards. The
/// caller's messages stay.
pub(crate) async fn leave(log: &Log, caller: CurrentUser) -> Result<()> {
    let mut db = log.db().acquire().await?;
    let leaver = user::find(&mut *db, caller.workspace_id, caller.id).await?;
    role::require_not_last_owner(&mut db, &leaver).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    let leaver = user::find(writer.db(), caller.workspace_id, caller.id).await?;
    begin(&mut writer, &leaver, (caller.id, LeaveReason::Left)).await?;
    Ok(writer.commit().await?)
}

/// Removes a person from the workspace in the same way. The person may be the caller. An admin may
/// remove only members, or themselves.
pub(crate) async fn remove(log: &Log, caller: CurrentUser, person: UserId) -> Result<()> {
    let mut db = log.db().acquire().await?;
    find_removable(&mut db, &caller, person).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    let leaver = find_removable(writer.db(), &caller, person).await?;
    begin(&mut writer, &leaver, (caller.id, LeaveReason::Removed)).await?;
    let author = Author::Person(caller.id);
    audit::record(writer.db(), caller.workspace_id, author, Action::RemovedPerson(person)).await?;
    Ok(writer.commit().await?)
}

/// Finds the person to remove, if the caller may remove them.
async fn find_removable(
    db: &mut PgConnection,
    caller: &CurrentUser,
    person: UserId,
) -> Result<User> {
    let leaver = user::find(db, caller.workspace_id, person).await?;
    if caller.role == Role::Member {
        return Err(AppError::Forbidden);
    }
    if leaver.id != caller.id {
        role::require_may_manage(caller, &leaver)?;
    }
    Ok(leaver)
}

/// Ends all access at once. [`end_next_memberships`] ends the memberships afterwards, because one
/// transaction for very many memberships would hold the log's lock for seconds.
pub(crate) async fn begin(
    writer: &mut LogWriter,
    leaver: &User,
    (actor_id, reason): (UserId, LeaveReason),
) -> Result<()> {
    let User { id, workspace_id, .. } = *leaver;
    role::require_not_last_owner(writer.db(), leaver).await?;
    sqlx::query!(
        "update workspace_members
         set status = $3, left_at = clock_timestamp()
         where workspace_id = $1 and user_id = $2",
        workspace_id as _,
        id as _,
        UserStatus::Left as _
    )
    .execute(writer.db())
    .await?;
    sqlx::query!(
        "insert into offboardings (workspace_id, user_id, actor_id, reason)
         values ($1, $2, $3, $4)
         on conflict (workspace_id, user_id) do update
         set actor_id = excluded.actor_id,
             reason = excluded.reason,
             ended_upto = default,
             next_batch_at = default,
             ended_position = default",
        workspace_id as _,
        id as _,
        actor_id as _,
        reason as _
    )
    .execute(writer.db())
    .await?;
    let left = User { status: UserStatus::Left, ..leaver.clone() };
    writer.append(workspace_id, &Event::UserUpdated(left))?;
    role::reassign_owner_id_from(writer, leaver).await
}

/// An unfinished offboarding: some of the person's memberships may still have to end.
#[derive(Debug)]
pub(crate) struct Offboarding {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) user_id: UserId,
    /// True if the pause after its last batch is over.
    pub(crate) is_due: bool,
}

/// Lists all unfinished offboardings, of all workspaces.
pub(crate) async fn unfinished(db: impl PgExecutor<'_>) -> Result<Vec<Offboarding>> {
    let offboardings = sqlx::query_as!(
        Offboarding,
        r#"select workspace_id, user_id, next_batch_at <= clock_timestamp() as "is_due!"
           from offboardings
           where ended_position is null
           order by workspace_id, user_id"#
    )
    .fetch_all(db)
    .await?;
    Ok(offboardings)
}

/// Refuses while an account's offboarding from a workspace is unfinished.
pub(crate) async fn check_finished(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    user_id: UserId,
) -> Result<()> {
    let is_leaving = sqlx::query_scalar!(
        r#"select exists (
               select 1 from offboardings
               where workspace_id = $1 and user_id = $2 and ended_position is null
           ) as "is_leaving!""#,
        workspace_id as _,
        user_id as _
    )
    .fetch_one(db)
    .await?;
    if is_leaving { Err(AppError::Busy) } else { Ok(()) }
}

/// Ends the next memberships of an offboarding, and after the last of them the offboarding itself.
/// Several servers may call this at the same time: only one of them writes each batch.
pub(crate) async fn end_next_memberships(log: &Log, offboarding: &Offboarding) -> Result<()> {
    let Offboarding { workspace_id, user_id, .. } = *offboarding;
    let mut writer = LogWriter::lock(log, &[workspace_id]).await?;
    let due = sqlx::query!(
        "select actor_id, reason, ended_upto
         from offboardings
         where workspace_id = $1
           and user_id = $2
           and ended_position is null
           and next_batch_at <= clock_timestamp()",
        workspace_id as _,
        user_id as _
    )
    .fetch_optional(writer.db())
    .await?;
    let Some(due) = due else { return Ok(()) };
    let chats = chats_of(writer.db(), (workspace_id, user_id), due.ended_upto).await?;
    let ended_upto = chats.last().copied().unwrap_or(due.ended_upto);
    let is_last = i64::try_from(chats.len()) != Ok(BATCH);
    let memberships: Vec<_> = chats.into_iter().map(|chat_id| (chat_id, user_id)).collect();
    membership::end_memberships(
        &mut writer,
        workspace_id,
        &memberships,
        (due.actor_id, due.reason),
    )
    .await?;
    let ended_position = if is_last {
        let left = Event::UserLeftWorkspace { user_id, reason: due.reason };
        Some(writer.append(workspace_id, &left)?)
    } else {
        None
    };
    sqlx::query!(
        "update offboardings
         set ended_upto = $3,
             ended_position = $4,
             next_batch_at = clock_timestamp() + $5
         where workspace_id = $1 and user_id = $2",
        workspace_id as _,
        user_id as _,
        ended_upto as _,
        ended_position as _,
        PAUSE as _
    )
    .execute(writer.db())
    .await?;
    Ok(writer.commit().await?)
}

/// Delays the next batch of an offboarding by this duration, counted from now.
pub(crate) async fn postpone(
    db: impl PgExecutor<'_>,
    offboarding: &Offboarding,
    wait: Duration,
) -> Result<()> {
    sqlx::query!(
        "update offboardings
         set next_batch_at = clock_timestamp() + $3
         where workspace_id = $1 and user_id = $2",
        offboarding.workspace_id as _,
        offboarding.user_id as _,
        wait as _
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the person's chats with an id above this one, at most as many as one batch takes.
async fn chats_of(
    db: &mut PgConnection,
    (workspace_id, user_id): (WorkspaceId, UserId),
    above: ChatId,
) -> Result<Vec<ChatId>> {
    let chats = sqlx::query_scalar!(
        "select chat_id
         from chat_members
         where workspace_id = $1
           and user_id = $2
           and chat_id > $3
           and left_position is null
         order by chat_id
         limit $4",
        workspace_id as _,
        user_id as _,
        above as _,
        BATCH
    )
    .fetch_all(db)
    .await?;
    Ok(chats)
}
