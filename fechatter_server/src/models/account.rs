//! Accounts: an e-mail address, a password, and a way in.

use fechatter_core::config::AccountsConfig;
use fechatter_core::db::begin;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::User;
use fechatter_core::{UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::middlewares::device::Device;
use crate::models::session::{self, Session};
use crate::models::workspace::{self, Door};
use crate::models::{invite, throttle, user};
use crate::services::password::{Passwords, Turn};
use crate::utils::key::key;
use crate::utils::text::{Email, FullName, Password, WorkspaceName};

/// A request to sign up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUp {
    #[schema(value_type = String)]
    fullname: FullName,
    #[schema(value_type = String)]
    email: Email,
    #[schema(value_type = String)]
    password: Password,
    /// Created if it does not exist; may be absent with an invite's code.
    #[schema(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    invite_code: Option<String>,
}

/// A request to sign in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    email: String,
    #[schema(value_type = String)]
    password: Password,
    workspace: Option<String>,
}

/// Whose account it is that signs up.
enum Account {
    /// Nobody's yet: it is to have this password, hashed.
    New(String),
    /// That of somebody who is active in no workspace, and knows its password.
    Returning(UserId),
    /// Not theirs to sign up, for this reason.
    Refused(AppError),
}

/// Creates an account in a workspace, new or existing, and its first session. An account that is
/// active in no workspace comes back in the same way: it has no other.
pub(crate) async fn sign_up(
    (db, log): (&PgPool, &Log),
    policy: &AccountsConfig,
    turn: Turn,
    (request, device): (SignUp, &Device),
) -> Result<Session> {
    if request.workspace.is_none() && request.invite_code.is_none() {
        return Err(AppError::invalid("workspace", "is missing"));
    }
    request.password.check(policy.refuse_common_passwords)?;
    let account = match returning(db, policy, &turn, &request).await? {
        Some(account) => account,
        None => Account::New(turn.hash(&request.password).await?),
    };
    // Others hash while this one waits for logs and for the disk.
    drop(turn);

    let mut writer = LogWriter::begin(log).await?;
    let user = match find_door(writer.db(), &request).await? {
        Some((id, door)) => enter(&mut writer, (id, &door), &request, account).await?,
        None => found(&mut writer, policy, &request, account).await?,
    };
    let session = session::open(writer.db(), user, device).await?;
    writer.commit().await?;
    Ok(session)
}

/// The account of somebody who is active in no workspace. Guesses at its password count as they do
/// when signing in; what comes of them is told behind the door only.
async fn returning(
    db: &PgPool,
    policy: &AccountsConfig,
    turn: &Turn,
    request: &SignUp,
) -> Result<Option<Account>> {
    let email_key = key(request.email.as_str());
    let account = sqlx::query!(
        "select id, password_hash
         from users as u
         where email_key = $1
           and not exists (
               select 1 from workspace_members as m
               where m.user_id = u.id and m.status = 'Active')",
        email_key
    )
    .fetch_optional(db)
    .await?;
    let Some(account) = account else { return Ok(None) };
    match throttle::count_failure(db, policy, &email_key).await {
        Ok(()) => {}
        Err(error @ AppError::RateLimited(_)) => return Ok(Some(Account::Refused(error))),
        Err(error) => return Err(error),
    }
    if !turn.verify(&request.password, Some(&account.password_hash)).await? {
        return Ok(Some(Account::Refused(AppError::EmailTaken)));
    }
    throttle::forget_failures(db, &email_key).await?;
    Ok(Some(Account::Returning(account.id)))
}

/// The existing workspace that the request means, and how to get in.
async fn find_door(db: &mut PgConnection, request: &SignUp) -> Result<Option<(WorkspaceId, Door)>> {
    let named = match &request.workspace {
        Some(name) => workspace::find_by_name(&mut *db, name).await?,
        None => None,
    };
    let Some(code) = &request.invite_code else {
        return Ok(named.map(|id| (id, Door::Open)));
    };
    let digest = invite::digest(code);
    let id = invite::workspace_of(db, &digest).await?.ok_or(AppError::InviteInvalid)?;
    if request.workspace.is_some() && named != Some(id) {
        return Err(AppError::InviteInvalid);
    }
    Ok(Some((id, Door::Invite(digest))))
}

/// Signs up into a workspace that exists.
async fn enter(
    writer: &mut LogWriter,
    (id, door): (WorkspaceId, &Door),
    request: &SignUp,
    account: Account,
) -> Result<User> {
    writer.add_locks(&[id]).await?;
    // The door comes before the address, so that those outside cannot ask for addresses.
    let admission = workspace::open(writer.db(), id, door, request.email.as_str()).await?;
    let user_id = settle(writer.db(), request, account).await?;
    // Who is suspended in this very workspace does not get in by another door.
    if let Ok(known) = user::find(writer.db(), id, user_id).await {
        session::active(known)?;
    }
    workspace::enter(writer, id, admission, (user_id, request.fullname.as_str())).await
}

/// Signs up into a workspace that does not exist yet, or came to exist just now.
async fn found(
    writer: &mut LogWriter,
    policy: &AccountsConfig,
    request: &SignUp,
    account: Account,
) -> Result<User> {
    let name = request.workspace.as_ref().ok_or(AppError::InviteInvalid)?;
    workspace::check_creation(writer.db(), policy.workspace_creation).await?;
    let user_id = settle(writer.db(), request, account).await?;
    let owner = (user_id, request.fullname.as_str());
    if let Some(user) = workspace::create(writer, policy, name, owner).await? {
        return Ok(user);
    }
    // Somebody else has just created it: a new statement sees theirs.
    let id = workspace::find_by_name(writer.db(), name).await?.ok_or(AppError::Busy)?;
    writer.add_locks(&[id]).await?;
    let email = request.email.as_str();
    let admission = workspace::open(writer.db(), id, &Door::Open, email).await?;
    workspace::enter(writer, id, admission, owner).await
}

/// The account's id, now that it exists in any case.
async fn settle(db: &mut PgConnection, request: &SignUp, account: Account) -> Result<UserId> {
    let password_hash = match account {
        Account::Returning(id) => return Ok(id),
        Account::Refused(error) => return Err(error),
        Account::New(password_hash) => password_hash,
    };
    let id = sqlx::query_scalar!(
        "insert into users (email, email_key, password_hash)
         values ($1, $2, $3)
         on conflict (email_key) do nothing
         returning id",
        request.email.as_str(),
        key(request.email.as_str()),
        password_hash
    )
    .fetch_optional(db)
    .await?;
    id.ok_or(AppError::EmailTaken)
}

/// Opens a session for whoever knows the password. An unknown address, a wrong password and a
/// workspace that the account is not in cannot be told apart, by answer or by time.
pub(crate) async fn sign_in(
    db: &PgPool,
    policy: &AccountsConfig,
    turn: Turn,
    (request, device): (SignIn, &Device),
) -> Result<Session> {
    // Neither can be anybody's, and neither is worth a hash.
    let email_key = key(request.email.trim());
    if request.password.is_too_long() || request.email.trim().chars().count() > 2 * Email::MAX {
        return Err(AppError::InvalidCredentials);
    }
    for (field, text) in [("email", email_key.as_str()), ("password", request.password.expose())] {
        if text.contains('\0') {
            return Err(AppError::invalid(field, "must not contain NUL"));
        }
    }
    throttle::count_failure(db, policy, &email_key).await?;
    let account =
        sqlx::query!("select id, password_hash from users where email_key = $1", email_key)
            .fetch_optional(db)
            .await?;
    let hash = account.as_ref().map(|account| account.password_hash.as_str());
    let known = turn.verify(&request.password, hash).await?;
    let account = account.filter(|_| known).ok_or(AppError::InvalidCredentials)?;
    let rehashed = if Passwords::is_outdated(&account.password_hash) {
        Some(turn.hash(&request.password).await?)
    } else {
        None
    };
    drop(turn);

    let mut tx = begin(db, "begin").await?;
    let user = choose_workspace(&mut tx, account.id, request.workspace.as_deref()).await?;
    throttle::forget_failures(&mut *tx, &email_key).await?;
    if let Some(hash) = rehashed {
        sqlx::query!("update users set password_hash = $2 where id = $1", account.id as _, hash)
            .execute(&mut *tx)
            .await?;
    }
    let session = session::open(&mut tx, user, device).await?;
    tx.commit().await?;
    Ok(session)
}

async fn choose_workspace(
    db: &mut PgConnection,
    user_id: UserId,
    name: Option<&str>,
) -> Result<User> {
    let Some(name) = name else { return session::last_used(db, user_id, None).await };
    let name =
        WorkspaceName::try_from(name.to_owned()).map_err(|_| AppError::InvalidCredentials)?;
    let id = workspace::find_by_name(&mut *db, &name).await?;
    let id = id.ok_or(AppError::InvalidCredentials)?;
    match user::find(db, id, user_id).await {
        Ok(user) => session::active(user),
        Err(AppError::NotFound) => Err(AppError::InvalidCredentials),
        Err(error) => Err(error),
    }
}
