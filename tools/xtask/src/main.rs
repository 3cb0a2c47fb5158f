//! `cargo xtask`: what working on Fechatter takes, with nothing to install but Rust.

mod bench;
mod chaos;
mod client;
mod compat;
mod contract;
mod demo;
mod openapi;
mod python;
mod query_data;
mod run;
mod s3;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// The jobs of this workspace. Each finds or fetches a PostgreSQL of its own unless `DATABASE_URL` names one.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Build and start both servers and their database, and say how to try them; Ctrl-C ends them
    Run(run::Options),
    /// Run all tests against a PostgreSQL that is gone afterwards; the client's too, where there is Node
    Test {
        /// Passed on to `cargo test`; the client's tests are then left out
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure how real servers deliver, on a durable PostgreSQL of their own
    Bench(bench::Options),
    /// Kill, freeze and cut off real servers under load, and hold what people saw against the database
    Chaos(chaos::Options),
    /// Try proxies and ready-made clients on real servers, as far as they are installed
    Compat(compat::Options),
    /// Have a validator, two generators and a fuzzer try `docs/openapi.json` on a real server
    Contract,
    /// Write `docs/openapi.json`, and the client's types where there is Node
    Openapi,
    /// Test files in a bucket, on an S3-compatible server that pip installs
    S3,
    /// Describe every query in `.sqlx`, so that building needs no database
    Sqlx {
        /// Change nothing; fail if `.sqlx` is not up to date
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    // First of all and before any thread: this changes our environment.
    let environment = env_file::load(&workspace::root().join(".env"));
    environment.and_then(|()| run(Arguments::parse().job)).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(job: Job) -> Result<ExitCode> {
    let runtime = Runtime::new()?;
    let code = runtime.block_on(async {
        match job {
            Job::Run(options) => run::run(options).await,
            Job::Test { arguments } => test::run(&arguments).await,
            Job::Bench(options) => bench::run(options).await,
            Job::Chaos(options) => chaos::run(options).await,
            Job::Compat(options) => compat::run(options).await,
            Job::Contract => contract::run().await,
            Job::Openapi => openapi::run(),
            Job::S3 => s3::run().await,
            Job::Sqlx { check } => query_data::run(check).await,
        }
    });
    // Whatever is still waiting in the background ends with the process.
    runtime.shutdown_background();
    code
}
