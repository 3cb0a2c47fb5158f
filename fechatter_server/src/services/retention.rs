//! Deletes events from the beginnings of the logs when they are older than the retention time.
//!
//! It works in small batches. It needs no locks of the logs, because senders append at the other
//! end.
//! The newest event of a log always stays, because the next position is counted from it.

use std::time::Duration;

use ::metrics::counter;
use fechatter_core::db::begin;
use fechatter_core::{Position, WorkspaceId, metrics};
use sqlx::PgPool;

/// The number of events that one transaction deletes, which takes a few milliseconds.
const BATCH: i64 = 500;
/// The pause between batches, in which other work can use the disk.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// The class of the PostgreSQL advisory locks that guard the beginnings of logs; the second part of
/// each lock is the workspace. The number is arbitrary.
const LOCK_CLASS: i32 = 0x6c6f_6773;

/// Deletes the events of all logs that are older than this many days.
pub(crate) async fn prune(db: &PgPool, days: i32) -> sqlx::Result<()> {
    let workspaces = sqlx::query_scalar!(
        r#"select l.workspace_id as "workspace_id: WorkspaceId"
           from workspace_logs as l
           cross join lateral (
               select e.created_at
               from events as e
               where e.workspace_id = l.workspace_id
               order by e.position
               limit 1
           ) as oldest
           where oldest.created_at < clock_timestamp() - make_interval(days => $1)"#,
        days
    )
    .fetch_all(db)
    .await?;
    for workspace_id in workspaces {
        let mut from = Position(0);
        while let Some(next) = remove_oldest(db, workspace_id, days, from).await? {
            from = next;
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
    Ok(())
}

/// Deletes the oldest events, at most one batch. Returns the position of the next ones if there may
/// be more. `from` skips the events that were deleted before, because the database would have to
/// scan them again while an old snapshot keeps them.
///
/// It deletes only the beginning of the log, because a gap would be a lost event. Only one server
/// deletes at a time, because the batch of another one could be rolled back after a later batch was
/// committed.
async fn remove_oldest(
    db: &PgPool,
    workspace_id: WorkspaceId,
    days: i32,
    from: Position,
) -> sqlx::Result<Option<Position>> {
    let mut tx = begin(db, "begin").await?;
    let is_locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock($1, hashint8($2)) as "locked!""#,
        LOCK_CLASS,
        workspace_id as _
    )
    .fetch_one(&mut *tx)
    .await?;
    if !is_locked {
        return Ok(None);
    }
    let removed = sqlx::query!(
        "with oldest as (
             select position, created_at
             from events
             where workspace_id = $1 and position >= $4
             order by position
             limit $2
         ),
         kept as (
             select coalesce(
                        min(position) filter (
                            where created_at >= clock_timestamp() - make_interval(days => $3)),
                        max(position) + 1) as first
             from oldest
         )
         delete from events as e
         using kept
         where e.workspace_id = $1
           and e.position >= $4
           and e.position < kept.first
           and e.position < (select max(position) from events where workspace_id = $1)
         returning e.position",
        workspace_id as _,
        BATCH,
        days,
        from as _
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    counter!(metrics::EVENTS_PRUNED).increment(u64::try_from(removed.len()).unwrap_or(u64::MAX));
    let last = removed.iter().map(|event| event.position).max();
    let may_be_more = i64::try_from(removed.len()) == Ok(BATCH);
    Ok(last.filter(|_| may_be_more).map(|last| Position(last + 1)))
}
