//! T2: PostgreSQL is killed and starts again; then every connection to it is ended, again and again.

use std::time::Duration;

use anyhow::Result;
use sqlx::{PgPool, query};
use tokio::time::sleep;

use super::STARTING;
use crate::{report::Row, stage::Options};

/// How soon after PostgreSQL accepts connections a send succeeds.
const BACK: Duration = Duration::from_secs(3);

pub(super) async fn killed(options: &Options) -> Result<Row> {
    let mut stage = options.stage(options.cast()).await?;
    for _ in 0..options.either(2, 5) {
        stage.quiet(Duration::from_millis(1_500)).await;
        stage.cluster.postgres.kill()?;
        stage.times += 1;
        stage.quiet(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| stage.cluster.postgres.restart())?;
        let took = stage.load.next_acknowledged().await;
        stage.delays.recovery("send", took, BACK);
    }
    for _ in 0..options.either(10, 40) {
        stage.quiet(Duration::from_millis(400)).await;
        end_connections(&stage.cluster.db).await?;
        stage.times += 1;
        let took = stage.load.next_acknowledged().await;
        stage.delays.recovery("send", took, BACK);
    }
    let streams = stage.audience.connected(STARTING).await;
    stage.delays.recovery("streams", streams.unwrap_or(STARTING), BACK);
    stage.finish().await
}

/// Ends every connection of the servers.
pub(super) async fn end_connections(db: &PgPool) -> Result<()> {
    let mut tries = 0;
    // A connection of our own may have died with the server.
    while let Err(error) = query(
        "select pg_terminate_backend(pid)
         from pg_stat_activity
         where application_name in ('fechatter_server', 'notify_server')",
    )
    .execute(db)
    .await
    {
        tries += 1;
        if tries == 20 {
            return Err(error.into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
