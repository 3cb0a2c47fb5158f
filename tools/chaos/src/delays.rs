//! How long things took, for people to read: except for T18 they decide nothing.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use fechatter_core::{MessageId, Position};

use crate::history::{Past, Send, What};

/// Times, and what is to be said about them.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    recoveries: Vec<Recovery>,
    notes: Vec<String>,
    /// From a send's beginning to its answer.
    pub sending: Times,
    /// From a send's answer to each receipt.
    pub delivery: Times,
}

/// The slowest of its kind.
#[derive(Debug, Clone)]
struct Recovery {
    kind: &'static str,
    took: Duration,
    limit: Duration,
}

/// Many times, in ascending order.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Delays {
    /// Notes how long something took that is to take `limit` at most. Only the slowest of its kind stays.
    pub fn recovery(&mut self, kind: &'static str, took: Duration, limit: Duration) {
        match self.recoveries.iter_mut().find(|recovery| recovery.kind == kind) {
            Some(recovery) => recovery.took = took.max(recovery.took),
            None => self.recoveries.push(Recovery { kind, took, limit }),
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
        let all =
            all.map(|recovery| format!("{} {:.1} s", recovery.kind, recovery.took.as_secs_f64()));
        all.collect::<Vec<_>>().join(", ")
    }

    /// What took longer than it should, and everything else.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let slow = self.recoveries.iter().filter(|recovery| recovery.took > recovery.limit);
        let slow = slow.map(|Recovery { kind, took, limit }| {
            format!(
                "SLOW: {kind} took {:.1} s, to reach is {:.1} s",
                took.as_secs_f64(),
                limit.as_secs_f64()
            )
        });
        let times = [("sending", &self.sending), ("delivery", &self.delivery)].into_iter();
        let times = times.filter(|(_, times)| !times.0.is_empty());
        let times = times.map(|(name, times)| format!("{name}: {times}"));
        slow.chain(times).chain(self.notes.iter().cloned())
    }

    /// Works out how long sending and delivery took.
    pub(crate) fn measure(&mut self, past: &Past) {
        self.sending = past.calls.sends.iter().filter_map(Send::duration).collect();
        let deliveries = past.deliveries(|send| Some(send.acknowledgement()?.returned));
        self.delivery = deliveries.map(|(answered, received)| received - answered).collect();
    }
}

impl Send {
    /// When it was said first.
    pub(crate) fn invoked(&self) -> Option<Instant> {
        Some(self.attempts.first()?.invoked)
    }

    /// How long it took until it was acknowledged for the first time.
    pub(crate) fn duration(&self) -> Option<Duration> {
        Some(self.acknowledgement()?.returned - self.invoked()?)
    }
}

impl Past {
    /// When each message that was acknowledged began by this measure, and when each stream had it, at the earliest
    /// then.
    pub(crate) fn deliveries(
        &self,
        begins: impl Fn(&Send) -> Option<Instant>,
    ) -> impl Iterator<Item = (Instant, Instant)> {
        let began: HashMap<MessageId, Instant> = self
            .calls
            .sends
            .iter()
            .filter_map(|send| Some((send.acknowledged()?.id, begins(send)?)))
            .collect();
        let began: HashMap<Position, Instant> = self
            .log
            .entries
            .iter()
            .filter_map(|entry| Some((entry.cursor.position, *began.get(&entry.message?)?)))
            .collect();
        let prompt = self.streams.iter().filter(|stream| !stream.stalled);
        prompt.flat_map(|stream| &stream.heard).filter_map(move |heard| match heard.what {
            What::Event(receipt) => {
                let began = *began.get(&receipt.position)?;
                Some((began, heard.at.max(began)))
            }
            _ => None,
        })
    }
}

impl Times {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many of a hundred do not exceed.
    #[must_use]
    pub fn percentile(&self, part: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * part / 100).min(last)).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, all] = [50, 99, 100].map(|part| self.percentile(part).as_secs_f64());
        write!(f, "{} times, p50 {p50:.3} s, p99 {p99:.3} s, at most {all:.3} s", self.0.len())
    }
}
