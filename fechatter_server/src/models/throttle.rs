//! How often somebody may try to get in. The counters live in the database, so that all servers
//! count together. Nobody waits for the disk on their account: a crash may forget what was counted in
//! its last second.

use std::iter;
use std::time::Duration;

use fechatter_core::config::AccountsConfig;
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::error::{AppError, Result};
use crate::middlewares::device::Device;
use crate::services::device_token::DeviceId;

/// Buckets of attempts to sign in or up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempts<'a> {
    /// Of everybody at a client's address, and of its IPv6 site.
    At(&'a Device),
    /// Of all strangers.
    Anywhere,
    /// Of a device that has signed in to the account before.
    Of(DeviceId),
}

impl Attempts<'_> {
    /// The buckets in the order in which they are counted, and what each allows in a minute.
    fn buckets(self, limits: &AccountsConfig) -> (Vec<String>, Vec<i32>) {
        let buckets = match self {
            Self::At(device) => {
                let network = format!("address {}", device.network());
                let site = device.site().map(|site| format!("site {site}"));
                let site = site.map(|site| (site, limits.attempts_per_minute_per_site));
                iter::once((network, limits.attempts_per_minute)).chain(site).collect()
            }
            Self::Anywhere => vec![("all".to_owned(), limits.attempts_per_minute_overall)],
            Self::Of(device) => vec![(format!("device {device}"), limits.attempts_per_minute)],
        };
        Vec::into_iter(buckets).unzip()
    }
}

/// A bucket of wrong passwords.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guesses<'a> {
    /// Those of strangers at the account of this e-mail address, whether there is one or not.
    At(&'a str),
    /// Those of a device that has signed in to the account before.
    Of(DeviceId),
}

impl Guesses<'_> {
    /// No e-mail address has a space.
    fn bucket(self) -> String {
        match self {
            Self::At(email_key) => email_key.to_owned(),
            Self::Of(device) => format!("device {device}"),
        }
    }
}

/// Counts an attempt to sign in or up, and refuses the ones beyond the configured number a minute. In
/// a transaction of its own, whose commit waits for nothing.
pub(crate) async fn count_attempt(
    db: impl PgExecutor<'_>,
    limits: &AccountsConfig,
    attempts: Attempts<'_>,
) -> Result<()> {
    let (buckets, allowed) = attempts.buckets(limits);
    let wait = sqlx::query_scalar!("select count_attempts($1, $2)", &buckets, &allowed)
        .fetch_one(db)
        .await?;
    wait.map_or(Ok(()), |seconds| Err(rate_limited(seconds)))
}

/// Takes attempts that have succeeded out of the count.
pub(crate) async fn uncount_attempts(
    db: &PgPool,
    limits: &AccountsConfig,
    attempts: &[Attempts<'_>],
) -> sqlx::Result<()> {
    let buckets: Vec<_> = attempts.iter().flat_map(|of| of.buckets(limits).0).collect();
    sqlx::query!("select uncount_attempts($1)", &buckets).execute(db).await?;
    Ok(())
}

/// Counts a failure before the password is looked at, so that guesses made at the same time count
/// too; refuses while the delay of earlier ones runs: none for the free failures, then 1, 2, 4 …
/// 60 s. An hour without a failure forgets them.
pub(crate) async fn count_failure(
    db: &mut PgConnection,
    limits: &AccountsConfig,
    guesses: Guesses<'_>,
) -> Result<()> {
    let bucket = guesses.bucket();
    let counted = sqlx::query_scalar!(
        "with lazily as (select set_config('synchronous_commit', 'off', true))
         insert into signin_failures as old (email_key, failures, last_failed_at)
         select $1, 1, clock_timestamp() from lazily
         on conflict (email_key) do update set
             failures = case when old.last_failed_at > clock_timestamp() - interval '1 hour'
                 then old.failures + 1 else 1 end,
             last_failed_at = clock_timestamp()
         where old.failures < $2
            or old.last_failed_at + least(60, power(2, least(old.failures - $2, 6)))
                * interval '1 second' <= clock_timestamp()
         returning failures",
        bucket,
        limits.free_failures
    )
    .fetch_optional(&mut *db)
    .await?;
    if counted.is_some() {
        return Ok(());
    }
    let wait = sqlx::query_scalar!(
        r#"select extract(epoch from last_failed_at
               + least(60, power(2, least(failures - $2, 6))) * interval '1 second'
               - clock_timestamp())::float8 as "wait!"
           from signin_failures
           where email_key = $1"#,
        bucket,
        limits.free_failures
    )
    .fetch_optional(db)
    .await?;
    Err(rate_limited(wait.unwrap_or(1.0)))
}

/// Forgets failures after a success.
pub(crate) async fn forget_failures(
    db: impl PgExecutor<'_>,
    guesses: Guesses<'_>,
) -> sqlx::Result<()> {
    let bucket = guesses.bucket();
    sqlx::query!("delete from signin_failures where email_key = $1", bucket).execute(db).await?;
    Ok(())
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
