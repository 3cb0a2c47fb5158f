//! T3: `notify_server` is killed, and its streams come back to the next one that starts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{
    report::Row,
    stage::{Cast, Options},
};

/// How soon after the start all streams are there again.
const RESUMED: Duration = Duration::from_secs(5);

pub(super) async fn killed(options: &Options) -> Result<Row> {
    // Only one, so that every stream is hit each time.
    let mut stage = options.stage(Cast { notifiers: 1, ..options.cast() }).await?;
    for _ in 0..options.either(4, 10) {
        stage.quiet(Duration::from_secs(1)).await;
        stage.cluster.notifiers[0].kill()?;
        stage.times += 1;
        stage.quiet(Duration::from_millis(300)).await;
        let began = Instant::now();
        stage.cluster.notifiers[0].start()?;
        let resumed = stage.audience.connected(6 * RESUMED).await;
        resumed.context("the streams do not come back")?;
        stage.delays.recovery("streams", began.elapsed(), RESUMED);
    }
    stage.finish().await
}
