//! Checks at the start of a server, with messages that name the remedy.

use std::time::Duration;

use anyhow::{anyhow, bail};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::schema;

const PATIENCE: Duration = Duration::from_secs(5);
/// The time limit for receiving a notification.
const HEARING: Duration = Duration::from_secs(2);
/// The oldest supported version of PostgreSQL.
const OLDEST: i32 = 150_000;

/// Refuses an unsuitable database. A database that does not answer is only logged, because it may
/// be available in a moment.
///
/// # Errors
/// Names the problem and its remedy.
pub async fn check_database(options: &PgConnectOptions) -> anyhow::Result<()> {
    let examined = async {
        let [mut one, mut other] = [options.connect().await?, options.connect().await?];
        let is_shared = shares_sessions(&mut one, &mut other).await?;
        let fitness = if is_shared { Err(anyhow!(SHARED)) } else { examine(&mut one).await? };
        let _ = tokio::join!(one.close(), other.close());
        Ok::<_, sqlx::Error>(fitness)
    };
    match timeout(PATIENCE, examined).await {
        Ok(Ok(fitness)) => return fitness,
        Ok(Err(error)) => warn!(%error, "the database cannot be reached yet"),
        Err(_) => warn!("the database does not answer yet"),
    }
    Ok(())
}

/// Warns about the schema of a database that this server does not migrate.
pub async fn check_schema(options: &PgConnectOptions) {
    let checked = async {
        let mut db = options.connect().await?;
        let checked = schema::check(&mut db).await?;
        db.close().await?;
        Ok::<_, sqlx::Error>(checked)
    };
    if let Ok(Ok(Err(why))) = timeout(PATIENCE, checked).await {
        warn!("{why}");
    }
}

/// Refuses a `database.listen_url` that does not receive notifications sent at `database.url`.
///
/// # Errors
/// When the two lead to different databases, or to a pooler that shares sessions.
pub async fn check_listening(
    options: &PgConnectOptions,
    listen_options: &PgConnectOptions,
) -> anyhow::Result<()> {
    let channel = format!("fechatter_{}", Uuid::new_v4().simple());
    let asked = async {
        let pool =
            PgPoolOptions::new().max_connections(1).connect_lazy_with(listen_options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(&channel).await?;
        let mut speaker = options.connect().await?;
        sqlx::query("select pg_notify($1, '')").bind(&channel).execute(&mut speaker).await?;
        let is_heard = timeout(HEARING, listener.recv()).await.is_ok();
        speaker.close().await?;
        Ok::<_, sqlx::Error>(is_heard)
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => bail!(
            "what is said at database.url is not heard at database.listen_url: let it lead to the same \
             database, and not through a pooler that shares sessions"
        ),
        Ok(Err(error)) => warn!(%error, "listening at database.listen_url cannot be tried yet"),
        Err(_) => warn!("database.listen_url does not answer yet"),
    }
    Ok(())
}

const SHARED: &str = "database.url leads through a pooler that shares sessions (PgBouncer's pool_mode transaction or \
                      statement): let it use pool_mode session, or connect to PostgreSQL itself";

/// Returns true if two clients share one session, as behind a pooler in transaction mode: settings,
/// prepared statements and LISTEN of one client then leak to another. The check sets a value in one
/// and looks for it in the other.
async fn shares_sessions(one: &mut PgConnection, other: &mut PgConnection) -> sqlx::Result<bool> {
    let mark = Uuid::new_v4().simple().to_string();
    for _ in 0..3 {
        // Simple queries, so that no prepared statement is needed.
        let set = format!("select set_config('fechatter.probe', '{mark}', false)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *one).await?;
        let ask = "select coalesce(current_setting('fechatter.probe', true), '')";
        let theirs: String = sqlx::raw_sql(ask).fetch_one(&mut *other).await?.get(0);
        let own: String = sqlx::raw_sql(ask).fetch_one(&mut *one).await?.get(0);
        if theirs == mark || own != mark {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks the properties of a database; the inner error is the reason why it is unsuitable.
async fn examine(db: &mut PgConnection) -> sqlx::Result<anyhow::Result<()>> {
    let version: i32 = setting(db, "server_version_num").await?.parse().unwrap_or_default();
    let version_text = setting(db, "server_version").await?;
    if version < OLDEST {
        return Ok(Err(anyhow!(
            "PostgreSQL {version_text} is too old: Fechatter needs 15 or newer"
        )));
    }
    let encoding = setting(db, "server_encoding").await?;
    if encoding != "UTF8" {
        return Ok(Err(anyhow!(
            "the database's encoding is {encoding}, and texts need UTF8: make one with `createdb \
             --encoding=UTF8 --template=template0 NAME`"
        )));
    }
    let row = sqlx::query!(
        r#"select current_user::text as "user!", current_database()::text as "database!",
                  current_setting('transaction_read_only')::bool as "read_only!",
                  coalesce((
                      select datcollversion is distinct from pg_database_collation_actual_version(oid)
                      from pg_database
                      where datname = current_database()
                  ), false) as "collation_changed!""#
    )
    .fetch_one(&mut *db)
    .await?;
    if row.read_only {
        warn!(
            "the database is read-only: a standby, perhaps; nothing can be written until that ends"
        );
    }
    if row.collation_changed {
        warn!(
            "the system's sort order has changed since the database was made: REINDEX DATABASE, then \
             ALTER DATABASE … REFRESH COLLATION VERSION"
        );
    }
    info!(
        postgresql = version_text,
        user = row.user,
        database = row.database,
        "the database is fit"
    );
    Ok(Ok(()))
}

async fn setting(db: &mut PgConnection, name: &str) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"select current_setting($1) as "value!""#, name).fetch_one(db).await
}

/// Raises the limit of open files to the system's maximum, and warns if that is too little.
#[cfg(unix)]
pub fn raise_open_files(needed: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        warn!("the limit of open files cannot be raised");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < u64::try_from(needed).unwrap_or(u64::MAX) {
        warn!(
            allowed,
            needed,
            "the system allows fewer open files than the configuration may need: raise `ulimit -Hn`, or \
             LimitNOFILE= of the service, or lower notify.streams and limits.connections"
        );
    }
}
