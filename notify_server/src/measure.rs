//! The gauges that are set when an operator requests the metrics.

use std::time::Duration;

use fechatter_core::metrics::{
    OUTBOX_FRAMES, RECENT_BYTES, TAIL_LAG_POSITIONS, TAIL_LAG_SECONDS, TAIL_SCAN_AGE_SECONDS,
    WORKSPACES,
};
use fechatter_core::{Position, WorkspaceId, db as database};
use metrics::gauge;
use sqlx::PgPool;
use tokio::time::timeout;
use tracing::warn;

use crate::read::tail::Tail;
use crate::workspace::hub::Hub;
use crate::workspace::scan_scope::ScanScope;

/// The time limit for the database query.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sets the gauges of queues, memory, and the tail's lag.
pub(crate) async fn all(db: &PgPool, hub: &Hub, tail: &Tail) {
    database::measure(db);
    let load = hub.stats();
    gauge!(WORKSPACES).set(count(load.workspaces));
    gauge!(RECENT_BYTES).set(count(load.recent_bytes));
    gauge!(OUTBOX_FRAMES, "which" => "all").set(count(load.waiting));
    gauge!(OUTBOX_FRAMES, "which" => "longest").set(count(load.longest));
    gauge!(TAIL_SCAN_AGE_SECONDS).set(tail.scan_age().as_secs_f64());
    let heads: Vec<_> = hub.local_heads(&ScanScope::All);
    let heads = heads.into_iter().map(|(workspace_id, head)| (workspace_id, head.position));
    match timeout(PATIENCE, lag(db, &heads.collect::<Vec<_>>())).await {
        Ok(Ok((positions, seconds))) => {
            gauge!(TAIL_LAG_POSITIONS).set(positions);
            gauge!(TAIL_LAG_SECONDS).set(seconds);
        }
        Ok(Err(error)) => warn!(%error, "the tail's lag cannot be measured"),
        Err(_) => warn!("the tail's lag cannot be measured: the database does not answer"),
    }
}

/// Returns the maximum lag behind the logs, in positions and in seconds.
async fn lag(db: &PgPool, heads: &[(WorkspaceId, Position)]) -> sqlx::Result<(f64, f64)> {
    let (workspaces, positions): (Vec<_>, Vec<_>) = heads.iter().copied().unzip();
    let lag = sqlx::query!(
        r#"select coalesce(max(ahead.positions), 0)::float8 as "positions!",
                  coalesce(max(ahead.seconds), 0)::float8 as "seconds!"
           from unnest($1::bigint[], $2::bigint[]) as here (workspace_id, position)
           cross join lateral (
               select max(e.position) - here.position as positions,
                      extract(epoch from clock_timestamp() - min(e.created_at)) as seconds
               from events as e
               where e.workspace_id = here.workspace_id and e.position > here.position
           ) as ahead"#,
        &workspaces as _,
        &positions as _
    )
    .fetch_one(db)
    .await?;
    Ok((lag.positions, lag.seconds))
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
