//! Compares what people saw with what the database holds, in the manner of Jepsen's set and queue analyses.
//!
//! The log's order is the witness, so nothing is searched for: [`log`] is the truth as the database has it in the end,
//! [`writes`] and [`changes`] hold the calls against it and [`streams`] what came through the streams.

mod changes;
pub mod log;
pub mod marks;
mod streams;
#[cfg(test)]
mod tests;
mod texts;
mod writes;

use std::ops::AddAssign;

use crate::{
    checker::{log::Log, texts::Texts},
    history::{Calls, Stream},
};

/// What the database has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// What it has committed stays.
    #[default]
    Everything,
    /// It may come back as it was some time ago, and every stream that has seen more is told to start over.
    UpToReset,
}

/// What is wrong, one sentence a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// How many of those are not there, which is no wonder where not everything was promised to stay.
    pub told: usize,
    /// Acknowledged, and not there or not as acknowledged; met by a fault inside a server; holes in the log or in a chat.
    pub lost: Vec<String>,
    /// There more than once, or although it was refused.
    pub doubled: Vec<String>,
    /// Never came through a stream that should have had it, or came with other contents.
    pub missed: Vec<String>,
    /// Came through a stream again, or after later ones.
    pub repeated: Vec<String>,
    /// Reached or came from somebody whom it was none of the business of.
    pub leaked: Vec<String>,
    /// Took longer than others' demands may make it take, or was refused for their sake.
    pub slowed: Vec<String>,
}

/// Checks everything but [`marks`].
#[must_use]
pub fn check(log: &Log, calls: &Calls, streams: &[Stream], durability: Durability) -> Verdict {
    let texts = Texts::of(log, calls, durability);
    let mut verdict = writes::check_order(log);
    verdict += writes::check_calls(log, &calls.sends, durability);
    verdict += writes::check_writers(log, &calls.sends);
    verdict += changes::check(log, &calls.changes, &texts, durability);
    for stream in streams {
        verdict += streams::check(log, stream, &texts, durability);
    }
    verdict
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts().iter().all(|count| *count == 0)
    }

    /// How many are lost, doubled, missed, repeated, leaked, slowed.
    #[must_use]
    pub fn counts(&self) -> [usize; 6] {
        self.all().map(Vec::len)
    }

    /// A few of each kind.
    pub fn examples(&self) -> impl Iterator<Item = String> {
        let kinds = ["lost", "doubled", "missed", "repeated", "leaked", "slowed"].into_iter();
        kinds.zip(self.all()).flat_map(|(kind, cases)| {
            cases.iter().take(5).map(move |case| format!("{kind}: {case}"))
        })
    }

    fn all(&self) -> [&Vec<String>; 6] {
        [&self.lost, &self.doubled, &self.missed, &self.repeated, &self.leaked, &self.slowed]
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.told += other.told;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.missed.extend(other.missed);
        self.repeated.extend(other.repeated);
        self.leaked.extend(other.leaked);
        self.slowed.extend(other.slowed);
    }
}
