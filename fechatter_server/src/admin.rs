//! `fechatter_server admin`: the operator's commands. They use the models of the API, so they keep its
//! rules, append the same events and are in the audit log, with the name of the operator's account in
//! the operating system.

mod context;
mod doctor;
mod people;
mod stats;
mod workspaces;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use fechatter_core::db;
use fechatter_core::log::Log;
use sqlx::Connection;

use self::context::Admin;
pub use self::context::Report;
use crate::APPLICATION;
use crate::config::{Config, WorkspaceCreation};
use crate::models::workspace::{self, setup};

/// A command of the operator.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the installation. Exits with 1 if something is wrong.
    Doctor {
        /// Check all stored messages and events, too.
        #[arg(long)]
        database: bool,
    },
    /// See [`DatabaseCommand`].
    #[command(flatten)]
    InDatabase(DatabaseCommand),
}

/// A command that needs a database that can be reached.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Print a link with which somebody creates the first workspace, within 24 hours.
    SetupLink,
    /// Commands for workspaces.
    #[command(subcommand)]
    Workspace(workspaces::Command),
    /// Commands for people and their accounts.
    #[command(subcommand)]
    User(people::Command),
    /// Commands for invites.
    #[command(subcommand)]
    Invite(workspaces::InviteCommand),
    /// Print what is in one workspace, or in all, and the sizes of the tables.
    Stats {
        /// The workspace's name.
        workspace: Option<String>,
    },
}

/// Carries out a command. What it changes is committed when this returns.
///
/// # Errors
/// Describes why nothing was changed, in a sentence for the operator.
pub async fn run(config: Config, command: Command) -> anyhow::Result<Report> {
    let command = match command {
        Command::Doctor { database } => return doctor::examine(&config, database).await,
        Command::InDatabase(command) => command,
    };
    let options = db::options(&config.database, APPLICATION)?;
    let connecting = sqlx::PgConnection::connect_with(&options).await;
    let connection =
        connecting.context("the database of database.url, or DATABASE_URL, cannot be reached")?;
    connection.close().await?;
    let pool = db::connect(options, &config.database, 1, &[]).await;
    let admin = Admin { log: Log::new(pool.clone()), db: pool, operator: operator(), config };
    let result = match command {
        DatabaseCommand::SetupLink => admin.setup_link().await,
        DatabaseCommand::Workspace(command) => admin.workspace(command).await,
        DatabaseCommand::User(command) => admin.user(command).await,
        DatabaseCommand::Invite(command) => admin.invite(command).await,
        DatabaseCommand::Stats { workspace } => admin.stats(workspace.as_deref()).await,
    };
    admin.db.close().await;
    result
}

/// Returns the name of the account in the operating system that runs this process.
fn operator() -> String {
    let id = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, user_id) = (fields.next()?, fields.nth(1)?);
        (user_id.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {id}"))
}

impl Admin {
    async fn setup_link(&self) -> anyhow::Result<Report> {
        let policy = self.config.accounts.workspace_creation;
        if !workspace::is_first(&self.db).await? {
            return Err(anyhow!("there is a workspace already; invite people to it"));
        }
        if policy == WorkspaceCreation::Nobody {
            return Err(anyhow!(
                "accounts.workspace_creation is nobody: use `fechatter_server admin workspace create`"
            ));
        }
        let link = setup::create_link(&self.db, &self.config).await?;
        Ok(Report::link(
            "Whoever opens this link creates the first workspace",
            &link.url,
            link.expires_at,
        ))
    }
}
