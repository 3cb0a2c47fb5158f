//! Commits that are as durable as they say.
//!
//! Where commits wait for a synchronous standby, PostgreSQL answers a wait that was cancelled with
//! success and a warning: the transaction is kept here, and may be lost in a failover. sqlx tells its
//! callers of no warning, but logs it. A layer among those that listen to the log notes it for the
//! task whose commit it is about.

use std::cell::Cell;
use std::io;

use sqlx::{Postgres, Transaction};
use tokio::task_local;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

/// Under which sqlx logs what PostgreSQL says besides its answers.
const NOTICES: &str = "sqlx::postgres::notice";

task_local! {
    static WARNED: Cell<bool>;
}

/// Notes warnings for the commits that they are about.
pub(crate) struct CommitWarnings;

impl<S: Subscriber> Layer<S> for CommitWarnings {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        // Not every warning is about a commit.
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

/// Commits, and takes a warning for a failure: what was written is there, but perhaps not for good.
///
/// # Errors
/// When the commit failed, may have failed, or came with a warning.
pub(crate) async fn commit(tx: Transaction<'static, Postgres>) -> sqlx::Result<()> {
    let commit = async {
        tx.commit().await?;
        if WARNED.with(Cell::get) {
            let warned = io::Error::other("the commit came with a warning");
            return Err(sqlx::Error::Io(warned));
        }
        Ok(())
    };
    WARNED.scope(Cell::new(false), commit).await
}
