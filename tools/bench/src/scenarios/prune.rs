//! What senders notice of old events being removed.

use std::time::Duration;

use anyhow::{Result, ensure};
use fechatter_core::ChatId;
use rig::{Cluster, Person};
use sqlx::{PgPool, query, query_scalar};
use tokio::time::sleep;

use crate::{
    clock::Clock,
    pace::{self, Party},
    pool::Pool,
    report::{Report, Target::Most, Targets},
    stage::Stage,
    timed::Timed,
};

/// More than the longest send without.
const TARGETS: Targets = &[("hold_up", Most(50.0))];

const SENDS_A_SECOND: u32 = 50;
/// As many sends as a server has connections to its database, which it opens when they are needed.
const WARM_UP: usize = 20;
const STARTING: Duration = Duration::from_secs(30);
/// How often it is looked whether all old events are gone.
const LOOK: Duration = Duration::from_millis(100);
const DAYS: &str = "FECHATTER__RETENTION__EVENTS_DAYS";
const WEEK: &str = "7";
const YEARS: &str = "3650";

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let mut cluster = stage.start(&[(DAYS, YEARS)]).await?;
    let people = cluster.town.workspace("old", 10).await?.people;
    let chat = cluster.town.channel("all", &people.iter().collect::<Vec<_>>()).await?;
    cluster.town.history(&people[0], chat, stage.count(200_000)).await?;
    age(&cluster.db).await?;
    let old: i64 = query_scalar("select max(position) from events").fetch_one(&cluster.db).await?;

    let seconds = stage.seconds(15);
    restart(&mut cluster, YEARS).await?;
    let without = sends(&cluster, &people, chat, pace::after(seconds)).await?;
    restart(&mut cluster, WEEK).await?;
    let meanwhile = sends(&cluster, &people, chat, pruned(&cluster.db, old)).await?;

    let conditions = format!(
        "{SENDS_A_SECOND} sends/s to a chat of {} for {seconds} s, and while {old} old events are removed \
         ({} sends)",
        people.len(),
        meanwhile.count()
    );
    let mut rows = report.under("prune", TARGETS, &conditions);
    let hold_up = meanwhile.max().saturating_sub(without.max());
    rows.quantiles("send_without", &[without]);
    rows.quantiles("send_meanwhile", &[meanwhile]);
    rows.milliseconds("hold_up", hold_up);
    Ok(())
}

/// Makes all events older than those that a server keeps for a week, and leaves the table as if they had always been.
async fn age(db: &PgPool) -> Result<()> {
    for statement in [
        "update events set created_at = created_at - interval '30 days'",
        "vacuum (analyze)",
        "checkpoint",
    ] {
        query(statement).execute(db).await?;
    }
    Ok(())
}

/// The server that comes back keeps events for so many days, and begins to remove others at once.
async fn restart(cluster: &mut Cluster, days: &str) -> Result<()> {
    let server = &mut cluster.servers[0];
    server.stop()?;
    server.set(DAYS, days);
    server.start()?;
    server.ready(&cluster.client, STARTING).await
}

/// The times of sends until something happens, without the first ones.
async fn sends(
    cluster: &Cluster,
    people: &[Person],
    chat: ChatId,
    until: impl Future<Output = Result<()>>,
) -> Result<Timed> {
    let (clock, pool) = (Clock::new(), Pool::of(cluster));
    let party = Party { clock, pool: &pool, senders: people, chat };
    party.shout(WARM_UP).await?;
    pace::calls(SENDS_A_SECOND, until, |number| party.send(number)).await
}

/// Waits until no event up to this position is left; some were when this began.
async fn pruned(db: &PgPool, position: i64) -> Result<()> {
    let mut seen = false;
    loop {
        let floor: i64 = query_scalar("select min(position) from events").fetch_one(db).await?;
        if floor > position {
            ensure!(seen, "all old events were gone before anything was measured");
            return Ok(());
        }
        seen = true;
        sleep(LOOK).await;
    }
}
