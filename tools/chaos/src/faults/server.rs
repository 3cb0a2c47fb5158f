//! T1: `fechatter_server` is killed, and its clients go on at the other one.

use std::time::Duration;

use anyhow::Result;
use rand::Rng;

use super::STARTING;
use crate::{report::Row, stage::Options};

/// How soon a send succeeds at the other server.
const RETRIED: Duration = Duration::from_secs(2);

pub(super) async fn killed(options: &Options) -> Result<Row> {
    let mut stage = options.stage(options.cast()).await?;
    for _ in 0..options.either(4, 10) {
        stage.quiet(Duration::from_secs(1)).await;
        let victim = stage.rng.random_range(0..stage.cluster.servers.len());
        stage.cluster.servers[victim].kill()?;
        stage.times += 1;
        let took = stage.load.next_acknowledged().await;
        stage.delays.recovery("send", took, RETRIED);
        stage.quiet(Duration::from_millis(300)).await;
        let server = &mut stage.cluster.servers[victim];
        server.start()?;
        server.ready(&stage.cluster.client, STARTING).await?;
    }
    stage.finish().await
}
