//! Fechatters that are broken on purpose: a checker that does not catch them proves nothing.
//!
//! A rule that a function of the database keeps is broken in the database of the run; what PostgreSQL promises,
//! by its settings. The rules of Rust code are broken by a switch that only programs built with the feature `sabotage`
//! know.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rig::Programs;
use sqlx::{AssertSqlSafe, PgPool, query, query_as};

use crate::{
    faults::Fault,
    report::{Played, Report},
    stage::Options,
};

/// The switch of the programs that know one.
const SWITCH: &str = "FECHATTER_SABOTAGE";
/// The folder of these programs, in that of the others.
const FOLDER: &str = "sabotage";

/// How long chance may hide what is broken.
const PATIENCE: Duration = Duration::from_secs(40);

/// An edit of a function's definition; none where that is not as expected.
pub type Edit = fn(&str) -> Option<String>;

/// The place of a rule that is broken.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The functions that write batches.
    Functions(Edit),
    /// PostgreSQL, with these settings.
    Settings(&'static [&'static str]),
    /// Rust code.
    Programs,
}

/// The broken ones: by name, where, the fault that shows it, and as what.
const BROKEN: [(&str, Place, Fault, &str); 7] = [
    // Writers do not lock the log. (The database then refuses what two of them write at once.)
    ("no_lock", Place::Functions(without_locks), Fault::T6, "lost"),
    // Rights are checked before the lock is waited for, and so as they were then.
    ("lock_after_check", Place::Functions(checking_before_locking), Fault::T7, "leaked"),
    // What came between a stream's own reading and its attachment is not read.
    ("no_catch_up", Place::Programs, Fault::T7, "missed"),
    // Nothing but a heard doorbell makes anybody look.
    ("no_rescan", Place::Programs, Fault::T8, "missed"),
    // A message is acknowledged before its commit is on the disk.
    (
        "early_answer",
        Place::Settings(&["synchronous_commit=off", "wal_writer_delay=10s"]),
        Fault::T2,
        "lost",
    ),
    // Nobody has a share: the callers who ask for most take most.
    ("no_shares", Place::Programs, Fault::T18, "slowed"),
    // The memory of recent events keeps messages as they were.
    ("old_frames", Place::Programs, Fault::T19, "leaked"),
];

/// The functions that write batches.
const FUNCTIONS: [&str; 2] = ["write_batch", "send_message"];

/// A broken Fechatter, and what gave it away.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Broken {
    pub name: &'static str,
    pub fault: &'static str,
    pub took: Duration,
    /// None if it was not caught.
    pub caught: Option<String>,
}

/// Plays against every Fechatter that one of these faults shows to be broken until it is caught, one seed after the
/// other. The folder has the programs that are not broken.
///
/// # Errors
/// When there are no programs that can be broken.
pub async fn catch_all(
    options: &Options,
    folder: &Path,
    faults: &[Fault],
    report: &mut Report,
) -> Result<()> {
    for (name, place, fault, kind) in BROKEN {
        if !faults.contains(&fault) {
            continue;
        }
        let mut options = Options { logs: options.logs.join(name), ..options.clone() };
        match place {
            Place::Functions(edit) => options.edit = Some(edit),
            Place::Settings(settings) => {
                options.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
            }
            Place::Programs => {
                options.programs = Programs::in_folder(&folder.join(FOLDER))?;
                options.environment.push((SWITCH.to_owned(), name.to_owned()));
            }
        }
        let broken = catch(name, fault, kind, options).await;
        println!("{}", broken.text());
        report.add_broken(broken);
    }
    Ok(())
}

async fn catch(name: &'static str, fault: Fault, kind: &str, mut options: Options) -> Broken {
    let began = Instant::now();
    let mut caught = None;
    while caught.is_none() && began.elapsed() < PATIENCE {
        match fault.play(&options).await {
            Played::Row(row) => {
                caught = row.verdict.examples().find(|example| example.starts_with(kind));
            }
            // One that does not even work is not what this is about.
            Played::Broken(error) => println!("{name}: {error:#}"),
            Played::NotRun(_) => {}
        }
        options.seed += 1;
    }
    Broken { name, fault: fault.names()[0], took: began.elapsed(), caught }
}

/// Edits the functions that write batches, in the database of a run.
///
/// # Errors
/// When the database fails or a function is not as expected.
pub async fn edit(db: &PgPool, edit: Edit) -> Result<()> {
    let functions: Vec<(String, String)> = query_as(
        "select proname::text, pg_get_functiondef(oid)
         from pg_proc
         where proname = any($1) and pronamespace = 'public'::regnamespace",
    )
    .bind(FUNCTIONS)
    .fetch_all(db)
    .await?;
    for (name, definition) in functions {
        let edited = edit(&definition).with_context(|| format!("{name} cannot be broken"))?;
        query(AssertSqlSafe(edited)).execute(db).await?;
    }
    Ok(())
}

fn without_locks(definition: &str) -> Option<String> {
    let edited =
        definition.replace(" for no key update skip locked", "").replace(" for no key update", "");
    (edited != definition).then_some(edited)
}

/// Moves the lock behind the statement that checks.
fn checking_before_locking(definition: &str) -> Option<String> {
    let definition = definition.replace(" skip locked", "");
    let (before, rest) = definition.split_once("    if patient then\n")?;
    let (lock, rest) = rest.split_at(rest.find("_at := clock_timestamp();")?);
    // The line of the time begins with its name.
    let (lock, name) = lock.split_at(lock.rfind('\n')? + 1);
    let end =
        [") as checked;\n", "into lives, status, chat_state, is_member, message_id, newest;\n"]
            .iter()
            .find_map(|end| rest.find(end).map(|at| at + end.len()))?;
    let (check, rest) = rest.split_at(end);
    Some(format!("{before}{name}{check}    if patient then\n{lock}{rest}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITIONS: [&str; 2] = [
        include_str!("../../../sql/write_batch.sql"),
        include_str!("../../../sql/send_message.sql"),
    ];

    #[test]
    fn the_functions_can_be_broken() {
        for definition in DEFINITIONS {
            assert!(!without_locks(definition).unwrap().contains("no key update"));

            let edited = checking_before_locking(definition).unwrap();
            let [check, lock] = ["from sessions", "no key update"].map(|part| edited.find(part));
            assert!(check.unwrap() < lock.unwrap(), "{edited}");
            assert_eq!(edited.len(), definition.replace(" skip locked", "").len());
        }
    }
}
