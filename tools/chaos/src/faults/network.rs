//! T5: the network between the servers and the database, or between the streams and their clients, is cut, lets nothing
//! through without saying so, or is slow.

use std::time::Duration;

use anyhow::Result;
use devdb::{Postgres, Proxy};
use tokio::time::sleep;

use crate::{
    report::Row,
    stage::{Options, Stage},
};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);
const SLOWNESS: Duration = Duration::from_millis(200);

/// How soon a send succeeds once the network is well again, and all streams are there.
const BACK: Duration = Duration::from_secs(5);
/// A client notices that a stream is dead after 40 s without a heartbeat, and not much later it is back.
const NOTICED: Duration = Duration::from_secs(50);

pub(super) async fn cut(options: &Options) -> Result<Row> {
    let postgres = Postgres::durable(&[])?;
    let database = Proxy::start(postgres.address()).await?;
    let setup = options.setup(2, 2);
    let mut cluster = setup.start_on(postgres, database.address()).await?;
    let mut streams = Vec::new();
    for notifier in &cluster.notifiers {
        streams.push(Proxy::start(notifier.address()).await?);
    }
    cluster.events = streams.iter().map(Proxy::address).collect();
    let mut stage = options.stage_on(cluster, options.cast()).await?;
    for _ in 0..options.either(1, 3) {
        for side in [std::slice::from_ref(&database), &streams] {
            for pause in [Duration::ZERO, SHORT, LONG] {
                darken(&mut stage, side, pause, true).await;
                recover(&mut stage).await;
            }
            darken(&mut stage, side, SHORT, false).await;
            each(side, |proxy| proxy.delay(SLOWNESS));
            sleep(LONG / 2).await;
            each(side, |proxy| proxy.delay(Duration::ZERO));
            recover(&mut stage).await;
        }
    }
    stage.finish().await
}

/// Lets nothing through for a while. Afterwards everything goes on, or every connection turns out to be dead.
async fn darken(stage: &mut Stage, side: &[Proxy], pause: Duration, dead: bool) {
    stage.quiet(SHORT).await;
    each(side, |proxy| proxy.black_hole(true));
    sleep(pause).await;
    each(side, |proxy| proxy.black_hole(false));
    if dead {
        each(side, Proxy::cut);
    }
    stage.times += 1;
}

fn each(side: &[Proxy], change: impl Fn(&Proxy)) {
    for proxy in side {
        change(proxy);
    }
}

async fn recover(stage: &mut Stage) {
    let took = stage.load.next_acknowledged().await;
    stage.delays.recovery("send", took, BACK);
    let took = stage.audience.connected(NOTICED).await;
    stage.delays.recovery("streams", took.unwrap_or(NOTICED), BACK);
}
