//! `cargo xtask test`.

use std::{env, process::ExitCode, thread};

use anyhow::Result;
use devdb::Postgres;

use crate::{
    client,
    workspace::{cargo, exit_code},
};

/// Where the tests find their server.
const URL: &str = "DATABASE_URL";

/// How many tests of a program run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

pub(crate) async fn run(arguments: &[String]) -> Result<ExitCode> {
    let mut own = None;
    let url = if let Some(url) = devdb::configured_url() {
        println!("Testing on the server that DATABASE_URL names.");
        url
    } else {
        own.insert(Postgres::temporary()?).url("postgres")
    };

    let mut tests = cargo();
    tests.args(["test", "--workspace"]).args(arguments).env(URL, &url);
    if env::var_os(THREADS).is_none() {
        // Half of the time a test waits: for PostgreSQL, for a process, for a limit of time.
        let processors = thread::available_parallelism()?.get();
        tests.env(THREADS, (2 * processors).to_string());
    }
    let mut code = exit_code(&mut tests).await?;
    if code == 0 && arguments.is_empty() {
        code = client::run(&url).await?;
    }

    if let Some(postgres) = own {
        postgres.stop()?;
    }
    Ok(ExitCode::from(code))
}
