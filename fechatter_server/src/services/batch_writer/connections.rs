//! The database connections for writing batches.
//!
//! They are not from the pool, because the connections of the pool depend on the threads of the
//! request runtime.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fechatter_core::db;
use fechatter_core::log::Log;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use super::delivery::BatchExecutor;
use crate::error::{AppError, Result, STATEMENT_CANCELLED};
use crate::models::message::write_batch::{self, Command, Locking, Outcome};

/// A connection that was used within this time counts as alive. Others are pinged before use.
const PING_IF_IDLE_FOR: Duration = Duration::from_secs(1);
/// The timeout for opening a connection, and for its answer to a ping.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause between attempts to connect to a database that is starting or has no free connection.
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The timeout after which a connection counts as dead. The database itself cancels a statement
/// after 5 s.
const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// Connections to write on: one for the batch in flight, one for the batch that waits for a log.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    log: Log,
    idle: Arc<Mutex<Vec<IdleConnection>>>,
}

/// A connection, with the time of its last use.
type IdleConnection = (Instant, PgConnection);

impl Connections {
    pub(super) fn new(log: Log) -> Self {
        Self { log, idle: Arc::default() }
    }

    async fn take(&self) -> sqlx::Result<PgConnection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((used, mut connection)) = idle
            && (used.elapsed() < PING_IF_IDLE_FOR
                || with_connect_timeout(connection.ping()).await.is_ok())
        {
            return Ok(connection);
        }
        with_connect_timeout(self.connect()).await
    }

    /// Connects, and retries while the database is starting or has no free connection.
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = self.log.db().connect_options();
        loop {
            match PgConnection::connect_with(&options).await {
                Err(error) if is_starting(&error) => sleep(CONNECT_RETRY_DELAY).await,
                Err(error) => return Err(error),
                Ok(mut connection) => {
                    db::limit(&mut connection).await?;
                    return Ok(connection);
                }
            }
        }
    }

    fn put_back(&self, connection: PgConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((Instant::now(), connection));
    }
}

/// Returns true if the connection was refused, or failed with `cannot_connect_now` or
/// `too_many_connections`.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| matches!(&*code, "57P03" | "53300"))
        }
        _ => false,
    }
}

/// Returns true if the database refused the statement but the connection is still usable.
fn is_refusal(error: &AppError) -> bool {
    match error {
        // A new connection may reach another server, which is not read-only.
        AppError::Database(error) if db::is_read_only(error) => false,
        AppError::Database(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default();
            code == STATEMENT_CANCELLED || !(code.starts_with("08") || code.starts_with("57"))
        }
        _ => false,
    }
}

async fn with_connect_timeout<T>(step: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(CONNECT_TIMEOUT, step).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

impl BatchExecutor for Connections {
    async fn execute(&self, batch: Vec<Arc<Command>>, locking: Locking) -> Result<Vec<Outcome>> {
        let mut connection = self.take().await?;
        let writing = write_batch::write(&self.log, &mut connection, &batch, locking);
        let written = timeout(WRITE_TIMEOUT, writing).await;
        let written =
            written.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()));
        match &written {
            Err(error) if !is_refusal(error) => {
                // All idle connections are closed, because a check of each would take longer.
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            _ => self.put_back(connection),
        }
        written
    }
}
