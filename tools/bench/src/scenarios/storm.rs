//! Everybody comes back at once: how long until all have what they missed, and what others notice.

use anyhow::{Context, Result};

use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    pace::{self, Party},
    pool::Pool,
    processes,
    report::Report,
    stage::Stage,
};

const MISSED: usize = 20;
/// How often somebody else lists their chats.
const CALLS_A_SECOND: u32 = 10;
/// For how many seconds that is measured without a storm.
const CALM: u32 = 5;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let streams = stage.count(5_000);
    processes::ensure_files_for(streams)?;
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("crowd", streams).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    let clock = Clock::new();
    let caller = &people[0];
    let pool = Pool::of(&cluster);
    let list_chats = |_| {
        let (pool, request) = (pool.clone(), caller.raw_request("GET /api/chat", ""));
        async move { pool.call(&request).await }
    };

    let crowd = Crowd::gather(clock, &cluster.events, &people).await?;
    let calm = pace::calls(CALLS_A_SECOND, pace::after(CALM), list_chats).await?;
    let cursors = crowd.leave().await;
    Party { clock, pool: &pool, senders: &people, chat }.shout(MISSED).await?;

    let began = clock.now();
    let crowd = Crowd::storm(clock, &cluster.events, &people, cursors);
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
    let mut rows = report.under("storm", &[], &conditions);
    rows.milliseconds("half_caught_up", caught_up.p50());
    rows.milliseconds("all_caught_up", caught_up.max());
    rows.count("refused_or_lost", crowd.lost(), "attempts");
    rows.quantiles("rest_before", &[calm]);
    rows.quantiles("rest_meanwhile", &[meanwhile]);
    Ok(())
}
