//! Links to a new password that an owner or admin creates for a person of the workspace.

use fechatter_core::log::Log;
use fechatter_core::{UserId, WorkspaceId};
use sqlx::PgConnection;

use crate::config::Config;
use crate::error::{AppError, Result};
use crate::models::account::user;
use crate::models::session;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::password_reset::{self, ResetLink};
use crate::models::workspace::audit::{self, Action, Author};
use crate::models::workspace::role;

/// Creates a link for a person whom the caller may manage. It opens the account, so the account must
/// not be in another workspace, where the caller has no rights.
pub(crate) async fn create(
    log: &Log,
    config: &Config,
    caller: CurrentUser,
    person: UserId,
) -> Result<ResetLink> {
    let mut db = log.db().acquire().await?;
    check(&mut db, &caller, person).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    // The account cannot join another workspace meanwhile.
    session::lock_account(writer.db(), person).await?;
    check(writer.db(), &caller, person).await?;
    let link = password_reset::create_link(writer.db(), config, person).await?;
    let author = Author::Person(caller.id);
    audit::record(writer.db(), caller.workspace_id, author, Action::CreatedResetLink(person))
        .await?;
    writer.commit().await?;
    Ok(link)
}

/// Refuses unless the caller may create a link for the person. Nobody creates one for themselves,
/// because whoever has stolen a session could take over the account with it.
async fn check(db: &mut PgConnection, caller: &CurrentUser, person: UserId) -> Result<()> {
    let target = user::find(&mut *db, caller.workspace_id, person).await?;
    role::require_may_manage(caller, &target)?;
    if person == caller.id {
        return Err(AppError::Forbidden);
    }
    if is_elsewhere(db, person, caller.workspace_id).await? {
        return Err(AppError::SharedAccount);
    }
    Ok(())
}

/// Returns true if an account is in another workspace, too.
async fn is_elsewhere(
    db: &mut PgConnection,
    user_id: UserId,
    workspace_id: WorkspaceId,
) -> Result<bool> {
    let is_elsewhere = sqlx::query_scalar!(
        r#"select exists (
               select 1 from workspace_members
               where user_id = $1 and workspace_id <> $2 and left_at is null
           ) as "is_elsewhere!""#,
        user_id as _,
        workspace_id as _
    )
    .fetch_one(db)
    .await?;
    Ok(is_elsewhere)
}
