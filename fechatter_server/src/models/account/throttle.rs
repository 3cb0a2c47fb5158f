//! Limits on attempts to sign in and to sign up. The counters are in the database, so that all
//! servers share them. Counting does not wait for the disk, so a crash may lose the counts of the
//! last second.

use std::iter;
use std::time::Duration;

use crate::config::AccountsConfig;
use fechatter_core::{SessionId, UserId};
use sqlx::{PgExecutor, PgPool};

use crate::error::{AppError, Result};
use crate::models::account::credentials::Credentials;
use crate::models::account::device::Device;
use crate::services::device_token::DeviceId;

/// Buckets of attempts to sign in or up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempts<'a> {
    /// All attempts from a client's address, and from its IPv6 site.
    Address(&'a Device),
    /// All attempts without the token of a known device.
    AllUnknownDevices,
    /// The attempts of a device that has signed in to the account before.
    KnownDevice(DeviceId),
}

impl Attempts<'_> {
    /// Returns the buckets in the order of counting, and the limit per minute of each.
    fn buckets(self, limits: &AccountsConfig) -> (Vec<String>, Vec<i32>) {
        let buckets = match self {
            Self::Address(device) => {
                let network = format!("address {}", device.network());
                let site = device.site().map(|site| format!("site {site}"));
                let site = site.map(|site| (site, limits.attempts_per_minute_per_site));
                iter::once((network, limits.attempts_per_minute)).chain(site).collect()
            }
            Self::AllUnknownDevices => vec![("all".to_owned(), limits.attempts_per_minute_overall)],
            Self::KnownDevice(device) => {
                vec![(format!("device {device}"), limits.attempts_per_minute)]
            }
        };
        Vec::into_iter(buckets).unzip()
    }
}

/// A bucket that counts wrong passwords.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FailureBucket<'a> {
    /// Wrong passwords of unknown devices for this e-mail address, which may have no account.
    UnknownDevices(&'a str),
    /// Wrong passwords of a device that has signed in to the account before.
    KnownDevice(DeviceId),
    /// Wrong passwords of a session that changes its account.
    Session(SessionId),
}

impl FailureBucket<'_> {
    /// Returns the bucket's name. Those of devices and sessions have a space, so that they cannot
    /// equal an e-mail address.
    fn name(self) -> String {
        match self {
            Self::UnknownDevices(email_key) => email_key.to_owned(),
            Self::KnownDevice(device) => format!("device {device}"),
            Self::Session(SessionId(id)) => format!("session {id}"),
        }
    }
}

/// Counts an attempt to sign up, unless it exceeds one of the limits per minute, which are checked
/// in this order. It uses its own transaction, whose commit does not wait for the disk.
pub(crate) async fn count_attempt(
    db: impl PgExecutor<'_>,
    limits: &AccountsConfig,
    attempts: [Attempts<'_>; 2],
) -> Result<()> {
    let (mut buckets, mut allowed) = (Vec::new(), Vec::new());
    for attempts in attempts {
        let (names, per_minute) = attempts.buckets(limits);
        buckets.extend(names);
        allowed.extend(per_minute);
    }
    let wait = sqlx::query_scalar!("select count_attempts($1, $2)", &buckets, &allowed)
        .fetch_one(db)
        .await?;
    wait.map_or(Ok(()), |seconds| Err(rate_limited(seconds)))
}

/// Counts a failure in advance, before the password is checked. Refuses during the delay after
/// earlier failures. It uses its own transaction, whose commit does not wait for the disk.
pub(crate) async fn count_failure(
    db: impl PgExecutor<'_>,
    limits: &AccountsConfig,
    failures: FailureBucket<'_>,
) -> Result<()> {
    let wait =
        sqlx::query_scalar!("select count_failure($1, $2)", failures.name(), limits.free_failures)
            .fetch_one(db)
            .await?;
    wait.map_or(Ok(()), |seconds| Err(rate_limited(seconds)))
}

/// Forgets failures after a success.
pub(crate) async fn forget_failures(
    db: impl PgExecutor<'_>,
    failures: FailureBucket<'_>,
) -> sqlx::Result<()> {
    let bucket = failures.name();
    sqlx::query!("delete from signin_failures where email_key = $1", bucket).execute(db).await?;
    Ok(())
}

/// The counters of an attempt to sign in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignInAttempt<'a> {
    /// The attempts of the client.
    pub(crate) own: Attempts<'a>,
    pub(crate) failures: FailureBucket<'a>,
    /// True if it also counts in [`Attempts::AllUnknownDevices`].
    pub(crate) is_unknown_device: bool,
}

impl SignInAttempt<'_> {
    /// Counts the attempt, unless a limit refuses it, and finds the account of this e-mail address.
    /// It uses its own transaction, whose commit does not wait for the disk.
    pub(crate) async fn count(
        self,
        db: impl PgExecutor<'_>,
        limits: &AccountsConfig,
        email_key: &str,
    ) -> Result<Option<Credentials>> {
        let (own, own_allowed) = self.own.buckets(limits);
        let (overall, overall_allowed) = self.overall(limits);
        let found = sqlx::query!(
            r#"select wait, user_id as "user_id: UserId", password_hash
               from count_sign_in($1, $2, $3, $4, $5, $6, $7)"#,
            &own,
            &own_allowed,
            self.failures.name(),
            limits.free_failures,
            &overall,
            &overall_allowed,
            email_key
        )
        .fetch_one(db)
        .await?;
        if let Some(seconds) = found.wait {
            return Err(rate_limited(seconds));
        }
        let account = found.user_id.zip(found.password_hash);
        Ok(account.map(|(id, password_hash)| Credentials { id, password_hash }))
    }

    /// Removes a successful attempt from the counters, and forgets the failures before it.
    pub(crate) async fn undo_count(
        self,
        db: impl PgExecutor<'_>,
        limits: &AccountsConfig,
    ) -> sqlx::Result<()> {
        let (own, _) = self.own.buckets(limits);
        let (overall, _) = self.overall(limits);
        sqlx::query!("select uncount_sign_in($1, $2, $3)", &own, self.failures.name(), &overall)
            .execute(db)
            .await?;
        Ok(())
    }

    fn overall(self, limits: &AccountsConfig) -> (Vec<String>, Vec<i32>) {
        if self.is_unknown_device {
            Attempts::AllUnknownDevices.buckets(limits)
        } else {
            Default::default()
        }
    }
}

/// Removes counters that have no effect any more.
pub(crate) async fn forget_old(db: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from signin_failures where last_failed_at < clock_timestamp() - interval '1 hour'"
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from attempt_windows where started_at < clock_timestamp() - interval '1 minute'"
    )
    .execute(db)
    .await?;
    Ok(())
}

fn rate_limited(seconds: f64) -> AppError {
    AppError::RateLimited(Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0)))
}
