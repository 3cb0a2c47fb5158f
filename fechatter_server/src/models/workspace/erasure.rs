//! The erasure of an account: everything that says who a person was. Their id stays, because messages
//! and events name it.

use clap::ValueEnum;
use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::User;
use fechatter_core::{Timestamp, UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::account::{credentials, user};
use crate::models::session::authentication::Authentication;
use crate::models::session::credential_change;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::{self, Selection};
use crate::models::workspace::{lookup, offboarding, role};
use crate::utils::text::Password;

/// The name of everybody whose account is erased.
const NAME: &str = "Former member";

/// A request to erase the caller's account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erasure {
    #[schema(value_type = String, format = Password)]
    password: Password,
    messages: MessagesOf,
}

/// The fate of an erased person's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum MessagesOf {
    /// They stay.
    Keep,
    /// They are deleted, in one commit with the rest.
    Blank,
}

/// Erases the caller's account in all workspaces. The memberships of chats end soon afterwards, as in
/// every offboarding.
pub(crate) async fn erase_own(
    auth: &Authentication,
    caller: CurrentUser,
    request: Erasure,
) -> Result<()> {
    let (permit, old_hash) = credential_change::verify(auth, caller, &request.password).await?;
    let new_hash = permit.hash(&Password::random()).await?;
    drop(permit);
    let mut writer = lock(&auth.db, &auth.log, caller.id).await?;
    caller.recheck(writer.db()).await?;
    if !credentials::set_password_hash(writer.db(), caller.id, &old_hash, &new_hash).await? {
        return Err(AppError::InvalidCredentials);
    }
    erase(&mut writer, caller.id, request.messages).await?;
    Ok(writer.commit().await?)
}

/// Locks the logs of all workspaces that an account is or was in, and then the account.
pub(crate) async fn lock(db: &PgPool, log: &Log, id: UserId) -> Result<LogWriter> {
    let mut workspaces = workspaces_ever(&mut *db.acquire().await?, id).await?;
    loop {
        let mut writer = LogWriter::lock(log, &workspaces).await?;
        session::lock_account(writer.db(), id).await?;
        let current = workspaces_ever(writer.db(), id).await?;
        if current == workspaces {
            return Ok(writer);
        }
        // The account has joined a workspace while this waited for the locks.
        workspaces = current;
    }
}

pub(crate) async fn workspaces_ever(db: &mut PgConnection, id: UserId) -> Result<Vec<WorkspaceId>> {
    let workspaces = sqlx::query_scalar!(
        "select workspace_id from workspace_members where user_id = $1 order by workspace_id",
        id as _
    )
    .fetch_all(db)
    .await?;
    Ok(workspaces)
}

/// Erases an account. The caller holds the locks of the account and of the logs of all workspaces
/// that it is or was in, and has given it a password that nobody knows.
pub(crate) async fn erase(writer: &mut LogWriter, id: UserId, messages: MessagesOf) -> Result<()> {
    let workspaces = workspaces_ever(writer.db(), id).await?;
    let mut present = Vec::new();
    for workspace_id in &workspaces {
        match user::find(writer.db(), *workspace_id, id).await {
            Ok(person) => present.push(person),
            Err(AppError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    require_owners_elsewhere(writer.db(), &present).await?;
    let still_in: Vec<_> = present.iter().map(|person| person.workspace_id).collect();
    session::end(writer, id, &still_in, Selection::All).await?;
    forget(writer.db(), id).await?;
    for workspace_id in workspaces {
        if let Some(person) = present.iter().find(|person| person.workspace_id == workspace_id) {
            offboarding::begin(writer, person, (id, LeaveReason::Left)).await?;
        } else {
            let former = user::find_including_left(writer.db(), workspace_id, id).await?;
            writer.append(workspace_id, &Event::UserUpdated(former))?;
        }
        if messages == MessagesOf::Blank {
            let blanked_at = blank(writer.db(), workspace_id, id).await?;
            writer.append(workspace_id, &Event::MessagesBlanked { user_id: id, blanked_at })?;
        }
    }
    Ok(())
}

/// Refuses if the person is the last active owner of a workspace, and names all such workspaces.
async fn require_owners_elsewhere(db: &mut PgConnection, present: &[User]) -> Result<()> {
    let mut names = Vec::new();
    for person in present {
        match role::require_not_last_owner(db, person).await {
            Ok(()) => {}
            Err(AppError::LastOwner) => {
                names.push(lookup::find(&mut *db, person.workspace_id).await?.name);
            }
            Err(error) => return Err(error),
        }
    }
    if names.is_empty() { Ok(()) } else { Err(AppError::LastOwnerOf(names)) }
}

/// Removes names, addresses and everything else that was stored for the person alone.
async fn forget(db: &mut PgConnection, id: UserId) -> Result<()> {
    let email_key = sqlx::query_scalar!("select email_key from users where id = $1", id as _)
        .fetch_one(&mut *db)
        .await?;
    let address = format!("former-{id}@invalid");
    sqlx::query!("update users set email = $2, email_key = $2 where id = $1", id as _, address)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "with images as (
             delete from avatars using workspace_members as m
             where m.user_id = $1
               and avatars.workspace_id = m.workspace_id
               and avatars.user_id = $1
         )
         update workspace_members
         set fullname = $2, title = null, avatar_version = null
         where user_id = $1",
        id as _,
        NAME
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("update sessions set user_agent = null, ip = null where user_id = $1", id as _)
        .execute(&mut *db)
        .await?;
    // Files that somebody else has uploaded, or that a message holds, stay.
    sqlx::query!(
        "with own as (
             delete from uploads where user_id = $1 returning workspace_id, hash
         )
         update files as f
         set touched_at = clock_timestamp() - interval '25 hours'
         from own
         where f.workspace_id = own.workspace_id
           and f.hash = own.hash
           and not exists (
               select 1 from uploads as u
               where u.workspace_id = f.workspace_id and u.hash = f.hash and u.user_id <> $1
           )
           and not exists (
               select 1 from message_files as a
               where a.workspace_id = f.workspace_id and a.hash = f.hash
           )",
        id as _
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "with words as (
             delete from member_words using workspace_members as m
             where m.user_id = $1
               and member_words.workspace_id = m.workspace_id
               and member_words.user_id = $1
         ), chosen as (
             delete from chat_preferences using workspace_members as m
             where m.user_id = $1
               and chat_preferences.workspace_id = m.workspace_id
               and chat_preferences.user_id = $1
         ), stored as (
             delete from user_preferences where user_id = $1
         ), marks as (
             delete from read_marks using workspace_members as m
             where m.user_id = $1
               and read_marks.workspace_id = m.workspace_id
               and read_marks.user_id = $1
         ), links as (
             delete from password_resets where user_id = $1
         ), failures as (
             delete from signin_failures where email_key = $2
         )
         delete from invites where email_key = $2",
        id as _,
        email_key
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes all messages of a person in a workspace at once; their rows are emptied later.
async fn blank(db: &mut PgConnection, workspace_id: WorkspaceId, id: UserId) -> Result<Timestamp> {
    let blanked_at = sqlx::query_scalar!(
        r#"insert into blanked_people (workspace_id, user_id, blanked_at)
           values ($1, $2, date_trunc('milliseconds', clock_timestamp()))
           returning blanked_at"#,
        workspace_id as _,
        id as _
    )
    .fetch_one(db)
    .await?;
    Ok(blanked_at)
}
