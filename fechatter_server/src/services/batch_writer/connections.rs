//! The database's connections that batches are written on.
//!
//! They are not of the pool, whose connections are looked after by the threads of the requests.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fechatter_core::db;
use fechatter_core::log::Log;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use super::delivery::Write;
use crate::error::{AppError, Result, STATEMENT_CANCELLED};
use crate::models::write_batch::{self, Command, Locking, Outcome};

/// A connection that was used so lately is taken to be alive; the others are asked first.
const FRESH: Duration = Duration::from_secs(1);
/// How long a connection may take to be made, or to say that it is alive.
const CONNECTING: Duration = Duration::from_secs(3);
/// The pause between attempts to reach a database that is just starting, or has no room.
const AGAIN: Duration = Duration::from_millis(100);
/// No answer after this, and the connection is taken for dead. The database itself gives up a
/// statement after 5 s.
const DEAD: Duration = Duration::from_secs(6);

/// Connections to write on: one for the batch in flight, one for the batch that waits for a log.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    log: Log,
    kept: Arc<Mutex<Vec<Kept>>>,
}

/// A connection, and when it was last used.
type Kept = (Instant, PgConnection);

impl Connections {
    pub(super) fn new(log: Log) -> Self {
        Self { log, kept: Arc::default() }
    }

    async fn take(&self) -> sqlx::Result<PgConnection> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((used, mut connection)) = kept
            && (used.elapsed() < FRESH || in_time(connection.ping()).await.is_ok())
        {
            return Ok(connection);
        }
        in_time(self.connect()).await
    }

    /// Waits for a database that is on its way.
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = self.log.db().connect_options();
        loop {
            match PgConnection::connect_with(&options).await {
                Err(error) if is_starting(&error) => sleep(AGAIN).await,
                Err(error) => return Err(error),
                Ok(mut connection) => {
                    db::limit(&mut connection).await?;
                    return Ok(connection);
                }
            }
        }
    }

    fn keep(&self, connection: PgConnection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((Instant::now(), connection));
    }
}

/// By its code: `cannot_connect_now` or `too_many_connections`.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| matches!(&*code, "57P03" | "53300"))
        }
        _ => false,
    }
}

/// Whether the database has refused a statement, and the connection is as good as before.
fn is_refusal(error: &AppError) -> bool {
    match error {
        // Somebody else may be at the address by now.
        AppError::Database(error) if db::is_read_only(error) => false,
        AppError::Database(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default();
            code == STATEMENT_CANCELLED || !(code.starts_with("08") || code.starts_with("57"))
        }
        _ => false,
    }
}

async fn in_time<T>(step: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(CONNECTING, step).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

impl Write for Connections {
    async fn write(&self, batch: Vec<Arc<Command>>, locking: Locking) -> Result<Vec<Outcome>> {
        let mut connection = self.take().await?;
        let writing = write_batch::write(&self.log, &mut connection, &batch, locking);
        let written = timeout(DEAD, writing).await;
        let written =
            written.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()));
        match &written {
            Err(error) if !is_refusal(error) => {
                // It is not worth finding out whether this one is still good, or the other one.
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            _ => self.keep(connection),
        }
        written
    }
}
