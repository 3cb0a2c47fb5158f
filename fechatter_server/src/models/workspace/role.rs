//! Roles and status in a workspace. A workspace always keeps an active owner.

use fechatter_core::event::Event;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::account::user;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::audit::{self, Action, Author};
use crate::models::workspace::lookup;
use crate::utils::json::not_null;

/// The changes that an owner may make to all people, and an admin to members.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Role, required = false)]
    role: Option<Role>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = GivenStatus, required = false)]
    status: Option<GivenStatus>,
}

/// A status that can be given. `Left` cannot: people are removed with `DELETE`.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
enum GivenStatus {
    Active,
    Suspended,
}

/// Changes a person's role, to at most the caller's own, or their status. A suspended person keeps
/// their memberships but can no longer act.
pub(crate) async fn update(
    log: &Log,
    caller: CurrentUser,
    person: UserId,
    changes: UserChanges,
) -> Result<User> {
    let mut db = log.db().acquire().await?;
    let (before, after) = change(&mut db, &caller, person, &changes).await?;
    if after == before {
        return Ok(after);
    }
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    let (before, after) = change(writer.db(), &caller, person, &changes).await?;
    if after == before {
        return Ok(after);
    }
    set(&mut writer, Author::Person(caller.id), &before, &after).await?;
    writer.commit().await?;
    Ok(after)
}

/// Gives a person the role and the status of `after`. The caller holds the lock of the log.
pub(crate) async fn set(
    writer: &mut LogWriter,
    author: Author<'_>,
    before: &User,
    after: &User,
) -> Result<()> {
    if !is_active_owner(after) {
        require_not_last_owner(writer.db(), before).await?;
    }
    sqlx::query!(
        "update workspace_members set role = $3, status = $4
         where workspace_id = $1 and user_id = $2",
        after.workspace_id as _,
        after.id as _,
        after.role as _,
        after.status as _
    )
    .execute(writer.db())
    .await?;
    for action in actions(before, after) {
        audit::record(writer.db(), after.workspace_id, author, action).await?;
    }
    let updated = Event::UserUpdated(after.clone());
    writer.append(after.workspace_id, &updated)?;
    if !is_active_owner(after) {
        reassign_owner_id_from(writer, before).await?;
    }
    Ok(())
}

/// Returns the person before and after the change, if the caller may make it.
async fn change(
    db: &mut PgConnection,
    caller: &CurrentUser,
    person: UserId,
    changes: &UserChanges,
) -> Result<(User, User)> {
    let before = user::find(db, caller.workspace_id, person).await?;
    require_may_manage(caller, &before)?;
    let role = changes.role.unwrap_or(before.role);
    let status = match changes.status {
        None => before.status,
        Some(GivenStatus::Active) => UserStatus::Active,
        Some(GivenStatus::Suspended) => UserStatus::Suspended,
    };
    if role > caller.role {
        return Err(AppError::Forbidden);
    }
    let after = User { role, status, ..before.clone() };
    Ok((before, after))
}

/// Names the differences of a person before and after a change.
fn actions(before: &User, after: &User) -> Vec<Action> {
    let person = after.id;
    let role = Action::ChangedRole { person, from: before.role, to: after.role };
    let status = Action::ChangedStatus { person, to: after.status };
    let role = (before.role != after.role).then_some(role);
    role.into_iter().chain((before.status != after.status).then_some(status)).collect()
}

/// Refuses unless the caller may manage the person: owners may manage all people, admins may manage
/// members.
pub(crate) fn require_may_manage(caller: &CurrentUser, person: &User) -> Result<()> {
    match caller.role {
        Role::Owner => Ok(()),
        Role::Admin if person.role == Role::Member => Ok(()),
        Role::Admin | Role::Member => Err(AppError::Forbidden),
    }
}

fn is_active_owner(person: &User) -> bool {
    person.role == Role::Owner && person.status == UserStatus::Active
}

/// Refuses if the person is the last active owner.
pub(crate) async fn require_not_last_owner(db: &mut PgConnection, person: &User) -> Result<()> {
    if !is_active_owner(person) || another_owner(db, person).await?.is_some() {
        Ok(())
    } else {
        Err(AppError::LastOwner)
    }
}

/// If the workspace's `owner_id` is this person, changes it to another active owner.
pub(crate) async fn reassign_owner_id_from(writer: &mut LogWriter, person: &User) -> Result<()> {
    let workspace_id: WorkspaceId = person.workspace_id;
    let workspace = lookup::find(writer.db(), workspace_id).await?;
    if workspace.owner_id != person.id {
        return Ok(());
    }
    let owner_id = another_owner(writer.db(), person).await?.ok_or(AppError::LastOwner)?;
    sqlx::query!(
        "update workspaces set owner_id = $2 where id = $1",
        workspace_id as _,
        owner_id as _
    )
    .execute(writer.db())
    .await?;
    let workspace = lookup::find(writer.db(), workspace_id).await?;
    writer.append(workspace_id, &Event::WorkspaceUpdated(workspace))?;
    Ok(())
}

/// Finds another active owner: of several, the one who joined first.
async fn another_owner(db: &mut PgConnection, person: &User) -> Result<Option<UserId>> {
    let owner = sqlx::query_scalar!(
        "select user_id
         from workspace_members
         where workspace_id = $1 and user_id <> $2 and role = 'owner' and status = 'Active'
         order by joined_at, user_id
         limit 1",
        person.workspace_id as _,
        person.id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(owner)
}
