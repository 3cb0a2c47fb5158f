//! Leaving: chats, or the workspace with all its chats.

use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, User};
use fechatter_core::{ChatId, Position, UserId, WorkspaceId};
use sqlx::PgConnection;

use crate::error::{AppError, Result};
use crate::middlewares::auth::CurrentUser;
use crate::models::{user, workspace_role};

/// Takes the caller out of the workspace and all its chats. What they wrote stays.
pub(crate) async fn leave(log: &Log, caller: CurrentUser) -> Result<()> {
    let mut db = log.db().acquire().await?;
    let leaver = user::find(&mut *db, caller.workspace_id, caller.id).await?;
    workspace_role::keep_an_owner_besides(&mut db, &leaver).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    let leaver = user::find(writer.db(), caller.workspace_id, caller.id).await?;
    depart(&mut writer, &leaver, (caller.id, LeaveReason::Left)).await?;
    Ok(writer.commit().await?)
}

/// Takes somebody else, or oneself, out of the workspace and all its chats. An admin removes
/// members only.
pub(crate) async fn remove(log: &Log, caller: CurrentUser, person: UserId) -> Result<()> {
    let mut db = log.db().acquire().await?;
    to_remove(&mut db, &caller, person).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    let leaver = to_remove(writer.db(), &caller, person).await?;
    depart(&mut writer, &leaver, (caller.id, LeaveReason::Removed)).await?;
    Ok(writer.commit().await?)
}

/// The person whom the caller may take out of the workspace.
async fn to_remove(db: &mut PgConnection, caller: &CurrentUser, person: UserId) -> Result<User> {
    let leaver = user::find(db, caller.workspace_id, person).await?;
    if caller.role == Role::Member {
        return Err(AppError::Forbidden);
    }
    if leaver.id != caller.id {
        workspace_role::require_power_over(caller, &leaver)?;
    }
    Ok(leaver)
}

async fn depart(
    writer: &mut LogWriter,
    leaver: &User,
    (actor_id, reason): (UserId, LeaveReason),
) -> Result<()> {
    let User { id, workspace_id, .. } = *leaver;
    workspace_role::keep_an_owner_besides(writer.db(), leaver).await?;
    // First of all: only who has left the workspace can leave a Single.
    sqlx::query!(
        "update workspace_members
         set status = 'Suspended', left_at = clock_timestamp()
         where workspace_id = $1 and user_id = $2",
        workspace_id as _,
        id as _
    )
    .execute(writer.db())
    .await?;
    let chats = chats_of(writer.db(), workspace_id, id).await?;
    let memberships: Vec<_> = chats.into_iter().map(|chat_id| (chat_id, id)).collect();
    end_memberships(writer, workspace_id, &memberships, (actor_id, reason)).await?;
    let left = Event::UserLeftWorkspace { user_id: id, reason };
    writer.append(workspace_id, &left)?;
    workspace_role::pass_on_from(writer, leaver).await
}

async fn chats_of(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    user_id: UserId,
) -> Result<Vec<ChatId>> {
    let chats = sqlx::query_scalar!(
        "select chat_id
         from chat_members
         where workspace_id = $1 and user_id = $2 and left_position is null
         order by chat_id",
        workspace_id as _,
        user_id as _
    )
    .fetch_all(db)
    .await?;
    Ok(chats)
}

/// Ends memberships, each at the position of its event. The log is held; that these are current
/// memberships, and who may end them, the caller has checked.
pub(crate) async fn end_memberships(
    writer: &mut LogWriter,
    workspace_id: WorkspaceId,
    memberships: &[(ChatId, UserId)],
    (actor_id, reason): (UserId, LeaveReason),
) -> Result<()> {
    let (chats, people): (Vec<_>, Vec<_>) = memberships.iter().copied().unzip();
    let first = writer.next_position(workspace_id)?;
    let positions: Vec<_> = (first.0..).take(memberships.len()).map(Position).collect();
    let mut left = sqlx::query!(
        "update chat_members as m
         set left_position = leaver.position
         from unnest($1::bigint[], $2::bigint[], $3::bigint[])
             as leaver (chat_id, user_id, position)
         where m.chat_id = leaver.chat_id
           and m.user_id = leaver.user_id
           and m.left_position is null
         returning m.chat_id, m.user_id, m.joined_at, m.left_position",
        &chats as _,
        &people as _,
        &positions as _
    )
    .fetch_all(writer.db())
    .await?;
    left.sort_by_key(|row| row.left_position);
    sqlx::query!(
        "update chats as c
         set member_count = member_count - leavers.count
         from (
             select chat_id, count(*)::integer as count
             from unnest($1::bigint[]) as chat_id
             group by chat_id
         ) as leavers
         where c.id = leavers.chat_id",
        &chats as _
    )
    .execute(writer.db())
    .await?;
    for row in left {
        let event = Event::UserLeftChat {
            chat_id: row.chat_id,
            user_id: row.user_id,
            joined_at: row.joined_at,
            actor_id,
            reason,
        };
        writer.append(workspace_id, &event)?;
    }
    Ok(())
}
