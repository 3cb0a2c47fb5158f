//! The TypeScript client's tests, against both real servers.

use std::{
    env,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use sqlx::migrate::MigrateDatabase;

use crate::workspace::{build, exit_code, root};

const OLDEST_NODE: u32 = 20;

/// Runs them on a fresh database of the given server. The exit code; a success where there is no Node, but in CI.
pub(crate) async fn run(server: &str) -> Result<u8> {
    if !has_node() {
        let needed = format!("the client's tests need npm and Node {OLDEST_NODE} or newer");
        ensure!(env::var_os("CI").is_none(), "{needed}, and CI must run them");
        println!("skipped: {needed}");
        return Ok(0);
    }
    npm_does(&INSTALL)?;
    npm_does(&["run", "generate", "--", "--check"])
        .context("src/schema.ts is not of docs/openapi.json: run `cargo xtask openapi`")?;
    npm_does(&["run", "build"])?;
    let [rest, notify] = build(&[], ["fechatter_server", "notify_server"])?;
    // Under such a name, devdb removes it even if we are killed.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let database =
        devdb::with_database(server, &format!("fechatter_test_{now}_{}", std::process::id()));
    devdb::create_database_if_absent(&database).await?;
    let mut tests = npm();
    tests.args(["--silent", "test"]);
    tests.env("FECHATTER_SERVER_BIN", rest).env("NOTIFY_SERVER_BIN", notify);
    tests.env("FECHATTER_CONFIG", root().join("app.yml.example"));
    let code = exit_code(tests.env("DATABASE_URL", &database)).await;
    sqlx::Postgres::force_drop_database(&database)
        .await
        .context("dropping the client's database")?;
    code
}

/// Writes the client's types from `docs/openapi.json`, where there is Node.
pub(crate) fn generate() -> Result<()> {
    if !has_node() {
        println!("The client's types stay as they are: that takes npm and Node {OLDEST_NODE}.");
        return Ok(());
    }
    npm_does(&INSTALL)?;
    npm_does(&["run", "generate"])
}

const INSTALL: [&str; 4] = ["ci", "--prefer-offline", "--no-audit", "--no-fund"];

fn npm_does(arguments: &[&str]) -> Result<()> {
    let status = npm().arg("--silent").args(arguments).status().context("starting npm")?;
    ensure!(status.success(), "npm {} failed", arguments.join(" "));
    Ok(())
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(root().join("clients/typescript"));
    npm
}

fn has_node() -> bool {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    version("npm").is_some() && version("node").is_some_and(|version| is_recent(&version))
}

fn is_recent(version: &str) -> bool {
    let major = version.trim().trim_start_matches('v').split('.').next();
    major.and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= OLDEST_NODE)
}

#[cfg(test)]
mod tests {
    use super::is_recent;

    #[test]
    fn old_and_unreadable_versions_are_not_recent() {
        assert!(is_recent("v20.20.2\n") && is_recent("v100.0.0\n"));
        assert!(
            !is_recent("v18.19.0\n")
                && !is_recent("v9.0.0")
                && !is_recent("")
                && !is_recent("node")
        );
    }
}
