//! How long things took, for people to read: they decide nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    checker::log::Log,
    history::{Send, Stream, What},
};

/// Times, and what is to be said about them.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    /// The slowest of each kind.
    recoveries: Vec<(&'static str, Duration, Duration)>,
    notes: Vec<String>,
}

impl Delays {
    /// Notes how long a recovery took, which is not to be more than `limit`. Only the slowest of its kind stays.
    pub fn recovery(&mut self, kind: &'static str, took: Duration, limit: Duration) {
        match self.recoveries.iter_mut().find(|(name, ..)| *name == kind) {
            Some((_, slowest, _)) => *slowest = took.max(*slowest),
            None => self.recoveries.push((kind, took, limit)),
        }
    }

    /// Something else to be said.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The kinds with their slowest.
    #[must_use]
    pub fn slowest(&self) -> String {
        let all = self.recoveries.iter();
        let all: Vec<_> =
            all.map(|(kind, took, _)| format!("{kind} {:.1} s", took.as_secs_f64())).collect();
        all.join(", ")
    }

    /// What took longer than it should, and everything else.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let slow = self.recoveries.iter().filter(|(_, took, limit)| took > limit);
        let slow = slow.map(|(kind, took, limit)| {
            format!(
                "{kind} took {:.1} s, {:.1} s is to be reached",
                took.as_secs_f64(),
                limit.as_secs_f64()
            )
        });
        slow.chain(self.notes.iter().cloned())
    }

    /// Works out how long sending and delivery took.
    pub(crate) fn measure(&mut self, sends: &[Send], streams: &[Stream], log: &Log) {
        let mut begins = HashMap::new();
        let mut sending = Vec::new();
        for send in sends {
            let Some(first) = send.attempts.first().map(|attempt| attempt.invoked) else {
                continue;
            };
            let acknowledged = send.attempts.iter().find(|attempt| attempt.message().is_some());
            if let Some((attempt, message)) =
                acknowledged.and_then(|attempt| Some((attempt, attempt.message()?)))
            {
                sending.push(attempt.returned - first);
                begins.insert(message.id, attempt.returned);
            }
        }
        self.note(format!("sending: {}", percentiles(sending)));
        let by_position: HashMap<_, Instant> = log
            .entries
            .iter()
            .filter_map(|entry| Some((entry.cursor.position, *begins.get(&entry.message?)?)))
            .collect();
        let heard = streams.iter().flat_map(|stream| &stream.heard);
        let deliveries = heard.filter_map(|heard| match heard.what {
            What::Event(receipt) => by_position
                .get(&receipt.position)
                .map(|sent| heard.at.saturating_duration_since(*sent)),
            _ => None,
        });
        self.note(format!(
            "from the answer to each receipt: {}",
            percentiles(deliveries.collect())
        ));
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
    let at = |part| at(part).map_or(0.0, Duration::as_secs_f64);
    format!(
        "p50 {:.3} s, p99 {:.3} s, all {:.3} s ({} in all)",
        at(50),
        at(99),
        at(100),
        times.len()
    )
}
