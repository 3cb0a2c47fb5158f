//! The database's connections that batches are written on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fechatter_core::log::Log;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::time::timeout;

use super::delivery::Write;
use crate::error::Result;
use crate::models::message::Outgoing;
use crate::models::message_batch::{self, Locking, Outcome};

/// A connection that was used so lately is kept: to give it to the pool and to take it back costs
/// more questions than what it is for.
const KEEP: Duration = Duration::from_secs(1);
/// No answer after this, and the connection is taken for dead. The database itself gives up a
/// statement after 5 s.
const DEAD: Duration = Duration::from_secs(6);

/// Connections to write on: one for the batch in flight, one for the batch that waits for a log.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    log: Log,
    kept: Arc<Mutex<Vec<Kept>>>,
}

/// A connection, and when it was last used.
type Kept = (Instant, PoolConnection<Postgres>);

impl Lanes {
    pub(super) fn new(log: Log) -> Self {
        Self { log, kept: Arc::default() }
    }

    async fn take(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept.filter(|(used, _)| used.elapsed() < KEEP) {
            Some((_, connection)) => Ok(connection),
            None => self.log.db().acquire().await,
        }
    }

    fn keep(&self, connection: PoolConnection<Postgres>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((Instant::now(), connection));
    }
}

impl Write for Lanes {
    async fn write(&self, batch: Vec<Arc<Outgoing>>, locking: Locking) -> Result<Vec<Outcome>> {
        let mut connection = self.take().await?;
        let sending = message_batch::send(&self.log, &mut connection, &batch, locking);
        let sent = timeout(DEAD, sending).await;
        if let Ok(Ok(outcomes)) = sent {
            self.keep(connection);
            return Ok(outcomes);
        }
        // It is not worth finding out whether the connection is still good.
        connection.close_on_drop();
        sent.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()))
    }
}
