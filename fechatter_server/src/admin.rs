//! `fechatter_server admin`: the operator's commands. They use the models of the API, so they keep its
//! rules, append the same events and are in the audit log, with the name of the operator's account in
//! the operating system.

mod people;
mod workspaces;

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use fechatter_core::log::Log;
use fechatter_core::{Timestamp, WorkspaceId, db};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection, PgPool};

use crate::APPLICATION;
use crate::config::Config;
use crate::error::AppError;
use crate::models::workspace::{self, setup};
use crate::utils::text::WorkspaceName;

/// A command of the operator.
#[derive(Debug, Subcommand)]
pub enum Command {
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
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// For people: complete lines.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// The tools that commands share.
struct Admin {
    config: Config,
    db: PgPool,
    log: Log,
    /// The operator's name in the operating system.
    operator: String,
}

/// Carries out a command. What it changes is committed when this returns.
///
/// # Errors
/// Describes why nothing was changed, in a sentence for the operator.
pub async fn run(config: Config, command: Command) -> anyhow::Result<Report> {
    let options = db::options(&config.database, APPLICATION)?;
    let connecting = sqlx::PgConnection::connect_with(&options).await;
    let connection =
        connecting.context("the database of database.url, or DATABASE_URL, cannot be reached")?;
    connection.close().await?;
    let pool = db::connect(options, &config.database, 1, &[]).await;
    let admin = Admin { log: Log::new(pool.clone()), db: pool, operator: operator(), config };
    let result = match command {
        Command::SetupLink => admin.setup_link().await,
        Command::Workspace(command) => admin.workspace(command).await,
        Command::User(command) => admin.user(command).await,
        Command::Invite(command) => admin.invite(command).await,
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
        if policy == crate::config::WorkspaceCreation::Nobody {
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

    /// Finds the workspace of this name.
    async fn find_workspace(&self, name: &str) -> anyhow::Result<WorkspaceId> {
        let parsed = WorkspaceName::try_from(name.to_owned());
        let parsed = parsed.map_err(|issue| anyhow!("the workspace's name {issue}"))?;
        let found = workspace::find_by_name(&self.db, &parsed).await?;
        found.with_context(|| format!("there is no workspace named {name}"))
    }
}

impl Report {
    fn new(text: impl Into<String>, json: &impl Serialize) -> anyhow::Result<Self> {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(Self { text, json: serde_json::to_value(json)? })
    }

    fn link(purpose: &str, url: &str, expires_at: Timestamp) -> Self {
        let until = expires_at.0.format("%Y-%m-%d %H:%M UTC");
        Self {
            text: format!("{purpose}, until {until}:\n{url}\n"),
            json: json!({ "url": url, "expires_at": expires_at }),
        }
    }

    /// A list: the text as a table, with the names of the columns above.
    fn table<const N: usize>(
        columns: [&str; N],
        rows: &[[String; N]],
        json: &impl Serialize,
    ) -> anyhow::Result<Self> {
        let mut widths = columns.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        let head = columns.map(ToOwned::to_owned);
        for row in std::iter::once(&head).chain(rows) {
            let cells: Vec<_> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        Self::new(text, json)
    }
}

/// A refusal as a sentence for the operator.
fn refusal(error: AppError) -> anyhow::Error {
    anyhow!(error)
}
