//! The code that the first workspace needs where only the first one may be created by signing up:
//! otherwise whoever finds a new server first would own it.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fechatter_core::Timestamp;
use serde::Serialize;
use sqlx::PgExecutor;

use crate::config::Config;
use crate::error::{AppError, Result};
use crate::utils::key::code_digest;

/// The time for which a link can be used.
const VALIDITY: Duration = Duration::from_hours(24);

/// A link with which somebody creates the first workspace.
#[derive(Debug, Serialize)]
pub(crate) struct SetupLink {
    pub(crate) url: String,
    pub(crate) expires_at: Timestamp,
}

/// Creates a link. The earlier link can no longer be used.
pub(crate) async fn create_link(db: impl PgExecutor<'_>, config: &Config) -> Result<SetupLink> {
    let code = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    let expires_at = sqlx::query_scalar!(
        r#"insert into setup_codes (code_digest, expires_at)
           values ($1, clock_timestamp() + $2)
           on conflict (is_only) do update
           set code_digest = excluded.code_digest, expires_at = excluded.expires_at
           returning expires_at"#,
        code_digest(&code),
        VALIDITY as _
    )
    .fetch_one(db)
    .await?;
    Ok(SetupLink { url: format!("{}/setup#{code}", config.server.public_url), expires_at })
}

/// Refuses a code that is not that of the newest link, or has expired.
pub(crate) async fn check(db: impl PgExecutor<'_>, code: Option<&str>) -> Result<()> {
    let code = code.ok_or(AppError::SetupCodeRequired)?;
    let is_valid = sqlx::query_scalar!(
        r#"select exists (
               select 1 from setup_codes
               where code_digest = $1 and expires_at > clock_timestamp()
           ) as "is_valid!""#,
        code_digest(code)
    )
    .fetch_one(db)
    .await?;
    if is_valid { Ok(()) } else { Err(AppError::SetupCodeRequired) }
}
