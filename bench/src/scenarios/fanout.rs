//! A message a second to everybody: how long it takes, what a delivery costs and what a stream.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    pace, processes,
    report::Report,
    stage::Stage,
};

/// What streams have to come to rest before their memory is measured.
const REST: Duration = Duration::from_secs(2);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    for streams in [1_000, 5_000] {
        fan_out(stage, report, stage.count(streams)).await?;
    }
    Ok(())
}

async fn fan_out(stage: &Stage, report: &mut Report, streams: usize) -> Result<()> {
    processes::ensure_files_for(streams)?;
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("crowd", streams).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let notifier = &cluster.notifiers[0];
    let clock = Clock::new();

    let empty = processes::resident(notifier)?;
    let crowd = Crowd::gather(clock, &cluster, &people).await?;
    sleep(REST).await;
    let full = processes::resident(notifier)?;
    let warm_up = pace::messages(clock, &people[..1], chat, (1, 3)).await?.count();
    crowd.receipts(warm_up * streams).await?;

    let before = [processes::cpu(notifier)?, processes::own_cpu()?];
    let seconds = stage.seconds(30);
    let answers = pace::messages(clock, &people[..1], chat, (1, seconds)).await?;
    let receipts = crowd.receipts(answers.count() * streams).await?;
    let after = [processes::cpu(notifier)?, processes::own_cpu()?];
    let latencies = Receipt::latencies(&receipts).context("nothing was received")?;

    let conditions = format!("{streams} streams in one chat, 1 message/s for {seconds} s");
    let mut rows = report.under("fanout", conditions);
    rows.quantiles(&format!("receipt_{streams}"), &latencies);
    let bytes = full.saturating_sub(empty) / u64::try_from(streams)?;
    rows.add(format!("memory_per_stream_{streams}"), as_f64(bytes)? / 1024.0, "KiB");
    let millions = as_f64(receipts.len())? / 1e6;
    let spent = |which: usize| after[which].saturating_sub(before[which]).as_secs_f64() / millions;
    rows.add(format!("notify_server_cpu_{streams}"), spent(0), "CPU-s per million deliveries");
    rows.add(format!("generator_cpu_{streams}"), spent(1), "CPU-s per million deliveries");
    rows.add(format!("lost_streams_{streams}"), as_f64(crowd.lost())?, "streams");
    Ok(())
}

fn as_f64(number: impl TryInto<u32>) -> Result<f64> {
    let number = number.try_into().ok().context("too many to count")?;
    Ok(f64::from(number))
}
