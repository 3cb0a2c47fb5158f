//! Commits that are as durable as they say.
//!
//! Where commits wait for a synchronous standby, PostgreSQL answers a wait that was cancelled with
//! success and a warning: the transaction is kept here, and may be lost in a failover. sqlx tells its
//! callers of no warning, but logs it. A layer among those that listen to the log notes it for the
//! task whose commit it is about.

use std::cell::Cell;
use std::io;

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

/// Awaits something that commits, and takes a warning for a failure: what was written is there, but
/// perhaps not for good.
///
/// # Errors
/// Those of the commit, and one when it came with a warning.
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
