//! One client that was away: how long until it has the last of the events that it missed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rig::{Cluster, Connection, Frame, KeepAlive, OpenError, Person, Target};
use serde_json::Value;

use crate::{
    report::{Report, Target::Most, Targets},
    stage::Stage,
    timed::Timed,
};

const TARGETS: Targets = &[("from_memory_p50", Most(150.0)), ("from_database_p50", Most(150.0))];

const REPETITIONS: usize = 10;
/// How long a server may take to start.
const STARTING: Duration = Duration::from_secs(30);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let events = stage.count(5_000);
    let mut cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("pair", 2).await?.people;
    let [alice, bob] = &*people else { bail!("two people were asked for") };
    let chat = cluster.town.channel("two", &[alice, bob]).await?;
    let cursor = cursor(&cluster, alice).await?;
    cluster.town.history(bob, chat, events).await?;

    let from_memory = resume(&cluster, alice, &cursor, events).await?;
    let notifier = &mut cluster.notifiers[0];
    notifier.stop()?;
    notifier.set("FECHATTER__NOTIFY__RECENT_EVENTS", "100");
    notifier.start()?;
    notifier.ready(&cluster.client, STARTING).await?;
    let from_database = resume(&cluster, alice, &cursor, events).await?;

    let conditions = format!("{events} missed events, {REPETITIONS} times, one after the other");
    let mut rows = report.under("resume", TARGETS, &conditions);
    for (name, times) in [("from_memory", from_memory), ("from_database", from_database)] {
        rows.quantiles(name, &[times]);
    }
    Ok(())
}

/// Resumes once to warm up, and then as often as is measured.
async fn resume(cluster: &Cluster, person: &Person, cursor: &str, events: usize) -> Result<Timed> {
    let target = Target {
        address: cluster.notifiers[0].address(),
        token: &person.token,
        cursor: Some(cursor),
        receive_buffer: None,
    };
    catch_up(target, events).await?;
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        times.push(catch_up(target, events).await?);
    }
    Timed::new(times).context("nothing was measured")
}

/// From before the connection to the last event.
async fn catch_up(target: Target<'_>, events: usize) -> Result<Duration> {
    let began = Instant::now();
    let mut connection = Connection::open(target).await.map_err(|error| match error {
        OpenError::Refused(status) => anyhow!("the stream was refused with {status}"),
        OpenError::Failed(error) => error.into(),
    })?;
    let (mut received, mut ended) = (0, false);
    while received < events {
        let mut hear = |frame: Frame<'_>| match frame.event {
            "NewMessage" => received += 1,
            "Reset" | "Goodbye" => ended = true,
            _ => {}
        };
        let goes_on = connection.read(&mut hear).await?;
        ensure!(goes_on && !ended, "the stream ended after {received} events");
    }
    Ok(began.elapsed())
}

/// The newest event of the person's workspace.
async fn cursor(cluster: &Cluster, person: &Person) -> Result<String> {
    let mut connection = KeepAlive::connect(cluster.servers[0].address()).await?;
    let answer = connection.call(&person.raw_request("GET /api/sync?users=false", "")).await?;
    let body: Value = serde_json::from_slice(answer.body)?;
    body["cursor"].as_str().map(ToOwned::to_owned).context("a state without a cursor")
}
