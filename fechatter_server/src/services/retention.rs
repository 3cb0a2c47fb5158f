//! Removes events from the beginnings of the logs once they are older than a client may be away.
//!
//! In small batches and outside the logs' locks: senders append at the other end. The newest event
//! of a log always stays, since the next position is counted from it.

use std::time::Duration;

use ::metrics::counter;
use fechatter_core::db::begin;
use fechatter_core::{Position, WorkspaceId, metrics};
use sqlx::PgPool;

/// Events that one transaction removes: few enough to be done within some milliseconds.
const BATCH: i64 = 500;
/// Lets everybody else at the disk between batches.
const BREATH: Duration = Duration::from_millis(20);
/// Which of PostgreSQL's advisory locks guards the beginning of a workspace's log, with the
/// workspace: any number.
const BEGINNINGS: i32 = 0x6c6f_6773;

/// Prunes all logs to events of the last so many days.
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
            tokio::time::sleep(BREATH).await;
        }
    }
    Ok(())
}

/// Removes the oldest events, as many as a batch takes; says where the next ones begin if there may
/// be more. There are none before `from`, but for removed ones that an old snapshot still keeps the
/// database from cleaning up: they would have to be walked over again.
///
/// Only ever from the beginning on: a gap would be a lost event. One server at a time for the same
/// reason: another's batch could be rolled back behind ours.
async fn remove_oldest(
    db: &PgPool,
    workspace_id: WorkspaceId,
    days: i32,
    from: Position,
) -> sqlx::Result<Option<Position>> {
    let mut tx = begin(db, "begin").await?;
    let is_ours = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock($1, hashint8($2)) as "locked!""#,
        BEGINNINGS,
        workspace_id as _
    )
    .fetch_one(&mut *tx)
    .await?;
    if !is_ours {
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
