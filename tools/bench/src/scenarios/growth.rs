//! What a message costs among 10 million others, and among 1,000.

use std::time::Duration;

use anyhow::Result;

use crate::{
    figure::Figure,
    large::Large,
    load::{Run, Senders},
    report::{Report, Target::MostOfLimit, Targets},
    stage::Stage,
};

const TARGETS: Targets = &[("cpu_among_10_million", MostOfLimit(1.2))];

const SENDERS: usize = 64;
const REPETITIONS: usize = 3;
const EACH: Duration = Duration::from_secs(5);
/// In each of the 500 chats.
const FEW: usize = 2;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let large = stage.large().await?;
    let small = Large::new(stage, 1_000, FEW).await?;
    let mut to_large = Senders::connect(&large.cluster, &large.seats(SENDERS)?).await?;
    let mut to_small = Senders::connect(&small.cluster, &small.seats(SENDERS)?).await?;
    let (repetitions, each) = stage.repetitions(REPETITIONS, EACH);
    let (mut among_many, mut among_few) = (Vec::new(), Vec::new());
    // In turn, so that what else the machine does meets both. The first ones warm up.
    for _ in 0..=repetitions {
        among_few.push(to_small.send(&small.cluster, each).await?);
        among_many.push(to_large.send(&large.cluster, each).await?);
    }
    let (among_few, among_many) = (&among_few[1..], &among_many[1..]);

    let conditions = format!(
        "{SENDERS} senders to 50 of {} chats of {} and of {FEW} messages, in turn, {repetitions} × {each:?}",
        large.chats.len(),
        stage.count(20_000)
    );
    let mut rows = report.under("growth", TARGETS, &conditions);
    let cpu = |runs: &[Run]| Figure::over(runs, |run| run.cpu);
    rows.add("cpu_among_1000", cpu(among_few), "CPU-ms a message");
    rows.add("cpu_among_10_million", cpu(among_many), "CPU-ms a message").against(cpu(among_few));
    rows.add("rate_among_1000", Run::rates(among_few), "messages/s");
    rows.add("rate_among_10_million", Run::rates(among_many), "messages/s")
        .against(Run::rates(among_few));
    Run::check(among_few.iter().chain(among_many))
}
