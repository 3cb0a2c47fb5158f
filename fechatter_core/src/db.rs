//! The pool of database connections of a server.

use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::metrics::gauge;
use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::time::timeout;
use tracing::subscriber::{NoSubscriber, with_default};
use tracing::warn;

use crate::config::DatabaseConfig;
use crate::finish::Finish;
use crate::{metrics, schema};

/// Returns the connection options of the database, without the limits of [`connect`]: for
/// migrations.
///
/// # Errors
/// When `database.url` is no PostgreSQL URL.
pub fn options(config: &DatabaseConfig, application: &str) -> anyhow::Result<PgConnectOptions> {
    read_url("database.url", &config.url, application)
}

/// Returns the connection options for LISTEN, which needs an exclusive session.
///
/// # Errors
/// When `database.listen_url`, or else `database.url`, is no PostgreSQL URL.
pub fn listen_options(
    config: &DatabaseConfig,
    application: &str,
) -> anyhow::Result<PgConnectOptions> {
    match &config.listen_url {
        Some(url) => read_url("database.listen_url", url, application),
        None => options(config, application),
    }
}

fn read_url(key: &str, url: &SecretString, application: &str) -> anyhow::Result<PgConnectOptions> {
    let url = url.expose_secret();
    ensure!(
        url.starts_with("postgres://") || url.starts_with("postgresql://"),
        "{key} is no PostgreSQL URL, which begins with postgres://"
    );
    // sqlx would log unknown parameters with their values, which may be passwords; its errors
    // contain values too.
    let options = with_default(NoSubscriber::new(), || PgConnectOptions::from_str(url));
    let options = options.ok().with_context(|| {
        format!(
            "{key} is no PostgreSQL URL: it is postgres://user:password@host:port/name, where \
             : / ? # @ and % in the password are percent-encoded (%3A %2F %3F %23 %40 %25)"
        )
    })?;
    // PostgreSQL's error repeats the name of a missing database, which here may contain the
    // password.
    let is_database = options.get_database().is_none_or(|name| !name.contains('@'));
    ensure!(
        is_database,
        "{key} names no server where one belongs: it is postgres://user:password@host/name, \
         with %2F for a slash in the password"
    );
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters).split('&');
    for name in parameters.filter_map(|parameter| parameter.split('=').next()) {
        if !name.is_empty() && !PARAMETERS.contains(&name) && !name.starts_with("options") {
            warn!("{key} has a parameter that is not known and has no effect");
        }
    }
    // sqlx treats the brackets of an IPv6 address as a part of a host name.
    let host = options.get_host().to_owned();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let options = match address {
        Some(address) => options.host(address),
        None => options,
    };
    // PgBouncer refuses `extra_float_digits`, which sqlx sends by default.
    Ok(options.application_name(application).extra_float_digits(None))
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

/// Creates a pool that opens `now` connections at once, one after the other, and further ones on
/// demand, so that a burst of requests does not also wait for PostgreSQL to start connections.
///
/// The limits of its connections bound all waits: an idle transaction (of a frozen process) is
/// ended and loses its locks after 1 s, waiting for a lock fails after 2 s, and a statement after 5
/// s. The caller's `settings` apply to each connection too.
pub async fn connect(
    options: PgConnectOptions,
    config: &DatabaseConfig,
    now: u32,
    settings: &'static [(&'static str, &'static str)],
) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .min_connections(now)
        .acquire_timeout(Duration::from_secs(3))
        // After a failover, connections to the old primary are replaced within minutes.
        .max_lifetime(LIFETIME)
        .after_connect(move |connection, _| {
            Box::pin(async move { set(connection, &[&LIMITS, settings].concat()).await })
        })
        .before_acquire(|_, met| Box::pin(async move { Ok(!is_suspect(met.age)) }))
        .connect_lazy_with(options);
    // The start does not wait for a database that does not answer.
    let _ = timeout(UNTIL_OPEN, open(&pool, now)).await;
    pool
}

/// Opens up to `count` connections and stops at the first error.
async fn open(pool: &PgPool, count: u32) {
    let mut opened = Vec::new();
    for _ in 0..count {
        match pool.acquire().await {
            Ok(connection) => opened.push(connection),
            Err(_) => break,
        }
    }
}

/// The time limit for opening the first connections.
const UNTIL_OPEN: Duration = Duration::from_secs(1);
/// The maximum age of a connection.
const LIFETIME: Duration = Duration::from_mins(5);
const LIMITS: [(&str, &str); 5] = [
    ("idle_in_transaction_session_timeout", "1s"),
    ("lock_timeout", "2s"),
    ("statement_timeout", "5s"),
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
];

/// Gives a new connection the limits that [`connect`] describes.
///
/// # Errors
/// When the database fails.
pub async fn limit(connection: &mut PgConnection) -> sqlx::Result<()> {
    set(connection, &LIMITS).await
}

/// Applies settings to a new connection. It uses a statement, because poolers accept no settings
/// during connection start.
///
/// # Errors
/// When the database fails.
pub async fn set(connection: &mut PgConnection, settings: &[(&str, &str)]) -> sqlx::Result<()> {
    let (names, values): (Vec<_>, Vec<_>) = settings.iter().copied().unzip();
    sqlx::query("select set_config(name, value, false) from unnest($1::text[], $2::text[]) as s (name, value)")
        .bind(names)
        .bind(values)
        .execute(connection)
        .await?;
    Ok(())
}

/// The time at which the database was last found read-only: milliseconds since the first use of
/// `CLOCK`, plus one; 0 means never.
static READ_ONLY_AT: AtomicU64 = AtomicU64::new(0);
static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Records that the database is read-only. Existing connections are then closed instead of reused,
/// because they would still lead to the read-only server after a writable one has taken over its
/// address.
pub fn note_read_only() {
    let now = u64::try_from(CLOCK.elapsed().as_millis()).unwrap_or(u64::MAX);
    READ_ONLY_AT.store(now.saturating_add(1), Ordering::Relaxed);
}

/// Returns true if a connection of this age already existed when the database was last found
/// read-only.
fn is_suspect(age: Duration) -> bool {
    let Some(at) = READ_ONLY_AT.load(Ordering::Relaxed).checked_sub(1) else { return false };
    CLOCK.elapsed().saturating_sub(age) <= Duration::from_millis(at)
}

/// Returns true if an error says that the database is read-only (SQLSTATE 25006), and
/// [records](note_read_only) that.
#[must_use]
pub fn is_read_only(error: &sqlx::Error) -> bool {
    let is_read_only =
        matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("25006"));
    if is_read_only {
        note_read_only();
    }
    is_read_only
}

/// True after a check that found the database read-only, until the next one that finds it writable.
static WAS_READ_ONLY: AtomicBool = AtomicBool::new(false);

/// Checks that the database answers, has a schema for this version, and is writable. When it
/// becomes writable again, older connections are no longer used.
///
/// # Errors
/// The reason, for operators.
pub async fn check(db: &PgPool) -> Result<(), &'static str> {
    let asked = async {
        let read_only = sqlx::query_scalar!(
            r#"select current_setting('transaction_read_only')::bool as "read_only!""#
        );
        let mut db = db.acquire().await?;
        let read_only = read_only.fetch_one(&mut *db).await?;
        Ok::<_, sqlx::Error>((read_only, schema::check(&mut db).await?))
    };
    match timeout(Duration::from_secs(1), asked).await {
        Ok(Ok((_, Err(why)))) => Err(why),
        Ok(Ok((true, _))) => {
            WAS_READ_ONLY.store(true, Ordering::Relaxed);
            Err(READ_ONLY)
        }
        Ok(Ok(_)) => {
            // A connection may have been opened after the last check that found the database
            // read-only.
            if WAS_READ_ONLY.swap(false, Ordering::Relaxed) {
                note_read_only();
            }
            Ok(())
        }
        Ok(Err(_)) | Err(_) => Err("the database does not answer"),
    }
}

/// The reason when only writing is impossible.
pub const READ_ONLY: &str = "the database is read-only";

/// Sets the gauges of busy and idle connections.
pub fn measure(db: &PgPool) {
    let (all, idle) = (f64::from(db.size()), u32::try_from(db.num_idle()).unwrap_or(u32::MAX));
    let idle = f64::from(idle).min(all);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "idle").set(idle);
    gauge!(metrics::DATABASE_CONNECTIONS, "state" => "busy").set(all - idle);
}

/// Begins a transaction with this statement. The call is safe to cancel.
///
/// If a `begin` is cancelled half-way, sqlx returns the connection to the pool with the transaction
/// open: its next user reads an old snapshot, and their writes are rolled back. Here the `begin`
/// always completes, and the transaction of a cancelled call is rolled back.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> anyhow::Result<String> {
        let config = DatabaseConfig { url: url.into(), listen_url: None, max_connections: 2 };
        Ok(options(&config, "tests")?.get_host().to_owned())
    }

    #[test]
    fn an_address_may_be_one_of_ipv6() {
        for (url, expected) in [
            ("postgres://alice@[::1]:5432/d", "::1"),
            ("postgresql://alice:x@[2001:db8::7]/d", "2001:db8::7"),
            ("postgres://alice:p%23w%2Fx@db.example:5432/d", "db.example"),
        ] {
            assert_eq!(host(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_postgresql_url_is_refused_without_its_secrets() {
        for url in [
            "postgres://alice:hunter2#@db/d",
            "postgres://alice:hunter2/x@db/d",
            "postgres://alice:x@db/d?sslmode=hunter2",
            "mysql://alice:hunter2@db/d",
            "hunter2",
        ] {
            let error = format!("{:?}", host(url).unwrap_err());
            assert!(error.contains("postgres://") && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn connections_from_before_the_database_was_read_only_are_suspect() {
        assert!(!is_suspect(Duration::from_secs(1)));
        note_read_only();
        assert!(is_suspect(Duration::from_secs(1)));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!is_suspect(Duration::from_millis(1)));
    }
}
