//! A busy chat: how long a message takes from its `POST` to those who listen.

use anyhow::{Context, Result};

use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    pace::Party,
    pool::Pool,
    report::{Report, Target::Most, Targets},
    stage::Stage,
};

const TARGETS: Targets = &[("receipt_p50", Most(4.0)), ("receipt_p99", Most(12.0))];

const STREAMS: usize = 100;
const MESSAGES_A_SECOND: u32 = 50;
const REPETITIONS: usize = 3;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("busy", STREAMS).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let clock = Clock::new();
    let pool = Pool::of(&cluster);
    let party = Party { clock, pool: &pool, senders: &people, chat };
    let crowd = Crowd::gather(clock, &cluster.events, &people).await?;

    let warm_up = party.talk(MESSAGES_A_SECOND, 2).await?.count();
    crowd.receipts(warm_up * STREAMS).await?;
    let seconds = stage.seconds(15);
    let (mut receipts, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let answered = party.talk(MESSAGES_A_SECOND, seconds).await?;
        let received = crowd.receipts(answered.count() * STREAMS).await?;
        receipts.push(Receipt::latencies(&received).context("nothing was received")?);
        answers.push(answered);
    }

    let conditions = format!(
        "{STREAMS} streams in one chat, {MESSAGES_A_SECOND} messages/s from all of them, {REPETITIONS} × {seconds} s"
    );
    let mut rows = report.under("deliver", TARGETS, &conditions);
    rows.quantiles("receipt", &receipts);
    rows.quantiles("post", &answers);
    Ok(())
}
