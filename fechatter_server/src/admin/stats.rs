//! `fechatter_server admin stats`.

use std::fmt::Write as _;

use fechatter_core::db::begin;
use serde_json::json;

use super::context::{Admin, Report, allow_long_queries};
use crate::models::statistics;

/// The tables whose sizes are printed.
const TABLES: usize = 10;

impl Admin {
    pub(super) async fn stats(&self, workspace: Option<&str>) -> anyhow::Result<Report> {
        let id = match workspace {
            Some(name) => Some(self.find_workspace(name).await?),
            None => None,
        };
        let mut tx = begin(&self.db, "begin isolation level repeatable read read only").await?;
        allow_long_queries(&mut tx).await?;
        let workspaces = statistics::of_workspaces(&mut tx, id).await?;
        let tables = statistics::of_tables(&mut tx).await?;
        let rows: Vec<_> = workspaces
            .iter()
            .map(|of| {
                [
                    of.name.clone(),
                    of.people.to_string(),
                    of.chats.to_string(),
                    of.messages.to_string(),
                    of.messages_last_day.to_string(),
                    mebibytes(of.file_bytes),
                    of.oldest_event_at
                        .map_or_else(String::new, |at| at.0.format("%Y-%m-%d").to_string()),
                ]
            })
            .collect();
        let columns =
            ["workspace", "people", "chats", "messages", "last day", "files", "events since"];
        let mut report = Report::table(columns, &rows, &json!({}))?;
        report.json = json!({ "workspaces": workspaces, "tables": tables });
        if id.is_none() {
            let total: i64 = tables.iter().map(|table| table.bytes).sum();
            let rows: Vec<_> = tables
                .iter()
                .take(TABLES)
                .map(|table| [table.table.clone(), table.rows.to_string(), mebibytes(table.bytes)])
                .collect();
            let sizes = Report::table(["table", "rows, about", "size"], &rows, &json!({}))?;
            let _ = write!(report.text, "\n{}all tables: {}\n", sizes.text, mebibytes(total));
        }
        Ok(report)
    }
}

fn mebibytes(bytes: i64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
