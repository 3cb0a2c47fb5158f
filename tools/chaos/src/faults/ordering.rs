//! T6: writers take their time inside transactions and before commits, and a reader looks each millisecond.

use std::time::{Duration, Instant};

use anyhow::Result;
use fechatter_core::{Position, WorkspaceId, log};
use sqlx::{PgPool, query_scalar, raw_sql};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    report::Row,
    stage::{Cast, Options},
};

/// Any time between nothing and so many seconds: after a message has its seq, and between an event and its commit.
const DAWDLE: &str = "
    create function dawdle() returns trigger language plpgsql as $$
    begin
        perform pg_sleep(random() * 0.001);
        return null;
    end;
    $$;
    create trigger dawdle after insert on messages for each row execute function dawdle();
    create constraint trigger dawdle after insert on events deferrable initially deferred
        for each row execute function dawdle();";

/// So many events are enough, or as many as there are after so long.
const ENOUGH: i64 = 100_000;
const QUICK: Duration = Duration::from_secs(10);
const FULL: Duration = Duration::from_mins(10);

pub(super) async fn tortured(options: &Options) -> Result<Row> {
    let cast = Cast {
        servers: 3,
        notifiers: 2,
        streams: 20,
        chats: 4,
        workers: 16,
        sends_per_second: 4_000,
        ..options.cast()
    };
    let cluster = options.cluster(cast.servers, cast.notifiers).await?;
    raw_sql(DAWDLE).execute(&cluster.db).await?;
    let mut stage = options.stage_on(cluster, cast).await?;
    let (db, workspace_id) = (stage.cluster.db.clone(), stage.workspace.id);
    let reader = Reader::begin(db.clone(), workspace_id).await?;

    let began = Instant::now();
    let mut head = Position(0);
    while head.0 < ENOUGH && began.elapsed() < options.either(QUICK, FULL) {
        sleep(Duration::from_millis(200)).await;
        head = log::head(&db, workspace_id).await?.position;
    }
    let skips = reader.end().await?;
    stage.times = usize::try_from(head.0)?;
    let mut row = stage.finish().await?;
    row.verdict.missed.extend(skips);
    Ok(row)
}

/// Looks for new events all the time.
struct Reader {
    stop: CancellationToken,
    task: JoinHandle<sqlx::Result<Vec<String>>>,
}

impl Reader {
    async fn begin(db: PgPool, workspace_id: WorkspaceId) -> Result<Self> {
        let from = log::head(&db, workspace_id).await?.position;
        let stop = CancellationToken::new();
        let task = tokio::spawn(read(db, workspace_id, from, stop.clone()));
        Ok(Self { stop, task })
    }

    /// What it never saw, because something later was to be seen before.
    async fn end(self) -> Result<Vec<String>> {
        self.stop.cancel();
        Ok(self.task.await??)
    }
}

async fn read(
    db: PgPool,
    workspace_id: WorkspaceId,
    mut reached: Position,
    stop: CancellationToken,
) -> sqlx::Result<Vec<String>> {
    let mut skips = Vec::new();
    while !stop.is_cancelled() {
        let seen: Vec<Position> = query_scalar(
            "select position
             from events
             where workspace_id = $1 and position > $2
             order by position",
        )
        .bind(workspace_id)
        .bind(reached)
        .fetch_all(&db)
        .await?;
        for position in seen {
            if position != reached.next() {
                skips.push(format!("a reader at {reached} saw {position} next"));
            }
            reached = position;
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(skips)
}
