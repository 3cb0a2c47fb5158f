//! A busy chat: how long a message takes from its `POST` to those who listen.

use anyhow::{Context, Result};

use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    pace,
    report::Report,
    stage::Stage,
};

const STREAMS: usize = 100;
const MESSAGES_A_SECOND: u32 = 50;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("busy", STREAMS).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let clock = Clock::new();
    let crowd = Crowd::gather(clock, &cluster, &people).await?;

    let warm_up = pace::messages(clock, &people, chat, (MESSAGES_A_SECOND, 2)).await?.count();
    crowd.receipts(warm_up * STREAMS).await?;
    let seconds = stage.seconds(30);
    let answers = pace::messages(clock, &people, chat, (MESSAGES_A_SECOND, seconds)).await?;
    let receipts = crowd.receipts(answers.count() * STREAMS).await?;
    let latencies = Receipt::latencies(&receipts).context("nothing was received")?;

    let conditions = format!(
        "{STREAMS} streams in one chat, {MESSAGES_A_SECOND} messages/s from all of them for {seconds} s"
    );
    let mut rows = report.under("deliver", conditions);
    rows.quantiles("receipt", &latencies);
    rows.quantiles("post", &answers);
    Ok(())
}
