//! T9: a process stands still for a while, whatever it holds, and then goes on as if nothing had been.

use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use rig::Process;
use tokio::time::sleep;

use crate::{
    delays::Times,
    history::Send,
    load::{Load, Mix, Seat},
    report::Row,
    stage::{Options, Stage},
};

/// For everybody who does not ask the one that stands still.
const OTHERS: Duration = Duration::from_millis(2_500);
/// In other workspaces it makes no difference at all.
const UNAFFECTED: Duration = Duration::from_millis(500);

pub(super) async fn still(options: &Options) -> Result<Row> {
    let mut stage = options.stage(options.cast()).await?;
    let bystanders = bystanders(&mut stage).await?;
    let pause = options.either(Duration::from_secs(5), Duration::from_secs(30));
    for _ in 0..options.either(1, 2) {
        freeze(&mut stage, pause, |stage| &mut stage.cluster.servers[0]).await?;
        freeze(&mut stage, pause, |stage| &mut stage.cluster.notifiers[0]).await?;
    }
    let bystanders = bystanders.end().await;
    let mut row = stage
        .finish_with(|past, delays| {
            delays.recovery(
                "others p99",
                at_other_servers(&past.calls.sends).percentile(99),
                OTHERS,
            );
        })
        .await?;
    let elsewhere = at_other_servers(&bystanders.sends).percentile(99);
    row.delays.recovery("other workspace p99", elsewhere, UNAFFECTED);
    Ok(row)
}

async fn freeze(
    stage: &mut Stage,
    pause: Duration,
    victim: impl Fn(&mut Stage) -> &mut Process,
) -> Result<()> {
    stage.quiet(Duration::from_secs(1)).await;
    victim(stage).signal("STOP")?;
    sleep(pause).await;
    victim(stage).signal("CONT")?;
    stage.times += 1;
    Ok(())
}

/// People of another workspace, who never ask the first server.
async fn bystanders(stage: &mut Stage) -> Result<Load> {
    let others = stage.cluster.town.workspace("Bystanders", 2).await?;
    let members: Vec<_> = others.people.iter().collect();
    let chat = stage.cluster.town.channel("elsewhere", &members).await?;
    let address = stage.cluster.servers[1].address();
    let seats = others.people.iter().map(|person| {
        let mut person = person.clone();
        person.rest = person.rest.with_servers([address].into());
        Seat::new(&person, chat)
    });
    Ok(Load::begin(seats.collect(), 1, 5, Mix::Sends, stage.rng.random()))
}

/// How long acknowledged calls took, except for those of the first server where there are several.
fn at_other_servers(sends: &[Send]) -> Times {
    let attempts = sends.iter().flat_map(|send| &send.attempts);
    let several = sends.iter().flat_map(|send| &send.attempts).any(|attempt| attempt.server > 0);
    let acknowledged = attempts.filter(|attempt| attempt.is_ok());
    let others = acknowledged.filter(|attempt| attempt.server > 0 || !several);
    others.map(|attempt| attempt.returned - attempt.invoked).collect()
}
