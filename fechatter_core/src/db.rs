//! The pool of database connections that a server works with.

use std::str::FromStr;
use std::time::Duration;

use ::metrics::gauge;
use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction};

use crate::config::DatabaseConfig;
use crate::metrics;

/// How to reach the database, without the limits of [`connect`]: for migrations and listeners.
///
/// # Errors
/// When `database.url` is no PostgreSQL URL.
pub fn options(config: &DatabaseConfig, application: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(config.url.expose_secret())
        .context("database.url is no PostgreSQL URL")?;
    Ok(options.application_name(application))
}

/// A pool that connects when it is first used.
///
/// Its connections let nobody wait long for anything: a transaction that stands idle (its process
/// is frozen) loses the log's lock after 1 s, a lock is waited for 2 s, a statement runs 5 s.
#[must_use]
pub fn connect(options: PgConnectOptions, config: &DatabaseConfig) -> PgPool {
    let options = options.options([
        ("idle_in_transaction_session_timeout", "1s"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "5s"),
        ("jit", "off"),
        ("default_transaction_isolation", "read committed"),
    ]);
    PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(3))
        .connect_lazy_with(options)
}

/// Measures how many connections there are, and how many of them nobody uses.
pub fn measure(db: &PgPool) {
    let (all, idle) = (f64::from(db.size()), u32::try_from(db.num_idle()).unwrap_or(u32::MAX));
    let idle = f64::from(idle).min(all);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "idle").set(idle);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "busy").set(all - idle);
}

/// Begins a transaction with this statement, in a way that may be cancelled.
///
/// sqlx gives a connection whose `begin` was cancelled half-way back to the pool inside the open
/// transaction: whoever gets it next reads an old snapshot, and what they write is rolled back. Here
/// the `begin` always ends, and a transaction that nobody waits for any more is rolled back.
///
/// # Errors
/// When the database fails.
pub async fn begin(
    db: &PgPool,
    statement: &'static str,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    let db = db.clone();
    let began = tokio::spawn(async move { db.begin_with(statement).await }).await;
    began.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(sqlx::Error::WorkerCrashed),
    })
}
