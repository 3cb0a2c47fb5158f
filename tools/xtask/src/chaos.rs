//! `cargo xtask chaos`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::workspace::{build, build_aside, exit_code, with_files};

#[derive(Args)]
pub(crate) struct Options {
    /// The faults of CI, less often, and that every broken build is caught: at most 7 minutes, with debug builds
    #[arg(long)]
    quick: bool,
    /// What chance an earlier run had: it prints its seed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults, such as T1,T7
    #[arg(long)]
    only: Option<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let profile: &[&str] = if options.quick { &[] } else { &["--release"] };
    if options.quick {
        // Programs that can be broken, for the builds that are to be caught.
        build_aside("sabotage", ["fechatter_server", "notify_server"])?;
    }
    let [chaos] = build(profile, ["chaos"])?;
    let mut chaos = with_files(&chaos);
    chaos.args(options.quick.then_some("--quick"));
    chaos.args(options.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    chaos.args(options.only.iter().flat_map(|faults| ["--only", faults]));
    Ok(ExitCode::from(exit_code(&mut chaos).await?))
}
