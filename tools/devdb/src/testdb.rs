//! Creates a separate database for each test, as a copy of a template database that is migrated
//! only once.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    str::FromStr,
    sync::OnceLock,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, migrate::Migrator,
    postgres::PgConnectOptions, query, query_scalar,
};
use tokio::{runtime, sync::Mutex};
use uuid::Uuid;

use crate::postgres::{Postgres, configured_url};

/// The key of the advisory lock for creating templates. It must be the same in every process.
const TEMPLATE_LOCK: i64 = 0x6665_6368_6174;

/// The age after which a test database is dropped. No test takes this long, so the process of its
/// test was killed.
const MAX_DATABASE_AGE: Duration = Duration::from_hours(1);

/// The SQLSTATE of `create database` while another session uses the template.
const OBJECT_IN_USE: &str = "55006";
/// The maximum number of attempts to copy a template.
const COPY_ATTEMPTS: u32 = 20;

/// Returns the URL of the server for the tests of this process: the configured `DATABASE_URL`, or
/// that of a temporary server that ends with this process.
///
/// `cargo xtask test` sets `DATABASE_URL`, so that all test processes share one server.
///
/// # Panics
///
/// When the PostgreSQL programs are neither installed nor can be downloaded, or the server does not
/// start.
#[must_use]
pub fn test_server() -> String {
    static CONFIGURED: OnceLock<Option<String>> = OnceLock::new();
    // A static is never dropped; the supervisor of the child process stops the server.
    static TEMPORARY: OnceLock<Postgres> = OnceLock::new();

    if let Some(url) = CONFIGURED.get_or_init(configured_url) {
        return url.clone();
    }
    let start = || Postgres::temporary().unwrap_or_else(|error| panic!("{error:#}"));
    TEMPORARY.get_or_init(start).url("postgres")
}

/// SQL functions: the name and the SQL text of each, in any order.
pub type Code = &'static [(&'static str, &'static str)];

/// A migrated database of one test. Dropping this value drops the database, even if there are still
/// connections to it.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

impl TestDatabase {
    /// Creates a database on the [`test_server`], with these migrations and these functions.
    ///
    /// # Panics
    ///
    /// When the server cannot be reached or a migration fails.
    pub async fn create(migrator: &'static Migrator, code: Code) -> Self {
        match Self::try_create(migrator, code).await {
            Ok(database) => database,
            Err(error) => panic!("no database for this test: {error:#}"),
        }
    }

    /// The options for connecting to the database.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// The URL of the database.
    #[must_use]
    pub fn url(&self) -> String {
        with_database(&test_server(), &self.name)
    }

    async fn try_create(migrator: &Migrator, code: Code) -> Result<Self> {
        let server = PgConnectOptions::from_str(&test_server())?;
        let mut admin = connect_to_maintenance_database(&server).await?;
        let template = find_or_create_template(&mut admin, &server, migrator, code).await?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let name = format!("fechatter_test_{now}_{}", Uuid::new_v4().simple());
        copy(&mut admin, &name, &template).await?;
        admin.close().await?;
        Ok(Self { options: server.database(&name), name })
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (name, options) = (self.name.clone(), self.options.clone());
        // A new thread with its own runtime: the runtime of the test may be shutting down.
        let dropping = thread::spawn(move || -> Result<()> {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut admin = connect_to_maintenance_database(&options).await?;
                drop_database(&mut admin, &name).await
            })
        });
        // No panic: during the unwinding of a failed test, it would abort the process. A later test
        // run drops the database.
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("devdb: the database {} was not dropped: {error:#}", self.name);
        }
    }
}

/// Replaces the database in the URL. (sqlx cannot convert `PgConnectOptions` with a Unix socket to
/// a URL.)
#[must_use]
pub fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    let authority = rest.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{name}{query}")
}

/// Connects to the database `postgres`, to create and drop databases. The database in `server` need
/// not exist.
async fn connect_to_maintenance_database(server: &PgConnectOptions) -> Result<PgConnection> {
    let options = server.clone().database("postgres").disable_statement_logging();
    options.connect().await.context("connecting to the test server")
}

/// Returns the name of the template database for these migrations and functions. Creates it if it
/// does not exist.
async fn find_or_create_template(
    admin: &mut PgConnection,
    server: &PgConnectOptions,
    migrator: &Migrator,
    code: Code,
) -> Result<String> {
    static CREATED: Mutex<Option<HashSet<String>>> = Mutex::const_new(None);

    let mut hasher = DefaultHasher::new();
    for migration in migrator.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    code.hash(&mut hasher);
    let template = format!("fechatter_template_{:016x}", hasher.finish());

    let mut created = CREATED.lock().await;
    let created = created.get_or_insert_default();
    if !created.contains(&template) {
        // If a step fails, PostgreSQL releases the lock when the connection of `admin` closes.
        query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *admin).await?;
        drop_old_databases(admin).await?;
        create_template(admin, server, (migrator, code), &template).await?;
        query("select pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(&mut *admin).await?;
        created.insert(template.clone());
    }
    Ok(template)
}

/// Creates the template database unless it exists. It has another name until it is complete, so
/// that a database with the name of the template is always complete. Connections to the template
/// are disabled, because PostgreSQL cannot copy a database that has connections.
async fn create_template(
    admin: &mut PgConnection,
    server: &PgConnectOptions,
    (migrator, code): (&Migrator, Code),
    template: &str,
) -> Result<()> {
    let exists: bool = query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(template)
        .fetch_one(&mut *admin)
        .await?;
    if exists {
        return Ok(());
    }
    let unfinished = format!("{template}_unfinished");
    drop_database(admin, &unfinished).await?;
    copy(admin, &unfinished, "template0").await?;
    let mut connection = server.clone().database(&unfinished).connect().await?;
    // `run` would do the same, but its future is not `Send`.
    migrator.run_direct(None, &mut connection, false).await.context("migrating the template")?;
    execute(&mut connection, "set check_function_bodies = off".to_owned()).await?;
    for (name, text) in code {
        let applied = sqlx::raw_sql(*text).execute(&mut connection).await;
        applied.with_context(|| format!("creating the function {name}"))?;
    }
    connection.close().await?;
    execute(admin, format!("alter database {unfinished} with allow_connections false")).await?;
    execute(admin, format!("alter database {unfinished} rename to {template}")).await?;
    Ok(())
}

async fn drop_old_databases(admin: &mut PgConnection) -> Result<()> {
    let names: Vec<String> = query_scalar(
        "select datname::text
         from pg_database
         where datname ~ '^fechatter_test_[0-9]+_'
           and to_timestamp(split_part(datname, '_', 3)::bigint) < now() - make_interval(secs => $1)",
    )
    .bind(MAX_DATABASE_AGE.as_secs_f64())
    .fetch_all(&mut *admin)
    .await?;
    for name in names {
        drop_database(admin, &name).await?;
    }
    Ok(())
}

async fn copy(admin: &mut PgConnection, name: &str, template: &str) -> Result<()> {
    let mut attempt = 0;
    loop {
        let result = execute(admin, format!("create database {name} template {template}")).await;
        let Err(sqlx::Error::Database(error)) = &result else { return Ok(result?) };
        attempt += 1;
        if error.code().as_deref() != Some(OBJECT_IN_USE) || attempt == COPY_ATTEMPTS {
            return Ok(result?);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn drop_database(admin: &mut PgConnection, name: &str) -> Result<()> {
    Ok(execute(admin, format!("drop database if exists {name} with (force)")).await?)
}

/// Executes a statement that contains a database name. Names cannot be query parameters. Injection
/// is not possible: our names consist of letters, digits and underscores.
async fn execute(admin: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    query(AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_changes_its_database_and_nothing_else() {
        for (url, expected) in [
            ("postgres:///a", "postgres:///b"),
            ("postgres:///a?host=/run/x", "postgres:///b?host=/run/x"),
            ("postgres://me:pw@host:1/a", "postgres://me:pw@host:1/b"),
            ("postgresql://host", "postgresql://host/b"),
        ] {
            assert_eq!(with_database(url, "b"), expected);
        }
    }
}
