//! Detects commits that a synchronous standby has not confirmed.
//!
//! If commits wait for a synchronous standby and such a wait is cancelled, PostgreSQL reports
//! success with a warning: the transaction is stored locally, and may be lost in a failover. sqlx
//! does not return warnings to its callers, but logs them. A layer of the subscriber records the
//! warning for the task that commits.

use std::cell::Cell;
use std::io;

use tokio::task_local;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

/// The log target of the notices that sqlx receives from PostgreSQL.
const NOTICES: &str = "sqlx::postgres::notice";

task_local! {
    static WARNED: Cell<bool>;
}

/// Records warnings for the tasks that commit.
pub(crate) struct CommitWarnings;

impl<S: Subscriber> Layer<S> for CommitWarnings {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        // Fails outside of a commit, because not every warning is about one.
        let _ = WARNED.try_with(|warned| warned.set(true));
    }
}

/// The warnings of PostgreSQL.
pub(crate) struct Warnings;

impl<S> Filter<S> for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.target() == NOTICES && *metadata.level() <= Level::WARN
    }
}

/// Awaits a commit, and treats a warning as an error: the data was written, but may be lost in a
/// failover.
///
/// # Errors
/// The commit's errors, and an error when it came with a warning.
pub async fn durably<T>(commit: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let watched = async {
        let committed = commit.await?;
        if WARNED.with(Cell::get) {
            let warned = io::Error::other("the commit came with a warning");
            return Err(sqlx::Error::Io(warned));
        }
        Ok(committed)
    };
    WARNED.scope(Cell::new(false), watched).await
}
