//! `compat`: tries proxies and ready-made clients on real servers, prints two tables, and fails if a message was lost or
//! repeated, or a request was answered by 502.
//!
//! In reading order: `proxy` starts each proxy with the configuration of `docs/proxies.md` (`page`), `client` each
//! client; `streams` are the trials of both, `requests` those of proxies, `refusals` those of clients; `report` prints
//! what came of them. `route` and `subscriber` are our own client for proxies, `tap` counts what other clients ask.

mod certificate;
mod client;
mod conversation;
mod observed;
mod page;
mod programs;
mod proxy;
mod refusals;
mod report;
mod requests;
mod route;
mod stage;
mod streams;
mod subscriber;
mod tap;
mod verdict;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rig::Programs;

use crate::{client::Client, proxy::Proxy, stage::Stage};

/// Tries proxies and clients on the servers that lie beside this program.
#[derive(Parser)]
struct Arguments {
    /// Pauses of 5 and 10 s only
    #[arg(long)]
    quick: bool,
    /// Only these proxies and clients, such as nginx,requests
    #[arg(long, value_delimiter = ',', value_parser = subject)]
    only: Vec<Subject>,
}

/// The pauses between POSTs, in seconds.
const PAUSES: [u64; 6] = [5, 10, 30, 60, 75, 80];

/// The things that can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Proxy(Proxy),
    Client(Client),
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
    let began = Instant::now();
    let program = env::current_exe()?;
    let folder = program.parent().context("this program is in a folder")?;
    let programs = Programs::in_folder(folder)?;
    let is_chosen =
        |subject: Subject| arguments.only.is_empty() || arguments.only.contains(&subject);
    let proxies = Proxy::ALL.into_iter().filter(|proxy| is_chosen(Subject::Proxy(*proxy)));
    let clients = Client::ALL.into_iter().filter(|client| is_chosen(Subject::Client(*client)));
    let (proxies, clients): (Vec<_>, Vec<_>) = (proxies.collect(), clients.collect());
    let pauses = if arguments.quick { &PAUSES[..2] } else { &PAUSES };
    let pauses: Vec<_> = pauses.iter().copied().map(Duration::from_secs).collect();
    let stage = Stage::prepare(programs, &folder.with_file_name("compat"), &clients).await?;
    let report = stage.play(&proxies, &clients, &pauses).await?;
    println!("\n{}", report.text());
    println!("\nThis took {} s.", began.elapsed().as_secs());
    Ok(report.problems().is_empty())
}

fn subject(text: &str) -> Result<Subject, String> {
    let proxy = Proxy::from_str(text, true).map(Subject::Proxy);
    proxy.or_else(|_| Client::from_str(text, true).map(Subject::Client)).map_err(|_| {
        let proxies = Proxy::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let clients = Client::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> =
            proxies.chain(clients).map(|value| value.get_name().to_owned()).collect();
        format!("there are {}", names.join(", "))
    })
}
