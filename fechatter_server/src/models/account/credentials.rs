//! Credentials of an account: its id and the hash of its password.

use fechatter_core::UserId;
use sqlx::PgExecutor;

use crate::error::{AppError, Result};

/// An account's id, and the hash of its password.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) id: UserId,
    pub(crate) password_hash: String,
}

impl Credentials {
    /// Replaces a hash that was made with outdated parameters, unless the password was changed
    /// meanwhile.
    pub(crate) async fn replace_hash(
        &mut self,
        db: impl PgExecutor<'_>,
        hash: String,
    ) -> Result<()> {
        set_password_hash(db, self.id, &self.password_hash, &hash).await?;
        self.password_hash = hash;
        Ok(())
    }
}

/// Returns the hash of an account's password.
pub(crate) async fn password_hash(db: impl PgExecutor<'_>, id: UserId) -> Result<String> {
    let hash = sqlx::query_scalar!("select password_hash from users where id = $1", id as _)
        .fetch_optional(db)
        .await?;
    hash.ok_or(AppError::SessionEnded)
}

/// Replaces the hash of an account's password. Returns false if it is not the expected one any more.
pub(crate) async fn set_password_hash(
    db: impl PgExecutor<'_>,
    id: UserId,
    expected: &str,
    hash: &str,
) -> Result<bool> {
    let updated = sqlx::query!(
        "update users set password_hash = $3 where id = $1 and password_hash = $2",
        id as _,
        expected,
        hash
    )
    .execute(db)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Finds the account of this e-mail address.
pub(crate) async fn find(db: impl PgExecutor<'_>, email_key: &str) -> Result<Option<Credentials>> {
    let account = sqlx::query_as!(
        Credentials,
        "select id, password_hash from users where email_key = $1",
        email_key
    )
    .fetch_optional(db)
    .await?;
    Ok(account)
}
