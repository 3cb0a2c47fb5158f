//! The log output of the servers.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use tracing::{Level, enabled, error};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::commit::{CommitWarnings, Warnings};
use crate::config::{LogConfig, LogFormat};

/// Writes log lines in the configured format to standard error, for the rest of the process.
///
/// # Errors
/// When `log.filter` is not valid, or logging has already been set up.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = filter(&config.filter)?;
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

/// Logs the error that ended a server in one line of the configured format, and returns the exit
/// code.
#[must_use]
pub fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if enabled!(Level::ERROR) {
                error!("{error:#}");
            } else {
                eprintln!("{error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Parses a filter and rejects unknown levels, because `EnvFilter` would treat a mistyped level as
/// the name of a module and drop everything else.
fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        ensure!(
            is_level || directive.contains(['=', '[']),
            "log.filter has a level that there is not; levels are {}, for one module `module=level`",
            LEVELS.join(", ")
        );
    }
    EnvFilter::try_new(directives.join(",")).context("log.filter is no filter")
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_level_that_there_is_not_is_refused() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,sqlx=warn",
            "warn, fechatter_server=debug",
            "info,[request{path=/x}]=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in [
            "warning",
            "",
            "info,,warn",
            "fechatter_server",
            "sqlx=warning",
            "info;warn",
            "infos",
            "all",
        ] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(error.contains("log.filter"), "{error}");
        }
    }
}
