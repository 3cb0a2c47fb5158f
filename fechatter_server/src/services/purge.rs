//! Deletes data that is no longer visible, in small batches and outside the log's lock: messages of
//! deleted chats and of people who have erased them, deleted workspaces, old events, expired counters.
//!
//! A deleted chat is invisible at once; the purge only frees its space. Several servers may run it
//! at the same time, and an interrupted batch is repeated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::RetentionConfig;
use fechatter_core::ChatId;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::models::account::throttle;
use crate::services::file_store::FileStore;
use crate::services::{blanking, chat_removal, expiry, file_sweep, retention, workspace_removal};

/// The interval of checks for chats that another server, or an earlier run, has not purged.
const PAUSE: Duration = Duration::from_mins(1);
/// The interval of removals that look at everything there is.
const WALK_INTERVAL: Duration = Duration::from_hours(24);

/// Wakes the purge, for example when a chat is deleted.
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
        files: FileStore,
        retention: RetentionConfig,
        shutdown: CancellationToken,
    ) {
        let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
        let purges = async {
            let mut last_walk = None;
            loop {
                if let Err(error) = purge(&db).await {
                    warn!(%error, "deleted chats could not be purged; trying again");
                }
                if let Err(error) = blanking::empty(&db).await {
                    warn!(%error, "erased messages could not be emptied; trying again");
                }
                if let Err(error) = file_sweep::remove_unnamed(&db, &files).await {
                    warn!(%error, "files of interrupted uploads could not be removed; trying again");
                }
                if let Err(error) = file_sweep::sweep(&db, &files).await {
                    warn!(%error, "orphaned files could not be removed; trying again");
                }
                if let Err(error) = workspace_removal::remove_all(&db, &files).await {
                    warn!(%error, "the data of a deleted workspace could not be removed; trying again");
                }
                // These walk through whole tables, or the whole store.
                if last_walk.is_none_or(|at: Instant| at.elapsed() > WALK_INTERVAL) {
                    last_walk = Some(Instant::now());
                    let ended = expiry::remove_ended(&db, days(retention.ended_days)).await;
                    if let Err(error) = ended {
                        warn!(%error, "records of what has ended could not be removed");
                    }
                    if let Err(error) = file_sweep::remove_strays(&db, &files).await {
                        warn!(%error, "the file store could not be searched for strays");
                    }
                }
                if let Err(error) = retention::prune(&db, days(retention.events_days)).await {
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
        chat_removal::purge(db, chat_id).await?;
    }
    Ok(())
}
