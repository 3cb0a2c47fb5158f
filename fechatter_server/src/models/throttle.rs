//! How often somebody may try to get in. The counters live in the database, so that all servers
//! count together. Nobody waits for the disk on their account: a crash may forget what was counted in
//! its last second.

use std::time::Duration;

use fechatter_core::config::AccountsConfig;
use sqlx::{PgExecutor, PgPool};

use crate::error::{AppError, Result};
use crate::middlewares::device::Device;

/// Counts an attempt to sign in or up, for the client's address and for all; refuses the ones
/// beyond the configured number a minute. In a transaction of its own, whose commit waits for nothing.
pub(crate) async fn count_attempt(
    db: &PgPool,
    limits: &AccountsConfig,
    device: &Device,
) -> Result<()> {
    let buckets = ["all".to_owned(), format!("address {}", device.network())];
    let allowed = [limits.attempts_per_minute_overall, limits.attempts_per_minute];
    let waits = sqlx::query_scalar!(
        r#"with lazily as (
               select set_config('synchronous_commit', 'off', true)
           ), counted as (
               insert into attempt_windows as old (bucket, attempts, started_at)
               select bucket, 1, clock_timestamp() from lazily, unnest($1::text[]) as bucket
               order by bucket
               on conflict (bucket) do update set
                   attempts = case when old.started_at > excluded.started_at - interval '1 minute'
                       then old.attempts + 1 else 1 end,
                   started_at = case when old.started_at > excluded.started_at - interval '1 minute'
                       then old.started_at else excluded.started_at end
               returning bucket, attempts, started_at
           )
           select extract(epoch from started_at + interval '1 minute' - clock_timestamp())::float8
               as "wait!"
           from counted
           join unnest($1::text[], $2::integer[]) as allowed (bucket, attempts) using (bucket)
           where counted.attempts > allowed.attempts"#,
        &buckets[..],
        &allowed[..]
    )
    .fetch_all(db)
    .await?;
    let wait = waits.into_iter().reduce(f64::max);
    wait.map_or(Ok(()), |seconds| Err(rate_limited(seconds)))
}

/// Counts a failure for this e-mail address before the password is looked at, so that guesses made
/// at the same time count too; refuses while the delay of earlier ones runs: none for the free
/// failures, then 1, 2, 4 … 60 s. An hour without a failure forgets them.
pub(crate) async fn count_failure(
    db: &PgPool,
    limits: &AccountsConfig,
    email_key: &str,
) -> Result<()> {
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
        email_key,
        limits.free_failures
    )
    .fetch_optional(db)
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
        email_key,
        limits.free_failures
    )
    .fetch_optional(db)
    .await?;
    Err(rate_limited(wait.unwrap_or(1.0)))
}

/// Forgets the failures of an address after a success.
pub(crate) async fn forget_failures(db: impl PgExecutor<'_>, email_key: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from signin_failures where email_key = $1", email_key).execute(db).await?;
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
