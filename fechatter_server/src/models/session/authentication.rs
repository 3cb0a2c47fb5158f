//! The resources for sign-ups and sign-ins. Requests without a session must neither use up the
//! resources of signed-in people nor lock the owner of an account out.

use std::sync::Arc;

use fechatter_core::WorkspaceId;
use fechatter_core::log::Log;
use fechatter_core::user::User;
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use crate::config::{AccountsConfig, Config};
use crate::error::Result;
use crate::models::account::credentials;
use crate::models::account::throttle::SignInAttempt;
use crate::models::session::{self, Selection};
use crate::services::device_token::{DeviceId, DeviceKey, DeviceToken};
use crate::services::limits::{Caller, ConnectionPermit, RequestLimits};
use crate::services::password::{HashPermit, Passwords};

/// The parts of the server that sign-up and sign-in need.
#[derive(Debug, Clone)]
pub(crate) struct Authentication {
    pub(crate) db: PgPool,
    pub(crate) log: Log,
    pub(crate) config: Arc<Config>,
    pub(crate) device_key: DeviceKey,
    pub(crate) passwords: Passwords,
    pub(crate) limits: RequestLimits,
}

impl Authentication {
    pub(crate) fn policy(&self) -> &AccountsConfig {
        &self.config.accounts
    }

    /// Acquires a permit to have passwords hashed, and a permit to use a database connection within
    /// the quota for authentication. The cheapest checks come first: the rate limit, then the
    /// number of callers with a hash permit.
    pub(crate) async fn acquire_permits(
        &self,
        caller: Caller,
    ) -> Result<(HashPermit, ConnectionPermit)> {
        self.limits.take(caller)?;
        let hash_permit = self.passwords.permit(caller)?;
        let connection_permit = self.connection_permit(caller).await?;
        Ok((hash_permit, connection_permit))
    }

    /// Returns the device id of the first of these tokens that belongs to the account of this
    /// e-mail address.
    pub(crate) async fn known_device(
        &self,
        tokens: &[DeviceToken],
        email_key: &str,
    ) -> Result<Option<DeviceId>> {
        let Some(first) = tokens.first() else { return Ok(None) };
        self.limits.take(Caller::Device(first.id))?;
        let _permit = self.limits.connection_for_authentication(Caller::Device(first.id)).await?;
        let Some(account) = credentials::find(&self.db, email_key).await? else { return Ok(None) };
        let belongs_to_account = |token: &&DeviceToken| {
            self.device_key.belongs_to(token, account.id, &account.password_hash)
        };
        Ok(tokens.iter().find(belongs_to_account).map(|token| token.id))
    }

    /// Waits for a permit to use a database connection, within the quota for authentication.
    pub(crate) async fn connection_permit(&self, caller: Caller) -> Result<ConnectionPermit> {
        self.limits.connection_for_authentication(caller).await
    }

    /// Waits for a permit to use a database connection, within the quota of the workspace that the
    /// caller joins, because the caller waits for the log of this workspace like its people.
    pub(crate) async fn connection_permit_in(
        &self,
        workspace_id: WorkspaceId,
        caller: Caller,
    ) -> Result<ConnectionPermit> {
        self.limits.connection_in(workspace_id, caller).await
    }

    /// Removes a successful attempt from the counters. If this fails, the attempt counts until its
    /// minute is over.
    pub(crate) async fn undo_count(&self, db: &mut PgConnection, attempt: SignInAttempt<'_>) {
        if let Err(error) = attempt.undo_count(db, self.policy()).await {
            warn!(%error, "a successful sign-in could not be removed from the counted attempts");
        }
    }

    /// Ends the least recently used sessions of an account that has too many. The new session stays
    /// valid if this fails; the next sign-in tries again.
    pub(crate) async fn limit_sessions(&self, user: &User, count: i64) {
        let allowed = self.config.limits.sessions_per_person;
        if count <= allowed {
            return;
        }
        let ending = async {
            let caller = Caller::Person(user.id);
            let _permit = self.connection_permit_in(user.workspace_id, caller).await?;
            session::revoke(&self.db, &self.log, user.id, Selection::BeyondNewest(allowed)).await
        };
        if let Err(error) = ending.await {
            warn!(%error, user_id = %user.id, "sessions beyond the limit could not be ended");
        }
    }
}
