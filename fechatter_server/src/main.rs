//! The REST API's process.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use fechatter_core::config::Config;
use fechatter_core::http::Listeners;
use fechatter_core::{shutdown, telemetry};

/// Fechatter's REST API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; `app.yml` unless named here or in `FECHATTER_CONFIG`.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Leave the database's schema as it is.
    #[arg(long)]
    no_migrate: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API; the default.
    Serve,
    /// Apply the migrations, and end.
    Migrate,
    /// Print new keys for the configuration, as lines for `.env`.
    Keygen,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Keygen)) {
        return Ok(std::io::Write::write_all(
            &mut std::io::stdout(),
            fechatter_server::keygen()?.as_bytes(),
        )?);
    }
    let config = Config::load(arguments.config.as_deref())?;
    telemetry::init(&config.log)?;
    let is_migrate = matches!(arguments.command, Some(Command::Migrate));
    if !is_migrate {
        fechatter_server::check_keys(&config)?;
    }
    if is_migrate || !arguments.no_migrate {
        fechatter_server::migrate(&config).await?;
    }
    if is_migrate {
        return Ok(());
    }
    let listeners = Listeners::bind(config.server.listen, config.server.operations_listen)?;
    fechatter_server::serve(config, listeners, shutdown::on_signal()?).await
}
