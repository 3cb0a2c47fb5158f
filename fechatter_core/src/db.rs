//! The pool of database connections that a server works with.

use std::str::FromStr;
use std::time::Duration;

use ::metrics::gauge;
use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction};
use tracing::subscriber::{NoSubscriber, with_default};
use tracing::warn;

use crate::config::DatabaseConfig;
use crate::finish::Finish;
use crate::metrics;

/// How to reach the database, without the limits of [`connect`]: for migrations and listeners.
///
/// # Errors
/// When `database.url` is no PostgreSQL URL.
pub fn options(config: &DatabaseConfig, application: &str) -> anyhow::Result<PgConnectOptions> {
    let url = config.url.expose_secret();
    // sqlx would log what it does not know together with its value, which may be a password.
    let options = with_default(NoSubscriber::new(), || PgConnectOptions::from_str(url))
        .context("database.url is no PostgreSQL URL")?;
    // PostgreSQL repeats the name of a database that is not there.
    let is_database = options.get_database().is_none_or(|name| !name.contains('@'));
    ensure!(
        is_database,
        "database.url names no server where one belongs: it is postgres://user:password@host/name, \
         with %2F for a slash in the password"
    );
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
    for name in parameters.filter_map(|parameter| parameter.split('=').next()) {
        if !name.is_empty() && !PARAMETERS.contains(&name) && !name.starts_with("options") {
            warn!("database.url has a parameter that is not known and has no effect");
        }
    }
    Ok(options.application_name(application))
}

/// The parameters of a PostgreSQL URL that sqlx knows, besides `options`.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

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
    Finish::new(async move { db.begin_with(statement).await }).await
}
