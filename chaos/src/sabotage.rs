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

/// What each switch breaks, by its name, the fault that shows it, and as what.
const BROKEN: [(&str, Fault, &str); 6] = [
    // Writers do not lock the log. (The database then refuses what two of them write at once.)
    ("no_lock", Fault::T6, "lost"),
    // Rights are checked in the statement that waits for the lock, and so as they were before.
    ("lock_with_check", Fault::T7, "leaked"),
    // What came between a stream's own reading and its attachment is not read.
    ("no_catch_up", Fault::T7, "missed"),
    // Nothing but a heard doorbell makes anybody look.
    ("no_rescan", Fault::T8, "missed"),
    // A message is acknowledged before its commit.
    ("early_answer", Fault::T2, "lost"),
    // Nobody has a share: the callers who ask for most take most.
    ("no_shares", Fault::T18, "slowed"),
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

/// Plays against every build that one of these faults shows to be broken until it is caught, one seed after the other.
pub async fn catch_all(options: &Options, faults: &[Fault], report: &mut Report) {
    for (name, fault, kind) in BROKEN.into_iter().filter(|(_, fault, _)| faults.contains(fault)) {
        let broken = catch(name, fault, kind, options).await;
        println!("{}", broken.text());
        report.add_broken(broken);
    }
}

async fn catch(name: &'static str, fault: Fault, kind: &str, options: &Options) -> Broken {
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
        match fault.play(&options).await {
            Played::Row(row) => {
                caught = row.verdict.examples().find(|example| example.starts_with(kind));
            }
            // A build that does not even work is not what this is about.
            Played::Broken(error) => println!("build {name}: {error:#}"),
            Played::NotRun(_) => {}
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
