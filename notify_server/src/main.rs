//! The event streams' server.

use std::path::PathBuf;

use clap::Parser;
use fechatter_core::config::Config;
use fechatter_core::http::Listeners;
use fechatter_core::{shutdown, telemetry};

/// Sends each person, as one stream of server-sent events, what happens in their workspace.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The configuration; app.yml unless named here or in `FECHATTER_CONFIG`.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let config = Config::load(options.config.as_deref())?;
    telemetry::init(&config.log)?;
    let listeners = Listeners::bind(config.notify.listen, config.notify.operations_listen)?;
    let shutdown = shutdown::on_signal()?;
    notify_server::serve(config, listeners, shutdown).await
}
