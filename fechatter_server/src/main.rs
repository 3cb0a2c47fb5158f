//! The REST API's process.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fechatter_core::http::Listeners;
use fechatter_core::{shutdown, startup, telemetry};
use fechatter_server::{Config, admin};
use tracing::info;

/// The number of open files besides connections.
const OTHER_FILES: usize = 100;

/// With the system's allocator, a request takes up to half more processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fechatter's REST API.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file. The default is `FECHATTER_CONFIG`, or else `app.yml`.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Do not migrate the database's schema.
    #[arg(long)]
    no_migrate: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API. This is the default command.
    Serve,
    /// Apply the migrations, and exit.
    Migrate,
    /// Commands for the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Commands of the operator: they change the database, also while servers run.
    Admin {
        /// Print the result as JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: admin::Command,
    },
    /// Print the OpenAPI document of both servers, and exit.
    Openapi,
    /// Make new keys for the configuration, as lines for `.env`.
    Keygen {
        /// Add them to this file, and make it readable for its owner only, instead of printing
        /// them.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the value and the source of each key, without secrets. Exits with 1 if a key is
    /// wrong, missing or unknown.
    Check,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Keygen { write }) = arguments.command {
        make_keys(write.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    if matches!(arguments.command, Some(Command::Openapi)) {
        println!("{}", fechatter_server::openapi().to_pretty_json()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Config { command: ConfigCommand::Check }) = arguments.command {
        return check_config(arguments.config.as_deref());
    }
    let config = Config::load(arguments.config.as_deref())?;
    if let Some(Command::Admin { json, command }) = arguments.command {
        return administer(config, command, json).await;
    }
    telemetry::init(&config.log)?;
    Ok(telemetry::exit_code(run(arguments, config).await))
}

async fn run(arguments: Arguments, config: Config) -> anyhow::Result<()> {
    let (server, limits) = (&config.server, &config.limits);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %server.listen,
        operations_listen = %server.operations_listen,
        public_url = server.public_url,
        connections = limits.connections,
        database_connections = config.database.max_connections,
        "fechatter_server"
    );
    config.warn_of_mistakes();
    let is_migrate = matches!(arguments.command, Some(Command::Migrate));
    if !is_migrate {
        fechatter_server::check_keys(&config)?;
    }
    fechatter_server::check_database(&config).await?;
    if is_migrate || !arguments.no_migrate {
        fechatter_server::migrate(&config).await?;
    } else {
        fechatter_server::check_schema(&config).await?;
    }
    if is_migrate {
        return Ok(());
    }
    let database = usize::try_from(config.database.max_connections)?;
    startup::raise_open_files(config.limits.connections + database + OTHER_FILES);
    let listeners = Listeners::bind(config.server.listen, config.server.operations_listen)?;
    fechatter_server::serve(config, listeners, shutdown::on_signal()?).await
}

async fn administer(
    config: Config,
    command: admin::Command,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let report = match admin::run(config, command).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if json {
        println!("{}", report.json);
    } else {
        print!("{}", report.text);
    }
    Ok(if report.is_failure { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check_config(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (config, settings) = Config::load_with_settings(path)?;
    print!("{settings}");
    for unknown in &config.unknown_keys {
        eprintln!("error: {unknown}");
    }
    fechatter_server::check_keys(&config)?;
    Ok(if config.unknown_keys.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make_keys(file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(file) => fechatter_server::write_keys(file),
        None => Ok(stdout().write_all(fechatter_server::keygen()?.as_bytes())?),
    }
}
