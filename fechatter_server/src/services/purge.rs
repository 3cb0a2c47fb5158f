//! Deletes data that is no longer visible, in small batches and outside the log's lock: messages of
//! deleted chats, old events, expired counters.
//!
//! A deleted chat is invisible at once; the purge only frees its space. Several servers may run it
//! at the same time, and an interrupted batch is repeated.

use std::sync::Arc;
use std::time::Duration;

use crate::config::RetentionConfig;
use fechatter_core::ChatId;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::models::account::throttle;
use crate::services::retention;

const BATCH: i64 = 1_000;
/// The interval of checks for chats that another server, or an earlier run, has not purged.
const PAUSE: Duration = Duration::from_mins(1);

/// Wakes the purge when a chat is deleted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Purge(Arc<Notify>);

impl Purge {
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Purges until the shutdown.
    pub(crate) async fn run(
        self,
        db: PgPool,
        retention: RetentionConfig,
        shutdown: CancellationToken,
    ) {
        let days = i32::try_from(retention.events_days).unwrap_or(i32::MAX);
        let purges = async {
            loop {
                if let Err(error) = purge(&db).await {
                    warn!(%error, "deleted chats could not be purged; trying again");
                }
                if let Err(error) = retention::prune(&db, days).await {
                    warn!(%error, "old events could not be removed; trying again");
                }
                // The next round begins after a wake-up or the pause.
                let _ = tokio::time::timeout(PAUSE, self.0.notified()).await;
            }
        };
        tokio::select! {
            () = purges => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn purge(db: &PgPool) -> sqlx::Result<()> {
    throttle::forget_old(db).await?;
    let chats = sqlx::query_scalar!(
        r#"select id as "id: ChatId" from chats where deleted_at is not null and purged_at is null"#
    )
    .fetch_all(db)
    .await?;
    for chat_id in chats {
        while delete_batch(db, chat_id).await? > 0 {
            // Other work can use the disk during the pause.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sqlx::query!("update chats set purged_at = clock_timestamp() where id = $1", chat_id as _)
            .execute(db)
            .await?;
    }
    Ok(())
}

async fn delete_batch(db: &PgPool, chat_id: ChatId) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        "delete from messages
         where chat_id = $1
           and id in (select id from messages where chat_id = $1 order by id limit $2)",
        chat_id as _,
        BATCH
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
