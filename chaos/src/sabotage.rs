//! Builds that are broken on purpose: a checker that does not catch them proves nothing.
//!
//! The switch is an environment variable that only debug builds of the servers know.

use std::time::{Duration, Instant};

use crate::{
    faults::Fault,
    report::{Played, Report},
    stage::Options,
};

const SWITCH: &str = "FECHATTER_SABOTAGE";

/// How long chance may hide what is broken.
const PATIENCE: Duration = Duration::from_secs(40);

/// What each switch breaks, by its name, and the fault that shows it.
const BROKEN: [(&str, Fault); 5] = [
    // Events are appended without the lock of their log.
    ("no_lock", Fault::T6),
    // The lock is taken in the statement that checks, which then does not see what it has waited for.
    ("lock_with_check", Fault::T7),
    // A stream is attached without what came since its replay.
    ("no_catch_up", Fault::T7),
    // A listener whose connection broke does not look for what it did not hear.
    ("no_rescan", Fault::T2),
    // A message is acknowledged before its commit.
    ("early_answer", Fault::T2),
];

/// A broken build, and what gave it away.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Broken {
    pub name: &'static str,
    pub fault: &'static str,
    pub took: Duration,
    /// None if it was not caught.
    pub caught: Option<String>,
}

/// Plays against every broken build until it is caught, one seed after the other.
pub async fn catch_all(options: &Options, report: &mut Report) {
    for (name, fault) in BROKEN {
        let broken = catch(name, fault, options).await;
        println!("{}", broken.text());
        report.add_broken(broken);
    }
}

async fn catch(name: &'static str, fault: Fault, options: &Options) -> Broken {
    let began = Instant::now();
    let mut caught = None;
    let mut seed = options.seed;
    while caught.is_none() && began.elapsed() < PATIENCE {
        let options = Options {
            seed,
            logs: options.logs.join(name),
            environment: vec![(SWITCH.to_owned(), name.to_owned())],
            ..options.clone()
        };
        // A build that does not even work is not what this is about.
        if let Played::Row(row) = fault.play(&options).await {
            caught = row.verdict.examples().next();
        }
        seed += 1;
    }
    Broken { name, fault: fault.names()[0], took: began.elapsed(), caught }
}

impl Broken {
    /// For the table.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { name, fault, took, caught } = self;
        let took = took.as_secs();
        match caught {
            Some(example) => format!("build {name}: caught by {fault} in {took} s ({example})"),
            None => format!("build {name}: NOT CAUGHT by {fault} in {took} s"),
        }
    }
}
