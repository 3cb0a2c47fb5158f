//! The tools of the operator's commands, and their results.

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use fechatter_core::db;
use fechatter_core::log::Log;
use fechatter_core::{Timestamp, WorkspaceId};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use crate::config::Config;
use crate::error::AppError;
use crate::models::workspace;
use crate::utils::text::WorkspaceName;

/// The result of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// For people: complete lines.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// True if the command's answer is that something is wrong.
    pub is_failure: bool,
}

/// The tools that commands share.
pub(super) struct Admin {
    pub(super) config: Config,
    pub(super) db: PgPool,
    pub(super) log: Log,
    /// The operator's name in the operating system.
    pub(super) operator: String,
}

impl Admin {
    /// Finds the workspace of this name.
    pub(super) async fn find_workspace(&self, name: &str) -> anyhow::Result<WorkspaceId> {
        let parsed = WorkspaceName::try_from(name.to_owned());
        let parsed = parsed.map_err(|issue| anyhow!("the workspace's name {issue}"))?;
        let found = workspace::find_by_name(&self.db, &parsed).await?;
        found.with_context(|| format!("there is no workspace named {name}"))
    }
}

impl Report {
    pub(super) fn new(text: impl Into<String>, json: &impl Serialize) -> anyhow::Result<Self> {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(Self { text, json: serde_json::to_value(json)?, is_failure: false })
    }

    pub(super) fn link(purpose: &str, url: &str, expires_at: Timestamp) -> Self {
        let until = expires_at.0.format("%Y-%m-%d %H:%M UTC");
        Self {
            text: format!("{purpose}, until {until}:\n{url}\n"),
            json: json!({ "url": url, "expires_at": expires_at }),
            is_failure: false,
        }
    }

    /// A list: the text as a table, with the names of the columns above.
    pub(super) fn table<const N: usize>(
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

/// Lets the queries of a transaction take up to 10 minutes: nobody waits for them but the operator.
pub(super) async fn allow_long_queries(db: &mut PgConnection) -> sqlx::Result<()> {
    let limits = [("statement_timeout", "10min"), ("idle_in_transaction_session_timeout", "0")];
    db::set(db, &limits).await
}

/// A refusal as a sentence for the operator.
pub(super) fn refusal(error: AppError) -> anyhow::Error {
    anyhow!(error)
}
