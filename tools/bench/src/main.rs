//! `bench`: measures how a real Fechatter delivers, and prints one table.
//!
//! In reading order: each of the `scenarios` starts its own servers on a `stage`, perhaps with a `large` workspace, opens
//! a `crowd` of streams, lets a `load` of senders send all they can or calls at a steady `pace` over a `pool` of
//! connections, sends messages that carry the time on a `clock`, asks the system about `processes`, measures the `limits`
//! of the machine in the same minute, and writes a `figure` of what it has `timed` into the `report`.

mod clock;
mod crowd;
mod figure;
mod large;
mod limits;
mod load;
mod pace;
mod pool;
mod processes;
mod report;
mod scenarios;
mod stage;
mod timed;

use std::{env, num::NonZero, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rig::Programs;
use tokio::{sync::OnceCell, time::timeout};

use crate::{report::Report, scenarios::Scenario, stage::Stage};

/// No scenario takes so long unless something is broken.
const LIMIT: Duration = Duration::from_mins(10);

/// Measures the servers beside which this program lies.
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything unless named, for about 25 minutes
    scenarios: Vec<Scenario>,
    /// Print the rows as JSON (name, value, spread, unit, limit, ratio, target, met), and the table to standard error
    #[arg(long)]
    json: bool,
    /// A tenth of everything, for 5 s: shows that it works, and measures little
    #[arg(long)]
    quick: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured.
async fn measure(arguments: &Arguments) -> Result<bool> {
    let program = env::current_exe()?;
    let folder = program.parent().context("this program is in a folder")?;
    let stage = Stage {
        programs: Programs::in_folder(folder)?,
        logs: folder.with_file_name("bench"),
        quick: arguments.quick,
        large: OnceCell::new(),
    };
    let mut scenarios = arguments.scenarios.clone();
    if scenarios.is_empty() {
        scenarios.extend(Scenario::value_variants());
    }
    // What only reads the large workspace comes before what writes to it.
    scenarios.sort_unstable();
    let mut report = Report::new(!arguments.quick);
    let mut complete = true;
    for scenario in scenarios {
        eprintln!("Measuring {}.", scenario.name());
        let run = timeout(LIMIT, scenario.run(&stage, &mut report)).await;
        if let Err(error) = run.context("it takes too long").and_then(|outcome| outcome) {
            eprintln!("error: {}: {error:#}", scenario.name());
            complete = false;
        }
    }
    let table = format!("{}\n\n{}", circumstances(), report.table());
    if arguments.json {
        eprintln!("{table}");
        println!("{}", report.json());
    } else {
        println!("{table}");
    }
    Ok(complete)
}

/// What is the same for all rows.
fn circumstances() -> String {
    let build = if cfg!(debug_assertions) { "Debug" } else { "Release" };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    format!(
        "{build} build. The servers, PostgreSQL with fsync on, and what measures them share {cores} cores."
    )
}
