//! The server of event streams.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fechatter_core::config::Config;
use fechatter_core::http::Listeners;
use fechatter_core::{shutdown, startup, telemetry};
use tracing::info;

/// The number of open files besides streams and database connections.
const OTHER_FILES: usize = 1_100;

/// With the system's allocator, a request takes up to half more processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends each person, as one stream of server-sent events, what happens in their workspace.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The configuration; app.yml unless named here or in `FECHATTER_CONFIG`.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let config = Config::load(options.config.as_deref())?;
    telemetry::init(&config.log)?;
    Ok(telemetry::exit_code(run(config).await))
}

async fn run(config: Config) -> anyhow::Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %config.notify.listen,
        operations_listen = %config.notify.operations_listen,
        public_url = config.notify.public_url,
        streams = config.notify.streams,
        streams_per_user = config.notify.streams_per_user,
        database_connections = config.database.max_connections,
        "notify_server"
    );
    config.warn_of_mistakes();
    notify_server::check_database(&config).await?;
    let database = usize::try_from(config.database.max_connections)?;
    startup::raise_open_files(config.notify.streams + database + OTHER_FILES);
    let listeners = Listeners::bind(config.notify.listen, config.notify.operations_listen)?;
    let shutdown = shutdown::on_signal()?;
    notify_server::serve(config, listeners, shutdown).await
}
