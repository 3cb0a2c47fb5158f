//! `cargo xtask sqlx`: what the `query!` macros know of the database, in `.sqlx`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
use devdb::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, migrate::Migrator};

use crate::workspace::{cargo, packages, root};

const DATABASE: &str = "fechatter_queries";

/// Query files by name.
type QueryData = BTreeMap<String, Vec<u8>>;

pub(crate) async fn run(check: bool) -> Result<ExitCode> {
    // Always an own server: a database that has seen more than `migrations/` and `sql/` would describe other queries.
    let postgres = Postgres::temporary()?;
    let url = postgres.url(DATABASE);
    migrate(&url).await?;
    let fresh = describe(&url)?;
    postgres.stop()?;

    let folder = root().join(".sqlx");
    let committed = read(&folder)?;
    let differences = differences(&committed, &fresh);
    if differences.is_empty() {
        println!(".sqlx is up to date: {} queries.", fresh.len());
        return Ok(ExitCode::SUCCESS);
    }
    if !check {
        replace(&folder, &fresh)?;
    }
    for difference in differences {
        println!("{difference}");
    }
    if check {
        println!(".sqlx is not up to date. Run `cargo xtask sqlx` and commit the result.");
        return Ok(ExitCode::FAILURE);
    }
    println!(".sqlx now describes {} queries.", fresh.len());
    Ok(ExitCode::SUCCESS)
}

async fn migrate(url: &str) -> Result<()> {
    devdb::create_database_if_absent(url).await?;
    let migrator = Migrator::new(root().join("migrations")).await?;
    let mut connection = PgConnection::connect(url).await?;
    migrator.run(&mut connection).await?;
    sqlx::raw_sql("set check_function_bodies = off").execute(&mut connection).await?;
    let files = fs::read_dir(root().join("sql"))?;
    let texts: Result<_> = files.map(|file| Ok(fs::read_to_string(file?.path())?)).collect();
    create_all(&mut connection, texts?).await?;
    connection.close().await?;
    Ok(())
}

/// Creates functions and views, of which some need others.
async fn create_all(connection: &mut PgConnection, mut texts: Vec<String>) -> Result<()> {
    while !texts.is_empty() {
        let (before, mut failed, mut last) = (texts.len(), Vec::new(), None);
        for text in texts {
            let created =
                sqlx::raw_sql(AssertSqlSafe(text.clone())).execute(&mut *connection).await;
            if let Err(error) = created {
                failed.push(text);
                last = Some(error);
            }
        }
        if let Some(error) = last.filter(|_| failed.len() == before) {
            return Err(error.into());
        }
        texts = failed;
    }
    Ok(())
}

/// Has the macros ask the database, each of them: cargo expands none in a crate that has not changed.
fn describe(url: &str) -> Result<QueryData> {
    let folder = root().join(".fechatter").join(format!("sqlx-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    touch_sources()?;
    let status = cargo()
        .args(["check", "--workspace", "--all-targets", "--quiet"])
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &folder)
        .env("DATABASE_URL", url)
        .status()
        .context("starting cargo")?;
    let data = read(&folder);
    fs::remove_dir_all(&folder)?;
    ensure!(status.success(), "the queries do not fit the schema; .sqlx is as it was");
    data
}

/// A touched root is a changed crate. Those without queries, ours among them, stay as they are.
fn touch_sources() -> Result<()> {
    let packages = packages()?;
    let with_queries = packages.iter().filter(|package| {
        let name = package["name"].as_str().unwrap_or_default();
        !["devdb", "xtask"].contains(&name)
    });
    for target in with_queries.filter_map(|package| package["targets"].as_array()).flatten() {
        let source = target["src_path"].as_str().context("a target without a source")?;
        File::options().append(true).open(source)?.set_modified(SystemTime::now())?;
    }
    Ok(())
}

fn read(folder: &Path) -> Result<QueryData> {
    if !folder.exists() {
        return Ok(QueryData::new());
    }
    let mut data = QueryData::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("query-") && path.extension().is_some_and(|kind| kind == "json") {
            data.insert(name.into_owned(), fs::read(&path)?);
        }
    }
    Ok(data)
}

fn replace(folder: &Path, fresh: &QueryData) -> Result<()> {
    fs::create_dir_all(folder)?;
    for stale in read(folder)?.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(folder.join(stale))?;
    }
    for (name, content) in fresh {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// One line for each file that is missing, stale or different.
fn differences(committed: &QueryData, fresh: &QueryData) -> Vec<String> {
    let missing = fresh.keys().filter(|name| !committed.contains_key(*name));
    let stale = committed.keys().filter(|name| !fresh.contains_key(*name));
    let changed = fresh
        .iter()
        .filter(|(name, content)| committed.get(*name).is_some_and(|old| old != *content));
    missing
        .map(|name| format!("missing   {name}"))
        .chain(stale.map(|name| format!("stale     {name}")))
        .chain(changed.map(|(name, _)| format!("different {name}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{QueryData, differences};

    #[test]
    fn each_difference_has_a_line() {
        let data = |files: &[(&str, &str)]| -> QueryData {
            files.iter().map(|(name, content)| ((*name).to_owned(), (*content).into())).collect()
        };
        let committed = data(&[("same", "1"), ("old", "1"), ("both", "1")]);
        let fresh = data(&[("same", "1"), ("new", "1"), ("both", "2")]);

        assert_eq!(
            differences(&committed, &fresh),
            ["missing   new", "stale     old", "different both"]
        );
        assert!(differences(&fresh, &fresh).is_empty());
    }
}
