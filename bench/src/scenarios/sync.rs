//! `GET /api/sync` in a large workspace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rig::{Cluster, Person};

use crate::{report::Report, stage::Stage, timed::Timed};

const MEMBERS: usize = 10;
const MESSAGES: usize = 20;
const WARM_UP: usize = 3;
const REPETITIONS: usize = 20;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let (users, chats) = (stage.count(10_000), stage.count(500));
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("large", users).await?.people;
    let (caller, others) = people.split_first().context("somebody is there")?;
    for number in 0..chats {
        let others = others.iter().cycle().skip(number * MEMBERS).take(MEMBERS - 1);
        let members: Vec<_> = [caller].into_iter().chain(others).collect();
        let chat = cluster.town.channel(&format!("chat {number}"), &members).await?;
        cluster.town.history(members[1], chat, MESSAGES).await?;
    }
    // What a database that has been there for longer knows by itself.
    sqlx::query("vacuum (analyze)").execute(&cluster.db).await?;

    let conditions = format!(
        "{users} users, caller in {chats} chats of {MEMBERS} with {MESSAGES} unread messages each, \
         {REPETITIONS} times"
    );
    let mut rows = report.under("sync", conditions);
    for (name, path) in [("with_users", "/api/sync"), ("without_users", "/api/sync?users=false")] {
        let (times, bytes) = sync(&cluster, caller, path).await?;
        rows.milliseconds(format!("{name}_p50"), times.p50());
        rows.milliseconds(format!("{name}_max"), times.max());
        rows.add(format!("{name}_bytes"), f64::from(u32::try_from(bytes)?), "B");
    }
    Ok(())
}

/// How long answers take to their last byte, and how many bytes the last one has.
async fn sync(cluster: &Cluster, caller: &Person, path: &str) -> Result<(Timed, usize)> {
    let mut bytes = 0;
    for _ in 0..WARM_UP {
        bytes = ask(cluster, caller, path).await?.1;
    }
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        let (took, length) = ask(cluster, caller, path).await?;
        times.push(took);
        bytes = length;
    }
    Ok((Timed::new(times).context("nothing was measured")?, bytes))
}

/// Not by [`Person::call`], which also reads the JSON.
async fn ask(cluster: &Cluster, caller: &Person, path: &str) -> Result<(Duration, usize)> {
    let url = format!("http://{}{path}", cluster.servers[0].address());
    let began = Instant::now();
    let answer = cluster.client.get(url).bearer_auth(&caller.token).send().await?;
    let body = answer.error_for_status()?.bytes().await?;
    Ok((began.elapsed(), body.len()))
}
