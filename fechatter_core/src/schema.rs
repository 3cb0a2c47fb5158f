//! The database's schema. Numbered migrations create the tables; the functions and views of `sql/`
//! are recreated whenever one has changed. One that was removed from `sql/` stays until a migration
//! drops it.
//!
//! A server also works with a newer schema if that schema declares that it serves this version, so
//! that a version can be rolled back without its migrations.

use anyhow::{Context, bail};
use aws_lc_rs::digest::{Context as Hasher, SHA256};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection, PgExecutor};
use tracing::info;

/// Tables, columns and constraints.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

macro_rules! code {
    ($name:literal) => {
        ($name, include_str!(concat!("../../sql/", $name, ".sql")))
    };
}

/// The name and text of each file of `sql/`: views, each after the functions that it calls, and then
/// functions with their triggers.
pub static CODE: &[(&str, &str)] = &[
    code!("chat_objects"),
    code!("file_url"),
    code!("find_message_parts"),
    code!("message_objects"),
    code!("user_objects"),
    code!("workspace_objects"),
    code!("add_reactions"),
    code!("append_events"),
    code!("change_preferences"),
    code!("check_chat_members"),
    code!("check_single_members"),
    code!("count_attempts"),
    code!("count_failure"),
    code!("count_sign_in"),
    code!("delete_messages"),
    code!("edit_messages"),
    code!("events_for"),
    code!("file_names"),
    code!("find_person"),
    code!("insert_mentions"),
    code!("insert_messages"),
    code!("insert_system_message"),
    code!("log_entries_for"),
    code!("move_read_marks"),
    code!("read_state"),
    code!("read_states"),
    code!("remove_reactions"),
    code!("remove_workspace_rows"),
    code!("reply_parent"),
    code!("send_message"),
    code!("uncount_attempts"),
    code!("uncount_sign_in"),
    code!("use_workspace"),
    code!("write_batch"),
];

/// The version of [`CODE`], increased with each change, so that an older server does not restore
/// its own.
const CODE_VERSION: i64 = 9;

/// The advisory lock of migrations. The number is arbitrary, but the same in every server.
const LOCK: i64 = 0x6665_6368_636f_6465;

/// Migrates a database to the schema of this version, unless it has a newer one that also serves
/// this version.
///
/// # Errors
/// When the database cannot be reached, contains tables of another application, or has a schema
/// that does not serve this version.
pub async fn migrate(db: &mut PgConnection) -> anyhow::Result<()> {
    // If several servers start together, one migrates and the others find it done.
    sqlx::query!("select pg_advisory_lock($1)", LOCK).fetch_one(&mut *db).await?;
    let migrated = migrate_alone(db).await;
    sqlx::query!("select pg_advisory_unlock($1)", LOCK).fetch_one(&mut *db).await?;
    migrated
}

async fn migrate_alone(db: &mut PgConnection) -> anyhow::Result<()> {
    let newest = newest_of(db).await?;
    match newest {
        Some(_) => match check(&mut *db).await? {
            Err(OTHERS) => bail!(OTHERS),
            Err(TOO_NEW) => bail!(TOO_NEW),
            _ => {}
        },
        None => refuse_tables_of_others(db).await?,
    }
    if newest.is_some_and(|newest| newest > newest_migration()) {
        info!("the schema is that of a newer version, and stays as it is");
        return Ok(());
    }
    // If no migration is missing, nothing is written, because the database may be temporarily
    // read-only.
    if newest != Some(newest_migration()) {
        MIGRATOR.run_direct(None, &mut *db, false).await?;
    }
    apply_code(db).await
}

/// Refuses a database that another application uses, before anything is written to it.
async fn refuse_tables_of_others(db: &mut PgConnection) -> anyhow::Result<()> {
    let table = sqlx::query_scalar!(
        r#"select relname::text as "name!"
           from pg_class as t
           where relnamespace = current_schema()::regnamespace
             and relkind in ('r', 'p')
             and relname <> '_sqlx_migrations'
             and not exists (select from pg_depend where objid = t.oid and deptype = 'e')
           limit 1"#
    );
    if let Some(name) = table.fetch_optional(db).await? {
        bail!(
            "the database has a table {name} of something else: give Fechatter a database of its own"
        );
    }
    Ok(())
}

/// Recreates all functions and views in one transaction, unless they are current or newer.
async fn apply_code(db: &mut PgConnection) -> anyhow::Result<()> {
    let state = State::read(&mut *db).await?;
    let is_current = state.code_version == CODE_VERSION
        && state.code_digest == Some(digest())
        && state.has_all_code;
    if state.code_version > CODE_VERSION || is_current {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    // They are applied in order of name, so one may call another that does not exist yet.
    sqlx::raw_sql("set local check_function_bodies = off; set local lock_timeout = '2s'")
        .execute(&mut *tx)
        .await?;
    for (name, text) in CODE {
        let applied = sqlx::raw_sql(*text).execute(&mut *tx).await;
        applied.with_context(|| format!("{name} cannot be replaced"))?;
    }
    sqlx::query!(
        "update schema_state set code_version = $1, code_digest = $2",
        CODE_VERSION,
        digest()
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// Returns the newest migration that a database has.
async fn newest_of(db: &mut PgConnection) -> sqlx::Result<Option<i64>> {
    let is_new =
        sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is null as "is_new!""#);
    if is_new.fetch_one(&mut *db).await? {
        return Ok(None);
    }
    let newest = sqlx::query_scalar!("select max(version) from _sqlx_migrations where success");
    newest.fetch_one(db).await
}

/// The state of a database's schema.
struct State {
    newest_migration: i64,
    serves_from: i64,
    code_version: i64,
    code_digest: Option<Vec<u8>>,
    has_all_code: bool,
    /// True if a migration differs from this version's migration of the same number.
    has_others: bool,
}

impl State {
    async fn read(db: impl PgExecutor<'_>) -> sqlx::Result<Self> {
        let names: Vec<_> = CODE.iter().map(|(name, _)| (*name).to_owned()).collect();
        let known = MIGRATOR.iter().map(|known| (known.version, &*known.checksum));
        let (versions, checksums): (Vec<_>, Vec<_>) = known.unzip();
        sqlx::query_as!(
            Self,
            r#"select (select coalesce(max(version), 0) from _sqlx_migrations where success)
                          as "newest_migration!",
                      serves_from, code_version, code_digest,
                      (
                          select bool_and(coalesce(to_regproc(name)::oid, to_regclass(name)::oid) is not null)
                          from unnest($1::text[]) as name
                      ) as "has_all_code!",
                      exists (
                          select
                          from unnest($2::bigint[], $3::bytea[]) as known (version, checksum)
                          join _sqlx_migrations as applied using (version)
                          where applied.checksum <> known.checksum
                      ) as "has_others!"
               from schema_state"#,
            &names,
            &versions,
            &checksums as _
        )
        .fetch_one(db)
        .await
    }

    /// Returns true if servers whose newest migration is this one can work with this schema.
    fn serves(&self, newest_migration: i64) -> bool {
        self.serves_from <= newest_migration
    }
}

/// Checks that this version can work with a database's schema.
///
/// # Errors
/// The outer error is the database's; the inner one is the reason why not, for operators.
pub async fn check(db: &mut PgConnection) -> sqlx::Result<Result<(), &'static str>> {
    let state = match State::read(&mut *db).await {
        Ok(state) => state,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => {
            // The first migration creates this table.
            let has_migrations = newest_of(db).await?.is_some();
            return Ok(Err(if has_migrations { OTHERS } else { TOO_OLD }));
        }
        Err(error) => return Err(error),
    };
    Ok(if state.has_others {
        Err(OTHERS)
    } else if !state.serves(newest_migration())
        || (state.newest_migration > newest_migration() && !state.has_all_code)
    {
        Err(TOO_NEW)
    } else if state.newest_migration < newest_migration() || !state.has_all_code {
        Err(TOO_OLD)
    } else {
        Ok(())
    })
}

const UNDEFINED_TABLE: &str = "42P01";
const TOO_OLD: &str = "the database's schema is too old; run `fechatter_server migrate`";
const TOO_NEW: &str = "the database's schema is too new for this version of the server";

const OTHERS: &str = "the database's migrations are not those of this version: it belongs to another build, or to \
                      one of before the first release";

fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn digest() -> Vec<u8> {
    let mut hasher = Hasher::new(&SHA256);
    for (_, text) in CODE {
        hasher.update(text.as_bytes());
    }
    hasher.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_change_of_a_function_raises_the_version_of_all() {
        let begins = u64::from_be_bytes(*digest().first_chunk().unwrap());
        let (version, expected) = (9, 0xd0e9_a1f7_a7b6_b3ac);
        assert_eq!(
            (CODE_VERSION, begins),
            (version, expected),
            "raise the version, then both here"
        );
    }

    #[test]
    fn every_file_of_code_is_applied() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let mut applied: Vec<_> = CODE.iter().map(|(name, _)| format!("{name}.sql")).collect();
        applied.sort();
        assert_eq!(applied, files);
    }
}
