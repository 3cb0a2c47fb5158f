//! One chat with very many streams: what a message to everybody takes and costs, and what a stream costs.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    figure::as_f64,
    limits,
    pace::Party,
    pool::Pool,
    processes::{self, Usage},
    report::{
        Report,
        Target::{LeastOfLimit, Most},
        Targets,
    },
    stage::Stage,
};

const TARGETS: Targets = &[
    ("1000_memory_per_stream", Most(16.0)),
    ("5000_memory_per_stream", Most(16.0)),
    ("1000_sparse_cpu", Most(12.0)),
    ("5000_sparse_cpu", Most(12.0)),
    ("1000_saturated_rate", LeastOfLimit(0.5)),
    ("5000_saturated_rate", LeastOfLimit(0.5)),
    ("1000_saturated_cpu", Most(4.0)),
    ("5000_saturated_cpu", Most(4.0)),
];

const CPU: &str = "CPU-s per million";
/// What streams have to come to rest before their memory is measured.
const REST: Duration = Duration::from_secs(2);
const SPARSE: u32 = 20;
/// Messages that are sent at once when it goes as fast as it can, and how many of them may be on their way.
const BURST: usize = 64;
const AHEAD: usize = 256;
/// How much is delivered that way.
const DELIVERIES: usize = 1_500_000;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    for streams in [1_000, 5_000] {
        fan_out(stage, report, streams).await?;
    }
    Ok(())
}

async fn fan_out(stage: &Stage, report: &mut Report, full: usize) -> Result<()> {
    let streams = stage.count(full);
    // The limit has them once more, with both ends in this program.
    processes::ensure_files_for(3 * streams)?;
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("crowd", streams).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let notifier = &cluster.notifiers[0];
    let clock = Clock::new();
    let pool = Pool::of(&cluster);
    let party = Party { clock, pool: &pool, senders: &people, chat };
    let speaker = Party { senders: &people[..1], ..party };
    let (seconds, messages) = (stage.seconds(15), stage.count(DELIVERIES / full));
    let conditions = format!(
        "{streams} streams in one chat; sparse: {SPARSE} messages/s for {seconds} s; saturated: {messages} messages, \
         {BURST} sent at once and at most {AHEAD} on their way; the limit writes as many of the same bytes, one write() each; \
         CPU is notify_server's, or the writer's, for a million deliveries"
    );
    let mut rows = report.under("fanout", TARGETS, &conditions);

    let empty = processes::resident(notifier)?;
    let crowd = Crowd::gather(clock, &cluster.events, &people).await?;
    sleep(REST).await;
    let each = processes::resident(notifier)?.saturating_sub(empty) / u64::try_from(streams)?;
    rows.add(format!("{full}_memory_per_stream"), as_f64(each) / 1024.0, "KiB");
    let warm_up = speaker.talk(1, 2).await?.count();
    crowd.receipts(warm_up * streams).await?;

    let before = Usage::of(&cluster)?;
    let sent = speaker.talk(SPARSE, seconds).await?.count();
    let receipts = crowd.receipts(sent * streams).await?;
    let sparse = Usage::of(&cluster)?.since(before);
    let latencies = Receipt::latencies(&receipts).context("nothing was received")?;
    rows.quantiles(&format!("{full}_sparse_receipt"), &[latencies]);
    rows.add(format!("{full}_sparse_cpu"), per_million(sparse.notifiers, receipts.len()), CPU);
    let generator = per_million(sparse.generator, receipts.len());
    rows.add(format!("{full}_sparse_generator_cpu"), generator, CPU);

    let (before, began) = (Usage::of(&cluster)?, clock.now());
    let receipts = saturate(party, &crowd, messages).await?;
    let saturated = Usage::of(&cluster)?.since(before);
    let took = Receipt::since(&receipts, began).context("nothing was received")?.max();
    let sample = crowd.sample().context("nothing was received")?;
    let lost = crowd.lost();
    drop(crowd);
    let floor = limits::writes(&people, &sample, messages).await?;
    let rate = as_f64(receipts.len()) / took.as_secs_f64();
    rows.add(format!("{full}_saturated_rate"), rate, "deliveries/s").against(floor.rate);
    let cpu = per_million(saturated.notifiers, receipts.len());
    rows.add(format!("{full}_saturated_cpu"), cpu, CPU).against(floor.cpu);
    let generator = per_million(saturated.generator, receipts.len());
    rows.add(format!("{full}_saturated_generator_cpu"), generator, CPU);
    rows.count(&format!("{full}_lost_streams"), lost, "streams");
    Ok(())
}

/// Sends as fast as everything is received, and waits until it is.
async fn saturate(party: Party<'_>, crowd: &Crowd, messages: usize) -> Result<Vec<Receipt>> {
    let streams = party.senders.len();
    let mut sent = 0;
    while sent < messages {
        crowd.received(sent.saturating_sub(AHEAD) * streams).await?;
        let burst = BURST.min(messages - sent);
        party.shout(burst).await?;
        sent += burst;
    }
    crowd.receipts(messages * streams).await
}

fn per_million(spent: Duration, deliveries: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / as_f64(deliveries)
}
