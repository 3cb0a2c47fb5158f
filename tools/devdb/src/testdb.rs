//! A database of its own for each test, copied from a template that was migrated once.

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

/// Which of a server's advisory locks guards its templates: any number, the same in every process.
const TEMPLATE_LOCK: i64 = 0x6665_6368_6174;

/// No test lasts this long: what is older was left behind by one that was killed.
const LEFTOVER_AFTER: Duration = Duration::from_hours(1);

/// What the server says when a template is momentarily in use, and how often to ask again.
const OBJECT_IN_USE: &str = "55006";
const ATTEMPTS: u32 = 20;

/// The server for this process's tests: `DATABASE_URL` as it is, or else a throw-away one that ends with the process.
///
/// `cargo xtask test` sets `DATABASE_URL`, so that runners with a process per test share one server.
///
/// # Panics
///
/// When there is no PostgreSQL and none can be fetched, or it does not start.
#[must_use]
pub fn test_server() -> String {
    static CONFIGURED: OnceLock<Option<String>> = OnceLock::new();
    // Never dropped: the leash ends it when the process does.
    static OWN: OnceLock<Postgres> = OnceLock::new();

    if let Some(url) = CONFIGURED.get_or_init(configured_url) {
        return url.clone();
    }
    let start = || Postgres::throw_away().unwrap_or_else(|error| panic!("{error:#}"));
    OWN.get_or_init(start).url("postgres")
}

/// Functions and their texts, in any order.
pub type Code = &'static [(&'static str, &'static str)];

/// A migrated database that no other test sees. Dropping this drops it, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

impl TestDatabase {
    /// A fresh database on [`test_server`], after these migrations and these functions, which come by name.
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

    /// Where to connect, for a pool.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Where to connect, for a process.
    #[must_use]
    pub fn url(&self) -> String {
        with_database(&test_server(), &self.name)
    }

    async fn try_create(migrator: &Migrator, code: Code) -> Result<Self> {
        let server = PgConnectOptions::from_str(&test_server())?;
        let mut admin = maintenance(&server).await?;
        let template = template(&mut admin, &server, migrator, code).await?;

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
        // The test's own runtime may be the one that is being dropped.
        let dropping = thread::spawn(move || -> Result<()> {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let mut admin = maintenance(&options).await?;
                drop_database(&mut admin, &name).await
            })
        });
        // A panic here, while a failing test unwinds, would hide why it failed. The next run sweeps.
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("devdb: {} stays for now: {error:#}", self.name);
        }
    }
}

/// The same server's URL with another database: sqlx cannot write one for a server behind a socket.
#[must_use]
pub fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    let authority = rest.split('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{name}{query}")
}

/// A connection for making and dropping databases. The one that `server` names may not exist.
async fn maintenance(server: &PgConnectOptions) -> Result<PgConnection> {
    let options = server.clone().database("postgres").disable_statement_logging();
    options.connect().await.context("connecting to the test server")
}

/// The name of a database with every migration applied, made on first use.
async fn template(
    admin: &mut PgConnection,
    server: &PgConnectOptions,
    migrator: &Migrator,
    code: Code,
) -> Result<String> {
    static MADE: Mutex<Option<HashSet<String>>> = Mutex::const_new(None);

    let mut hasher = DefaultHasher::new();
    for migration in migrator.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    code.hash(&mut hasher);
    let template = format!("fechatter_template_{:016x}", hasher.finish());

    let mut made = MADE.lock().await;
    let made = made.get_or_insert_default();
    if !made.contains(&template) {
        // Held until the admin's connection closes at the latest, should this fail half-way.
        query("select pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut *admin).await?;
        sweep(admin).await?;
        make_template(admin, server, (migrator, code), &template).await?;
        query("select pg_advisory_unlock($1)").bind(TEMPLATE_LOCK).execute(&mut *admin).await?;
        made.insert(template.clone());
    }
    Ok(template)
}

/// Migrates under another name first: a template that bears its name is complete, and closed to connections, because
/// PostgreSQL copies no database that someone is connected to.
async fn make_template(
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
    // `run` is the same, but its future cannot be spawned.
    migrator.run_direct(None, &mut connection, false).await.context("migrating the template")?;
    execute(&mut connection, "set check_function_bodies = off".to_owned()).await?;
    for (name, text) in code {
        let applied = sqlx::raw_sql(*text).execute(&mut connection).await;
        applied.with_context(|| format!("making the function {name}"))?;
    }
    connection.close().await?;
    execute(admin, format!("alter database {unfinished} with allow_connections false")).await?;
    execute(admin, format!("alter database {unfinished} rename to {template}")).await?;
    Ok(())
}

async fn sweep(admin: &mut PgConnection) -> Result<()> {
    let names: Vec<String> = query_scalar(
        "select datname::text
         from pg_database
         where datname ~ '^fechatter_test_[0-9]+_'
           and to_timestamp(split_part(datname, '_', 3)::bigint) < now() - make_interval(secs => $1)",
    )
    .bind(LEFTOVER_AFTER.as_secs_f64())
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
        if error.code().as_deref() != Some(OBJECT_IN_USE) || attempt == ATTEMPTS {
            return Ok(result?);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn drop_database(admin: &mut PgConnection, name: &str) -> Result<()> {
    Ok(execute(admin, format!("drop database if exists {name} with (force)")).await?)
}

/// Names cannot be bound; ours are made of letters, digits and underscores.
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
