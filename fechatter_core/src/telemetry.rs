//! What the servers say of themselves.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::commit::{CommitWarnings, Warnings};
use crate::config::{LogConfig, LogFormat};

/// Sends log lines of the configured form to standard error, for the rest of the process.
///
/// # Errors
/// When `log.filter` is no filter, or logging has been set up before.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter).context("log.filter is no filter")?;
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(CommitWarnings.with_filter(Warnings))
        .try_init();
    started.map_err(|error| anyhow::anyhow!(error)).context("logging was already set up")
}
