//! What senders notice of a backup, which holds one snapshot all the time.

use std::time::Duration;

use anyhow::Result;
use rig::Cluster;
use sqlx::{Postgres, Transaction, query};

use crate::{
    load::{Run, Senders},
    report::{Report, Target::LeastOfLimit, Targets},
    stage::Stage,
};

/// The limit is the same without.
const TARGETS: Targets = &[("rate_with_snapshot", LeastOfLimit(0.8))];

const SENDERS: usize = 64;
const ROOMS: usize = 50;
const WITHOUT: u32 = 15;
const WITH: u32 = 60;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let seats = super::seats(&cluster, ROOMS, SENDERS).await?;
    let mut senders = Senders::connect(&cluster, &seats).await?;
    let [short, long] = [WITHOUT, WITH].map(|full| Duration::from_secs(stage.seconds(full).into()));
    senders.send(&cluster, Duration::from_secs(1)).await?;
    let before = senders.send(&cluster, short).await?;
    let snapshot = snapshot(&cluster).await?;
    let during = senders.send(&cluster, long).await?;
    snapshot.rollback().await?;
    let after = senders.send(&cluster, short).await?;

    let conditions = format!(
        "{SENDERS} senders to {ROOMS} rooms, {short:?} before and after and {long:?} during a `repeatable read` snapshot"
    );
    let mut rows = report.under("backup", TARGETS, &conditions);
    let without = [before, after];
    rows.add("rate_without", Run::rates(&without), "messages/s");
    rows.add("rate_with_snapshot", during.rate, "messages/s").against(Run::rates(&without));
    rows.quantiles("without", &without.each_ref().map(|run| &run.times));
    rows.quantiles("with_snapshot", &[&during.times]);
    Run::check(without.iter().chain([&during]))
}

/// Taken by its first query.
async fn snapshot(cluster: &Cluster) -> Result<Transaction<'static, Postgres>> {
    let mut snapshot = cluster.db.begin_with("begin isolation level repeatable read").await?;
    query("select count(*) from messages").execute(&mut *snapshot).await?;
    Ok(snapshot)
}
