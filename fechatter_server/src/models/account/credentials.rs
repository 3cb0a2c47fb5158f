//! Credentials of an account: its id and the hash of its password.

use fechatter_core::UserId;
use sqlx::PgExecutor;

use crate::error::Result;

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
        sqlx::query!(
            "update users set password_hash = $2 where id = $1 and password_hash = $3",
            self.id as _,
            hash,
            self.password_hash
        )
        .execute(db)
        .await?;
        self.password_hash = hash;
        Ok(())
    }
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
