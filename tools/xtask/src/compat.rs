//! `cargo xtask compat`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::workspace::{build, exit_code, with_files};

#[derive(Args)]
pub(crate) struct Options {
    /// Pauses of 5 and 10 s between POSTs instead of up to 80 s
    #[arg(long)]
    quick: bool,
    /// Only these proxies and clients, such as nginx,requests
    #[arg(long)]
    only: Option<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let [compat] = build(&[], ["compat"])?;
    let mut compat = with_files(&compat);
    compat.args(options.quick.then_some("--quick"));
    compat.args(options.only.iter().flat_map(|subjects| ["--only", subjects]));
    Ok(ExitCode::from(exit_code(&mut compat).await?))
}
