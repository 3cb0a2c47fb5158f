//! Changes of an account's password or e-mail address. They end the account's other sessions.

use fechatter_core::event::Event;
use fechatter_core::user::User;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{AppError, OnConstraint, Result};
use crate::models::account::throttle::{self, FailureBucket};
use crate::models::account::{credentials, user, words};
use crate::models::session::authentication::Authentication;
use crate::models::session::current_user::CurrentUser;
use crate::models::session::{self, Selection, password_reset};
use crate::services::limits::Caller;
use crate::services::password::HashPermit;
use crate::utils::key::key;
use crate::utils::text::{Email, Password};

/// A request to change the caller's password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    #[schema(value_type = String, format = Password)]
    current_password: Password,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    new_password: Password,
}

/// A request to change the caller's e-mail address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmailChange {
    email: Email,
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// Changes the caller's password, and ends their other sessions in the same commit.
pub(crate) async fn change_password(
    auth: &Authentication,
    caller: CurrentUser,
    change: PasswordChange,
) -> Result<()> {
    change.new_password.check_format()?;
    let (permit, old_hash) = verify(auth, caller, &change.current_password).await?;
    change.new_password.check_strength(auth.policy().refuse_common_passwords)?;
    let new_hash = permit.hash(&change.new_password).await?;
    drop(permit);
    let (mut writer, workspaces) = session::lock_everywhere(&auth.db, &auth.log, caller.id).await?;
    caller.recheck(writer.db()).await?;
    if !credentials::set_password_hash(writer.db(), caller.id, &old_hash, &new_hash).await? {
        return Err(AppError::InvalidCredentials);
    }
    password_reset::withdraw_link(writer.db(), caller.id).await?;
    let others = Selection::Others(caller.session_id);
    session::end(&mut writer, caller.id, &workspaces, others).await?;
    Ok(writer.commit().await?)
}

/// Changes the caller's e-mail address, and ends their other sessions in the same commit. The same
/// address again changes nothing.
pub(crate) async fn change_email(
    auth: &Authentication,
    caller: CurrentUser,
    change: EmailChange,
) -> Result<User> {
    let (permit, old_hash) = verify(auth, caller, &change.password).await?;
    drop(permit);
    let (mut writer, workspaces) = session::lock_everywhere(&auth.db, &auth.log, caller.id).await?;
    caller.recheck(writer.db()).await?;
    let before = user::find(writer.db(), caller.workspace_id, caller.id).await?;
    if before.email == change.email.as_str() {
        return Ok(before);
    }
    let updated = sqlx::query!(
        "update users set email = $2, email_key = $3 where id = $1 and password_hash = $4",
        caller.id as _,
        change.email.as_str(),
        key(change.email.as_str()),
        old_hash
    )
    .execute(writer.db())
    .await
    .on_constraint(&["users_email_key"], AppError::EmailTaken)?;
    if updated.rows_affected() == 0 {
        return Err(AppError::InvalidCredentials);
    }
    for workspace_id in &workspaces {
        let person = user::find(writer.db(), *workspace_id, caller.id).await?;
        words::store(writer.db(), &person).await?;
        writer.append(*workspace_id, &Event::UserUpdated(person))?;
    }
    let others = Selection::Others(caller.session_id);
    session::end(&mut writer, caller.id, &workspaces, others).await?;
    let after = user::find(writer.db(), caller.workspace_id, caller.id).await?;
    writer.commit().await?;
    Ok(after)
}

/// Verifies the caller's password. Returns the right to hash another one, and the hash. Wrong passwords
/// of a session are counted for it alone, so that they delay no sign-in.
pub(crate) async fn verify(
    auth: &Authentication,
    caller: CurrentUser,
    password: &Password,
) -> Result<(HashPermit, String)> {
    if password.is_too_long() || password.expose().contains('\0') {
        return Err(AppError::InvalidCredentials);
    }
    let permit = auth.passwords.permit(Caller::Person(caller.id))?;
    let failures = FailureBucket::Session(caller.session_id);
    throttle::count_failure(&auth.db, auth.policy(), failures).await?;
    let hash = credentials::password_hash(&auth.db, caller.id).await?;
    if !permit.verify(password, Some(&hash)).await? {
        return Err(AppError::InvalidCredentials);
    }
    throttle::forget_failures(&auth.db, failures).await?;
    Ok((permit, hash))
}
