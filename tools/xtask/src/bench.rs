//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::workspace::{build, exit_code, with_files};

#[derive(Args)]
pub(crate) struct Options {
    /// Scenarios to measure: send, deliver, fanout, mixed, storm, resume, sync, history, sidebar, growth, signin, prune, backup, start;
    /// everything unless named, for about 25 minutes
    scenarios: Vec<String>,
    /// Print the rows as JSON (name, value, spread, unit, limit, ratio, target, met), and the table to standard error
    #[arg(long)]
    json: bool,
    /// A tenth of everything, for 5 s, with debug builds: shows that it works, and measures little
    #[arg(long)]
    quick: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let profile: &[&str] = if options.quick { &[] } else { &["--release"] };
    let [bench] = build(profile, ["bench"])?;
    let mut bench = with_files(&bench);
    bench.args(options.scenarios);
    bench.args(options.json.then_some("--json"));
    bench.args(options.quick.then_some("--quick"));
    Ok(ExitCode::from(exit_code(&mut bench).await?))
}
