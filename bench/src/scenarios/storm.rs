//! Everybody comes back at once: how long until all have what they missed, and what others notice.

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

const MISSED: usize = 20;
/// How often somebody else lists their chats.
const CALLS_A_SECOND: u32 = 10;
/// How long that is measured without a storm.
const CALM: Duration = Duration::from_secs(5);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let streams = stage.count(5_000);
    processes::ensure_files_for(streams)?;
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("crowd", streams).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let clock = Clock::new();
    let caller = &people[0];
    let list_chats = |_| pace::list_chats(caller);

    let crowd = Crowd::gather(clock, &cluster, &people).await?;
    let calm = async {
        sleep(CALM).await;
        Ok(())
    };
    let calm = pace::calls(CALLS_A_SECOND, calm, list_chats).await?;
    let cursors = crowd.leave().await;
    pace::at_once(clock, &people, chat, MISSED).await?;

    let began = clock.now();
    let crowd = Crowd::storm(clock, &cluster, &people, cursors);
    let mut receipts = Vec::new();
    let everything = async {
        receipts = crowd.receipts(MISSED * streams).await?;
        Ok(())
    };
    let meanwhile = pace::calls(CALLS_A_SECOND, everything, list_chats).await?;
    let caught_up = Receipt::since(&receipts, began).context("nothing was received")?;

    let conditions = format!(
        "{streams} streams closed, {MISSED} messages sent, all reconnected at once; \
         GET /api/chat {CALLS_A_SECOND} times/s ({} calls meanwhile)",
        meanwhile.count()
    );
    let mut rows = report.under("storm", conditions);
    rows.milliseconds("half_caught_up", caught_up.p50());
    rows.milliseconds("all_caught_up", caught_up.max());
    rows.add("refused_or_lost", f64::from(u32::try_from(crowd.lost())?), "attempts");
    rows.quantiles("rest_before", &calm);
    rows.quantiles("rest_meanwhile", &meanwhile);
    Ok(())
}
