//! The metrics of both servers, for Prometheus.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

macro_rules! names {
    ($($describe:ident $name:ident $text:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $name: &str = $text;
        )*

        fn describe() {
            $($describe!($name, $help);)*
        }
    };
}

names! {
    describe_counter REQUESTS "fechatter_requests_total"
        "Answers, by method, route and status.";
    describe_histogram REQUEST_SECONDS "fechatter_request_seconds"
        "Time until the answer's headers, by method and route.";
    describe_gauge CONNECTIONS_OPEN "fechatter_connections_open"
        "Connections open now, by port (public, operations).";
    describe_counter CONNECTIONS_REFUSED "fechatter_connections_refused_total"
        "Connections that were closed unserved, by port and reason (address: its share was used up; all: so was the limit in all).";
    describe_counter CHAT_LISTS "fechatter_chat_lists_total"
        "Lists of chats asked for, by outcome (miss: read anew; hit: kept; `not_modified`: kept by both).";
    describe_histogram LOCK_WAIT_SECONDS "fechatter_lock_wait_seconds"
        "Time that a writer waited for the locks of its logs.";
    describe_histogram BATCH_COMMANDS "fechatter_batch_commands"
        "Messages and other small changes written in one commit.";
    describe_histogram BATCH_SECONDS "fechatter_batch_seconds"
        "Time that it took to write a batch of messages and other small changes.";
    describe_counter COMMANDS_REFUSED "fechatter_commands_refused_total"
        "Messages and other small changes that were answered with 503, by reason (full: no room, or too long a wait; late: no batch in time).";
    describe_counter EVENTS_WRITTEN "fechatter_events_written_total"
        "Events committed to the logs.";
    describe_counter EVENTS_PRUNED "fechatter_events_pruned_total"
        "Events removed because they were too old.";
    describe_counter DOORBELLS_RUNG "fechatter_doorbells_rung_total"
        "Notifications sent, by outcome (rung, failed).";
    describe_gauge DATABASE_CONNECTIONS "fechatter_database_connections"
        "Connections of the pool, by state (idle, busy).";
    describe_gauge CLOCK_AHEAD_SECONDS "fechatter_clock_ahead_seconds"
        "How far this host's clock is ahead of the database's, by which servers judge.";
    describe_counter CLOCKS_AHEAD "fechatter_clocks_ahead_total"
        "Access tokens of a server whose clock is more than a minute ahead of the database's.";
    describe_counter DOORBELLS_HEARD "fechatter_doorbells_heard_total"
        "Notifications received.";
    describe_counter EVENTS_READ "fechatter_events_read_total"
        "New events of workspaces with streams here, by how they were found (announcement, doorbell, poll).";
    describe_counter LOG_BREAKS "fechatter_log_breaks_total"
        "Times that a log did not go on from where it was: a hole, a failover or a restore.";
    describe_gauge TAIL_LAG_POSITIONS "fechatter_tail_lag_positions"
        "The logs' heads minus the tail's positions, of the workspace that is furthest behind.";
    describe_gauge TAIL_LAG_SECONDS "fechatter_tail_lag_seconds"
        "Age of the oldest event that the tail has not read.";
    describe_gauge TAIL_SCAN_AGE_SECONDS "fechatter_tail_scan_age_seconds"
        "Time since the tail last read all logs with success.";
    describe_gauge WORKSPACES "fechatter_workspaces"
        "Workspaces held in memory.";
    describe_gauge RECENT_BYTES "fechatter_recent_bytes"
        "Size of the recent events held in memory.";
    describe_gauge STREAMS_OPEN "fechatter_streams_open"
        "Streams open now.";
    describe_counter STREAMS_CLOSED "fechatter_streams_closed_total"
        "Streams that ended, by reason: those of Goodbye, and reset, gone (the client), failed.";
    describe_counter RESETS "fechatter_resets_total"
        "Resets sent, by reason.";
    describe_histogram REPLAY_EVENTS "fechatter_replay_events"
        "Events that a resuming stream had missed.";
    describe_histogram REPLAY_SECONDS "fechatter_replay_seconds"
        "Time until a resuming stream had what it missed, by source (memory, database).";
    describe_counter DELIVERIES "fechatter_deliveries_total"
        "Events handed to streams as they happened.";
    describe_gauge OUTBOX_FRAMES "fechatter_outbox_frames"
        "Events waiting for slow readers, by which (all, longest).";
}

/// A counter, and one of its labels with all possible values of the label, if it has one.
pub type Countable = (&'static str, Option<(&'static str, &'static [&'static str])>);

/// Creates counters with the value 0, because monitoring sees no increase in a counter that appears
/// only with its first count.
pub fn begin_at_zero(counters: &[Countable]) {
    for (name, labels) in counters {
        let Some((label, values)) = labels else {
            metrics::counter!(*name).increment(0);
            continue;
        };
        for value in *values {
            metrics::counter!(*name, *label => *value).increment(0);
        }
    }
}

const SECONDS: [f64; 13] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const COMMANDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const EVENTS: [f64; 7] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 5_000.0, 100_000.0];
/// The interval between upkeeps, because histograms keep every value until an upkeep or a scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once per process. Later calls return the same metrics.
    ///
    /// # Errors
    /// When another recorder is already installed.
    pub fn start() -> anyhow::Result<Self> {
        static STARTED: OnceLock<Result<Metrics, String>> = OnceLock::new();
        let started = STARTED.get_or_init(|| install().map_err(|error| format!("{error:#}")));
        started.clone().map_err(anyhow::Error::msg)
    }

    /// Returns all metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Limits the memory of the histograms periodically, for ever.
    pub async fn upkeep(self) {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            upkeep.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn install() -> anyhow::Result<Metrics> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_events".into()), &EVENTS)
        })
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_commands".into()), &COMMANDS)
        })
        .context("the buckets of the metrics are wrong")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("{error}"))?;
    describe();
    Ok(Metrics(handle))
}
