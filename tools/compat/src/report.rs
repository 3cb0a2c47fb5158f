//! The two tables in Markdown, and what was wrong.

use std::time::Duration;

use crate::{
    refusals::Refusals,
    requests::Posts,
    streams::{Outcome, PHASES},
    verdict::Verdict,
};

/// The results of one proxy.
#[derive(Debug)]
pub(crate) struct ProxyRow {
    pub(crate) name: String,
    /// For HTTP/1.1 and HTTP/2.
    pub(crate) outcomes: Vec<Outcome>,
    /// Answers other than 201 to the messages of these.
    pub(crate) failures: Vec<String>,
    pub(crate) posts: Posts,
    /// The answers to a body of 2 MiB, one for each version.
    pub(crate) large_bodies: Vec<String>,
    pub(crate) believed: Vec<String>,
    /// Paths of `fechatter_server` that the proxy does not pass on, with the answers.
    pub(crate) unreachable: Vec<String>,
    pub(crate) logs_with_tokens: Vec<String>,
    /// Streams that ended while nothing happened.
    pub(crate) ended_idle: usize,
}

/// The results of one client.
#[derive(Debug)]
pub(crate) struct ClientRow {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) refusals: Refusals,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) proxies: Vec<ProxyRow>,
    pub(crate) clients: Vec<ClientRow>,
    pub(crate) skipped: Vec<String>,
}

const PROXY_HEAD: &str = "| proxy | first event and slowest message: HTTP/1.1; HTTP/2 | messages on both | lost | repeated \
| POSTs around pauses | answered 502 | a body of 2 MiB | forged addresses recorded | logs with tokens |
|---|---|---|---|---|---|---|---|---|---|
";
const CLIENT_HEAD: &str =
    "| client | first event and slowest message | lost and repeated: cut | restart | kill −9 \
| expired token | bad cursor | 429 | 502 of a proxy |
|---|---|---|---|---|---|---|---|---|
";

impl Report {
    /// The tables, and below them everything that must not be.
    pub(crate) fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.proxies.is_empty() {
            let rows: String = self.proxies.iter().map(ProxyRow::line).collect();
            parts.push(format!("{PROXY_HEAD}{rows}"));
        }
        if !self.clients.is_empty() {
            let rows: String = self.clients.iter().map(ClientRow::line).collect();
            parts.push(format!("{CLIENT_HEAD}{rows}"));
        }
        parts.extend(self.skipped.iter().map(|why| format!("skipped: {why}")));
        parts.extend(self.problems());
        parts.join("\n")
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let proxies = self.proxies.iter().flat_map(ProxyRow::problems);
        proxies.chain(self.clients.iter().flat_map(ClientRow::problems)).collect()
    }
}

impl ProxyRow {
    fn line(&self) -> String {
        let slowest: Vec<_> = self.outcomes.iter().map(times).collect();
        let mut total = Verdict::default();
        self.outcomes.iter().for_each(|outcome| total += outcome.total());
        let mut bodies = self.large_bodies.clone();
        bodies.dedup();
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.name,
            slowest.join("; "),
            total.sent,
            total.lost,
            total.repeated,
            self.posts.made,
            self.posts.bad_gateway,
            bodies.join(", "),
            self.believed.len(),
            self.logs_with_tokens.len(),
        )
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for outcome in &self.outcomes {
            problems.extend(outcome_problems(outcome));
        }
        problems.extend(self.failures.iter().map(|what| format!("a message got {what}")));
        if self.posts.bad_gateway > 0 {
            problems.push(format!("{} POSTs got 502", self.posts.bad_gateway));
        }
        problems.extend(self.posts.failures.iter().map(|what| format!("a POST got {what}")));
        let wrong = self.large_bodies.iter().filter(|answer| !answer.starts_with("413"));
        problems.extend(wrong.map(|answer| format!("a body of 2 MiB got {answer}")));
        problems.extend(self.believed.iter().cloned());
        problems.extend(self.unreachable.iter().cloned());
        problems.extend(self.logs_with_tokens.iter().map(|log| format!("a token is in {log}")));
        if self.ended_idle > 0 {
            problems.push(format!("{} streams ended by themselves", self.ended_idle));
        }
        problems.into_iter().map(|problem| format!("{}: {}", self.name, problem.trim())).collect()
    }
}

impl ClientRow {
    fn line(&self) -> String {
        let [cut, _, restart, kill] = self.outcome.verdicts;
        let verdict = |verdict: Verdict| {
            format!("{} and {} of {}", verdict.lost, verdict.repeated, verdict.sent)
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.name,
            times(&self.outcome),
            verdict(cut),
            verdict(restart),
            verdict(kill),
            self.refusals.expired_token,
            self.refusals.bad_cursor,
            self.refusals.too_many_streams,
            self.refusals.bad_gateway,
        )
    }

    fn problems(&self) -> Vec<String> {
        let problems = outcome_problems(&self.outcome).into_iter();
        let problems = problems.chain(self.refusals.problems.iter().cloned());
        problems.map(|problem| format!("{}: {}", self.name, problem.trim())).collect()
    }
}

fn outcome_problems(outcome: &Outcome) -> Vec<String> {
    let label = outcome.label;
    let mut problems = Vec::new();
    if !outcome.is_at_once() {
        problems.push(format!("{label} first event and slowest message took {}", times(outcome)));
    }
    for (phase, verdict) in PHASES.iter().zip(outcome.verdicts) {
        if !verdict.is_good() {
            problems.push(format!("{label} {phase}: {verdict}"));
        }
    }
    problems
}

fn times(outcome: &Outcome) -> String {
    format!("{} and {}", milliseconds(outcome.first), milliseconds(outcome.slowest))
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(
        || "more than 5 s".to_owned(),
        |duration| format!("{} ms", duration.as_millis()),
    )
}
