//! `chaos`: plays faults, prints one table, and fails unless nothing was lost, doubled, missed, repeated, leaked or slowed.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use chaos::{faults::Fault, report::Report, sabotage, stage::Options};
use clap::Parser;
use rig::Programs;

/// Plays faults on real servers, beside which this program lies.
#[derive(Parser)]
struct Arguments {
    /// Fewer faults, and each less often: a few minutes
    #[arg(long)]
    quick: bool,
    /// What made chance of an earlier run; it is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these, such as T1,T7
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    only: Vec<Fault>,
    /// Also show that the builds which these faults show to be broken are caught, as a quick run does anyway
    #[arg(long)]
    broken: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match play(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: Arguments) -> Result<bool> {
    let program = env::current_exe()?;
    let folder = program.parent().context("this program is in a folder")?;
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
    };
    println!("Seed {seed}.");
    let options = Options {
        programs: Programs::in_folder(folder)?,
        quick: arguments.quick,
        seed,
        logs: logs(folder),
        environment: Vec::new(),
        settings: Vec::new(),
        edit: None,
    };
    let faults = match &*arguments.only {
        [] if arguments.quick => Fault::QUICK,
        [] => Fault::ALL,
        only => only,
    };
    let mut report = Report::default();
    for fault in faults {
        let began = Instant::now();
        let played = fault.play(&options).await;
        println!("{} took {} s.", fault.names()[0], began.elapsed().as_secs());
        report.add(fault.names(), played);
    }
    if arguments.quick && arguments.only.is_empty() || arguments.broken {
        sabotage::catch_all(&options, folder, faults, &mut report).await?;
    }
    println!("\n{}", report.text());
    Ok(report.is_good())
}

/// Beside what cargo builds.
fn logs(folder: &Path) -> PathBuf {
    folder.with_file_name("chaos")
}
