//! T11: half of the clients stop reading, while much is said to them; the servers let them go, and they resume.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;
use rig::Process;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    load::Seat,
    report::Row,
    stage::{Cast, Options, Stage},
};

/// How long nobody reads, after which the server must have closed the connection.
const STALL: Duration = Duration::from_secs(45);
/// How soon the others have what is said.
const OTHERS: Duration = Duration::from_secs(1);
/// How long it takes them to find out.
const READ_AGAIN: Duration = Duration::from_secs(12);
/// What a message to those who do not read is long, in characters of four bytes.
const LONG: usize = 9_000;

pub(super) async fn ignored(options: &Options) -> Result<Row> {
    let stalled = options.either(20, 100);
    let cast = options.cast();
    let mut stage = options.stage(Cast { people: cast.streams + stalled, ..cast }).await?;
    let members: Vec<_> = stage.workspace.people.iter().rev().take(stalled).cloned().collect();
    let everybody: Vec<_> = members.iter().collect();
    let chat = stage.cluster.town.channel("ignored", &everybody).await?;
    let memory = memory_of(&stage);
    for member in &members {
        stage.listen_badly(member, STALL);
    }
    let speaker = Seat { person: members[0].clone(), chat, length: LONG };
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(options.either(100, 50)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut most = memory;
    while began.elapsed() < STALL {
        ticks.tick().await;
        let seed = stage.rng.random();
        stage.load.say(speaker.clone(), Duration::ZERO, seed);
        most = most.max(memory_of(&stage));
    }
    stage.times = stalled;
    stage.quiet(READ_AGAIN).await;
    let kept_open = stage.audience.kept_open();
    stage.delays.note(format!("{kept_open} of {stalled} streams were not closed"));
    let each = most.saturating_sub(memory) / u64::try_from(stalled)?;
    stage.delays.note(format!(
        "{each} KiB of memory for each who does not read, with what is kept of recent events"
    ));
    let mut row = stage.finish().await?;
    row.delays.recovery("others p99", row.delays.delivery.percentile(99), OTHERS);
    Ok(row)
}

/// Of all `notify_server`, in KiB.
fn memory_of(stage: &Stage) -> u64 {
    stage.cluster.notifiers.iter().filter_map(Process::memory).sum()
}
