//! Links that set a new password, for people who have forgotten theirs. Nobody sends them by e-mail:
//! an owner, an admin or the operator hands them over.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fechatter_core::{Timestamp, UserId};
use serde::{Deserialize, Serialize};
use sqlx::{PgExecutor, PgPool};
use utoipa::ToSchema;

use crate::config::Config;
use crate::error::{AppError, Result};
use crate::models::account::device::Device;
use crate::models::account::throttle::{self, Attempts, FailureBucket};
use crate::models::session::authentication::Authentication;
use crate::models::session::{self, Selection};
use crate::services::limits::Caller;
use crate::utils::key::code_digest;
use crate::utils::text::Password;

/// The time for which a link can be used.
const VALIDITY: Duration = Duration::from_hours(1);

/// A link that sets a new password once. It is shown only once, to the person who has created it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResetLink {
    pub(crate) url: String,
    pub(crate) expires_at: Timestamp,
}

/// A request to set a new password with the token of a link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordReset {
    token: String,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
    new_password: Password,
}

/// Creates a link for an account. Its earlier link can no longer be used.
pub(crate) async fn create_link(
    db: impl PgExecutor<'_>,
    config: &Config,
    user_id: UserId,
) -> Result<ResetLink> {
    let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let expires_at = sqlx::query_scalar!(
        r#"insert into password_resets (user_id, token_digest, expires_at)
           values ($1, $2, clock_timestamp() + $3)
           on conflict (user_id) do update
           set token_digest = excluded.token_digest, expires_at = excluded.expires_at
           returning expires_at"#,
        user_id as _,
        code_digest(&token),
        VALIDITY as _
    )
    .fetch_one(db)
    .await?;
    Ok(ResetLink { url: format!("{}/reset#{token}", config.server.public_url), expires_at })
}

/// Sets a new password with the token of a link, and ends all sessions of the account in the same
/// commit. The link stays valid if the password is refused.
pub(crate) async fn confirm(
    auth: &Authentication,
    device: &Device,
    request: PasswordReset,
) -> Result<()> {
    request.new_password.check_format()?;
    let digest = code_digest(&request.token);
    let caller = Caller::Address(device.network());
    let (hash_permit, connection_permit) = auth.acquire_permits(caller).await?;
    let attempts = [Attempts::Address(device), Attempts::AllUnknownDevices];
    throttle::count_attempt(&auth.db, auth.policy(), attempts).await?;
    let user_id = find_account(&auth.db, &digest).await?.ok_or(AppError::TokenInvalid)?;
    drop(connection_permit);
    request.new_password.check_strength(auth.policy().refuse_common_passwords)?;
    let hash = hash_permit.hash(&request.new_password).await?;
    drop(hash_permit);

    let _permit = auth.connection_permit(caller).await?;
    let (mut writer, workspaces) = session::lock_everywhere(&auth.db, &auth.log, user_id).await?;
    let used = sqlx::query!(
        "delete from password_resets
         where user_id = $1 and token_digest = $2 and expires_at > clock_timestamp()",
        user_id as _,
        digest
    )
    .execute(writer.db())
    .await?;
    if used.rows_affected() == 0 {
        return Err(AppError::TokenInvalid);
    }
    let email_key = sqlx::query_scalar!(
        "update users set password_hash = $2 where id = $1 returning email_key",
        user_id as _,
        hash
    )
    .fetch_one(writer.db())
    .await?;
    session::end(&mut writer, user_id, &workspaces, Selection::All).await?;
    writer.commit().await?;
    // The person signs in next, and has guessed before.
    Ok(throttle::forget_failures(&auth.db, FailureBucket::UnknownDevices(&email_key)).await?)
}

/// Makes the link of an account unusable, because its password has been changed.
pub(crate) async fn withdraw_link(db: impl PgExecutor<'_>, user_id: UserId) -> Result<()> {
    sqlx::query!("delete from password_resets where user_id = $1", user_id as _)
        .execute(db)
        .await?;
    Ok(())
}

async fn find_account(db: &PgPool, digest: &[u8]) -> Result<Option<UserId>> {
    let found = sqlx::query_scalar!(
        "select user_id from password_resets
         where token_digest = $1 and expires_at > clock_timestamp()",
        digest
    )
    .fetch_optional(db)
    .await?;
    Ok(found)
}
