//! Deletes data that is no longer visible, in small batches and outside the log's lock: messages of
//! deleted chats and of people who have erased them, old events, expired counters.
//!
//! A deleted chat is invisible at once; the purge only frees its space. Several servers may run it
//! at the same time, and an interrupted batch is repeated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::RetentionConfig;
use fechatter_core::{ChatId, UserId};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::models::account::throttle;
use crate::services::file_store::FileStore;
use crate::services::{blanking, file_sweep, retention};

const BATCH: i64 = 1_000;
/// The interval of checks for chats that another server, or an earlier run, has not purged.
const PAUSE: Duration = Duration::from_mins(1);
/// The interval of searches for files that the database does not know.
const WALK_INTERVAL: Duration = Duration::from_hours(24);
/// Lets other work use the disk.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(20);

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
        files: FileStore,
        retention: RetentionConfig,
        shutdown: CancellationToken,
    ) {
        let days = i32::try_from(retention.events_days).unwrap_or(i32::MAX);
        let purges = async {
            let mut last_walk = None;
            loop {
                if let Err(error) = purge(&db).await {
                    warn!(%error, "deleted chats could not be purged; trying again");
                }
                if let Err(error) = blanking::empty(&db).await {
                    warn!(%error, "erased messages could not be emptied; trying again");
                }
                if let Err(error) = file_sweep::sweep(&db, &files).await {
                    warn!(%error, "orphaned files could not be removed; trying again");
                }
                // The walk through the whole store is rare.
                if last_walk.is_none_or(|at: Instant| at.elapsed() > WALK_INTERVAL) {
                    last_walk = Some(Instant::now());
                    if let Err(error) = file_sweep::remove_strays(&db, &files).await {
                        warn!(%error, "the file store could not be searched for strays");
                    }
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
        while delete_messages(db, chat_id).await? > 0 {
            sleep(PAUSE_BETWEEN_BATCHES).await;
        }
        let mut after = UserId(0);
        while let Some(last) = delete_states(db, chat_id, after).await? {
            after = last;
            sleep(PAUSE_BETWEEN_BATCHES).await;
        }
        sqlx::query!("update chats set purged_at = clock_timestamp() where id = $1", chat_id as _)
            .execute(db)
            .await?;
    }
    Ok(())
}

/// Deletes some messages of a chat, with what is stored about them, and returns their number.
async fn delete_messages(db: &PgPool, chat_id: ChatId) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        "with deleted as (
             delete from messages
             where chat_id = $1
               and id in (select id from messages where chat_id = $1 order by id limit $2)
             returning id, seq
         ),
         replies as (
             delete from message_replies
             where chat_id = $1 and message_id in (select id from deleted)
         ),
         mentions as (
             delete from message_mentions
             where chat_id = $1 and seq in (select seq from deleted)
         ),
         files as (
             delete from message_files
             where chat_id = $1 and seq in (select seq from deleted)
         )
         select from deleted",
        chat_id as _,
        BATCH
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes the read marks and the preferences of some people, members of a chat now or before, for
/// this chat. Returns the last of them.
async fn delete_states(
    db: &PgPool,
    chat_id: ChatId,
    after: UserId,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"with people as (
               select distinct workspace_id, user_id
               from chat_members
               where chat_id = $1 and user_id > $2
               order by user_id
               limit $3
           ),
           marks as (
               delete from read_marks as mark
               using people
               where mark.workspace_id = people.workspace_id
                 and mark.user_id = people.user_id
                 and mark.chat_id = $1
           ),
           preferences as (
               delete from chat_preferences as chosen
               using people
               where chosen.workspace_id = people.workspace_id
                 and chosen.user_id = people.user_id
                 and chosen.chat_id = $1
           )
           select max(user_id) as "last: UserId" from people"#,
        chat_id as _,
        after as _,
        BATCH
    )
    .fetch_one(db)
    .await
}
