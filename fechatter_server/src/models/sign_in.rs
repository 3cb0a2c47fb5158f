//! Sign-up and sign-in, with an e-mail address and a password.

use fechatter_core::db::begin;
use fechatter_core::log::LogWriter;
use fechatter_core::user::User;
use fechatter_core::{UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::account::device::Device;
use crate::models::account::throttle::{self, Attempts, FailureBucket, SignInAttempt};
use crate::models::account::user;
use crate::models::session::authentication::Authentication;
use crate::models::session::{self, Session};
use crate::models::workspace::invite;
use crate::models::workspace::{self, JoinBy};
use crate::services::device_token::{DeviceId, DeviceToken};
use crate::services::limits::{Caller, ConnectionPermit};
use crate::services::password::Passwords;
use crate::utils::key::{code_digest, key};
use crate::utils::text::{Email, FullName, Password, WorkspaceName};

/// A request to sign up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUp {
    fullname: FullName,
    email: Email,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    password: Password,
    /// Created if it does not exist; may be absent with an invite's code.
    workspace: Option<WorkspaceName>,
    invite_code: Option<String>,
    /// The code of the operator's link, for the first workspace.
    setup_code: Option<String>,
}

/// A request to sign in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Password,
    workspace: Option<String>,
    /// From an earlier sign-in on this device, for clients without cookies.
    pub(crate) device_token: Option<String>,
}

/// A session that has just begun.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) session: Session,
    /// For the next sign-in on this device.
    pub(crate) device_token: String,
}

/// The account of a sign-up request.
enum SignUpAccount {
    /// A new account, with the hash of its password.
    New { password_hash: String },
    /// An existing account that is not active in any workspace; its password has been verified.
    Returning { id: UserId, password_hash: String },
}

/// The workspace of a sign-up request.
enum JoinTarget {
    Existing(WorkspaceId, JoinBy),
    New,
}

/// Creates an account in a new or an existing workspace, and its first session. A user whose
/// account is active in no workspace also signs up to join a workspace again, because all other
/// endpoints refuse the account.
pub(crate) async fn sign_up(
    auth: &Authentication,
    request: SignUp,
    device: &Device,
) -> Result<SignedIn> {
    if request.workspace.is_none() && request.invite_code.is_none() {
        return Err(AppError::invalid("workspace", "is missing"));
    }
    request.password.check_format()?;
    let caller = Caller::Address(device.network());
    let (target, account) = find_target_and_account(auth, &request, device).await?;

    let (mut writer, user, connection_permit) =
        add_to_workspace(auth, caller, target, &request, &account).await?;
    let session_user = (user.id, Some(user.workspace_id));
    let (session, count) = session::open(writer.db(), session_user, device).await?;
    let password_hash = match account {
        SignUpAccount::New { password_hash } => password_hash,
        SignUpAccount::Returning { password_hash, .. } => {
            let failures = FailureBucket::UnknownDevices(&key(request.email.as_str()));
            throttle::forget_failures(writer.db(), failures).await?;
            password_hash
        }
    };
    writer.commit().await?;
    drop(connection_permit);
    let device_token = auth.device_key.issue(DeviceId::random(), user.id, &password_hash);
    auth.limit_sessions(&user, count).await;
    Ok(SignedIn { session, device_token })
}

/// Finds the workspace and the account of the request, and hashes or verifies the password. The
/// checks that reject most requests run first, so that rejected requests stay cheap.
async fn find_target_and_account(
    auth: &Authentication,
    request: &SignUp,
    device: &Device,
) -> Result<(JoinTarget, SignUpAccount)> {
    let (hash_permit, connection_permit) =
        auth.acquire_permits(Caller::Address(device.network())).await?;
    let attempts = [Attempts::Address(device), Attempts::AllUnknownDevices];
    throttle::count_attempt(&auth.db, auth.policy(), attempts).await?;
    let target = find_join_target(auth, request).await?;
    let returning = find_returning_account(auth, request).await?;
    drop(connection_permit);
    let Some((id, password_hash)) = returning else {
        request.password.check_strength(auth.policy().refuse_common_passwords)?;
        return Ok((
            target,
            SignUpAccount::New { password_hash: hash_permit.hash(&request.password).await? },
        ));
    };
    if hash_permit.verify(&request.password, Some(&password_hash)).await? {
        Ok((target, SignUpAccount::Returning { id, password_hash }))
    } else {
        Err(AppError::EmailTaken)
    }
    // The permit ends here, so that others can hash while this caller waits for logs and the disk.
}

/// Adds the person to the workspace. The caller ends the transaction, and then drops the connection
/// permit.
async fn add_to_workspace(
    auth: &Authentication,
    caller: Caller,
    target: JoinTarget,
    request: &SignUp,
    account: &SignUpAccount,
) -> Result<(LogWriter, User, ConnectionPermit)> {
    let (id, join_by) = match target {
        JoinTarget::Existing(id, join_by) => (id, join_by),
        JoinTarget::New => {
            let connection_permit = auth.connection_permit(caller).await?;
            let mut writer = LogWriter::begin(&auth.log).await?;
            if let Some(user) = create_workspace(&mut writer, auth, request, account).await? {
                return Ok((writer, user, connection_permit));
            }
            // Another request has just created it.
            drop(writer);
            let id = find_named_workspace(&auth.db, request).await?.ok_or(AppError::Busy)?;
            (id, JoinBy::Name)
        }
    };
    let connection_permit = auth.connection_permit_in(id, caller).await?;
    let mut writer = LogWriter::lock(&auth.log, &[id]).await?;
    let user = join_existing_workspace(&mut writer, (id, &join_by), request, account).await?;
    Ok((writer, user, connection_permit))
}

/// Finds an account that is active in no workspace, and the hash of its password. Counts a failure
/// in advance, as a sign-in does; [`sign_up`] resets it after the password has been verified.
async fn find_returning_account(
    auth: &Authentication,
    request: &SignUp,
) -> Result<Option<(UserId, String)>> {
    let email_key = key(request.email.as_str());
    let account = sqlx::query!(
        r#"select id, password_hash,
                  exists (
                      select 1 from workspace_members as m
                      where m.user_id = u.id and m.status = 'Active'
                  ) as "is_active!"
           from users as u
           where email_key = $1"#,
        email_key
    )
    .fetch_optional(&auth.db)
    .await?;
    let Some(account) = account else { return Ok(None) };
    if account.is_active {
        return Err(AppError::EmailTaken);
    }
    throttle::count_failure(&auth.db, auth.policy(), FailureBucket::UnknownDevices(&email_key))
        .await?;
    Ok(Some((account.id, account.password_hash)))
}

/// Finds the workspace that the request joins or creates. This is only a preliminary check; the
/// write transaction repeats it. The error is the same for a closed workspace and for a workspace
/// that may not be created, so that outsiders cannot learn which workspaces exist.
async fn find_join_target(auth: &Authentication, request: &SignUp) -> Result<JoinTarget> {
    let named_id = find_named_workspace(&auth.db, request).await?;
    let existing = match (&request.invite_code, named_id) {
        (Some(code), named_id) => {
            let digest = code_digest(code);
            let id = invite::workspace_of(&auth.db, &digest).await?;
            let id = id.ok_or(AppError::InviteInvalid)?;
            if request.workspace.is_some() && named_id != Some(id) {
                return Err(AppError::InviteInvalid);
            }
            Some((id, JoinBy::Invite(digest)))
        }
        (None, named_id) => named_id.map(|id| (id, JoinBy::Name)),
    };
    if let Some((id, join_by)) = existing {
        workspace::check_join(&auth.db, id, &join_by, request.email.as_str()).await?;
        return Ok(JoinTarget::Existing(id, join_by));
    }
    // In a transaction, because the check may take an advisory lock, which the rollback releases.
    let mut tx = begin(&auth.db, "begin").await?;
    check_may_create(&mut tx, auth, request).await?;
    tx.rollback().await?;
    Ok(JoinTarget::New)
}

async fn find_named_workspace(db: &PgPool, request: &SignUp) -> Result<Option<WorkspaceId>> {
    match &request.workspace {
        Some(name) => workspace::find_by_name(db, name).await,
        None => Ok(None),
    }
}

/// Refuses if the policy does not allow a new workspace, with the same error as for an existing
/// workspace that cannot be joined by name.
async fn check_may_create(
    db: &mut PgConnection,
    auth: &Authentication,
    request: &SignUp,
) -> Result<()> {
    let policy = auth.policy().workspace_creation;
    let code = request.setup_code.as_deref();
    let checked = workspace::check_creation(db, policy, code).await;
    checked.map_err(|error| match error {
        AppError::WorkspaceCreationClosed => AppError::InviteRequired,
        error => error,
    })
}

/// Signs up into a workspace that exists.
async fn join_existing_workspace(
    writer: &mut LogWriter,
    (id, join_by): (WorkspaceId, &JoinBy),
    request: &SignUp,
    account: &SignUpAccount,
) -> Result<User> {
    // The right to join is checked before the e-mail address, so that outsiders cannot find out
    // which e-mail addresses have an account.
    let grant = workspace::authorize(writer.db(), id, join_by, request.email.as_str()).await?;
    let user_id = ensure_account(writer.db(), request, account).await?;
    // Refuses a person who is suspended in this workspace, or whose offboarding is unfinished.
    workspace::is_in(writer.db(), id, user_id).await?;
    workspace::add_member(writer, id, grant, (user_id, request.fullname.as_str())).await
}

/// Signs up into a new workspace. Returns none if another request has just created it.
async fn create_workspace(
    writer: &mut LogWriter,
    auth: &Authentication,
    request: &SignUp,
    account: &SignUpAccount,
) -> Result<Option<User>> {
    let name = request.workspace.as_ref().ok_or(AppError::InviteInvalid)?;
    check_may_create(writer.db(), auth, request).await?;
    let user_id = ensure_account(writer.db(), request, account).await?;
    let owner = (user_id, request.fullname.as_str());
    workspace::create(writer, &auth.config, name, owner).await
}

/// Returns the account's id, and creates the account if it is new.
async fn ensure_account(
    db: &mut PgConnection,
    request: &SignUp,
    account: &SignUpAccount,
) -> Result<UserId> {
    let password_hash = match account {
        SignUpAccount::Returning { id, .. } => return Ok(*id),
        SignUpAccount::New { password_hash } => password_hash,
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

/// Opens a session for a caller with the right password. The response and its time are the same for
/// an unknown e-mail address, for a wrong password, and for a workspace without this account.
///
/// A device with a token of this account has its own counters, apart from those of unknown devices.
pub(crate) async fn sign_in(
    auth: &Authentication,
    request: SignIn,
    device: &Device,
    device_tokens: &[DeviceToken],
) -> Result<SignedIn> {
    // No account has such a long password or e-mail address, so it is rejected without hashing.
    let email_key = key(request.email.trim());
    if request.password.is_too_long() || request.email.trim().chars().count() > 2 * Email::MAX {
        return Err(AppError::InvalidCredentials);
    }
    for (field, text) in [("email", email_key.as_str()), ("password", request.password.expose())] {
        if text.contains('\0') {
            return Err(AppError::invalid(field, "must not contain NUL"));
        }
    }
    let known = auth.known_device(device_tokens, &email_key).await?;
    let (caller, attempt) = match known {
        Some(id) => (
            Caller::Device(id),
            SignInAttempt {
                own: Attempts::KnownDevice(id),
                failures: FailureBucket::KnownDevice(id),
                is_unknown_device: false,
            },
        ),
        None => (
            Caller::Address(device.network()),
            SignInAttempt {
                own: Attempts::Address(device),
                failures: FailureBucket::UnknownDevices(&email_key),
                is_unknown_device: true,
            },
        ),
    };
    let (hash_permit, connection_permit) = auth.acquire_permits(caller).await?;
    let account = attempt.count(&auth.db, auth.policy(), &email_key).await?;
    drop(connection_permit);
    let hash = account.as_ref().map(|account| account.password_hash.as_str());
    let is_right = hash_permit.verify(&request.password, hash).await?;
    let mut account = account.filter(|_| is_right).ok_or(AppError::InvalidCredentials)?;
    if Passwords::is_outdated(&account.password_hash) {
        let hash = hash_permit.hash(&request.password).await?;
        account.replace_hash(&auth.db, hash).await?;
    }
    drop(hash_permit);

    let connection_permit = auth.connection_permit(caller).await?;
    let mut db = auth.db.acquire().await?;
    let name = request.workspace.as_deref();
    let workspace_id = choose_workspace(&mut db, account.id, name).await?;
    let session_user = (account.id, workspace_id);
    let (session, count) = session::open(&mut db, session_user, device).await?;
    auth.undo_count(&mut db, attempt).await;
    drop((db, connection_permit));
    let device_id = known.unwrap_or_else(DeviceId::random);
    let device_token = auth.device_key.issue(device_id, account.id, &account.password_hash);
    auth.limit_sessions(&session.user, count).await;
    Ok(SignedIn { session, device_token })
}

/// Finds the workspace of this name, in which the account must be active. Returns none if no name
/// is given.
async fn choose_workspace(
    db: &mut PgConnection,
    user_id: UserId,
    name: Option<&str>,
) -> Result<Option<WorkspaceId>> {
    let Some(name) = name else { return Ok(None) };
    let name =
        WorkspaceName::try_from(name.to_owned()).map_err(|_| AppError::InvalidCredentials)?;
    let id = workspace::find_by_name(&mut *db, &name).await?;
    let id = id.ok_or(AppError::InvalidCredentials)?;
    match user::find(db, id, user_id).await {
        Ok(user) => session::require_active(user).map(|user| Some(user.workspace_id)),
        Err(AppError::NotFound) => Err(AppError::InvalidCredentials),
        Err(error) => Err(error),
    }
}
