//! T8: the doorbell does not ring, because its `NOTIFY` is swallowed or because there is no room for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fechatter_core::log::DOORBELL_CHANNEL;
use rig::Cluster;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgListener},
    query, query_scalar, raw_sql,
};
use tokio::time::timeout;

use super::postgres::end_connections;
use crate::{
    report::Row,
    stage::{Options, Stage},
};

/// A reader polls each second, so that this is enough for it.
const POLLED: Duration = Duration::from_millis(1_500);

/// Found before PostgreSQL's own by every connection that is made from now on.
const MUTE: &str = "
    create function public.pg_notify(text, text) returns void language plpgsql as $$
    begin
    end;
    $$;
    alter database fechatter set search_path = public, pg_catalog";

pub(super) async fn muted(options: &Options) -> Result<Row> {
    let cluster = options.cluster(2, 2).await?;
    raw_sql(MUTE).execute(&cluster.db).await?;
    end_connections(&cluster.db).await?;
    let mut stage = options.stage_on(cluster, options.cast()).await?;
    stage.notifies = false;
    let mut listener = PgListener::connect_with(&stage.cluster.db).await?;
    listener.listen(DOORBELL_CHANNEL).await?;
    stage.quiet(options.either(Duration::from_secs(8), Duration::from_mins(1))).await;
    let rung = timeout(Duration::from_millis(1), listener.recv()).await;
    ensure!(rung.is_err(), "the doorbell still rings");
    finish(stage).await
}

/// Only PostgreSQL 17 and later can be given a queue that is filled in a moment.
const SMALL_QUEUE: &str = "max_notify_queue_pages=64";

pub(super) async fn full(options: &Options) -> Result<Row> {
    let options = &Options { settings: vec![SMALL_QUEUE.to_owned()], ..options.clone() };
    let cluster = options.cluster(2, 2).await?;
    let _holder = fill(&cluster).await?;
    let mut stage = options.stage_on(cluster, options.cast()).await?;
    stage.notifies = false;
    stage.quiet(options.either(Duration::from_secs(8), Duration::from_mins(1))).await;
    finish(stage).await
}

/// Fills the queue for notifications and keeps it full: somebody who listens stays in a transaction.
async fn fill(cluster: &Cluster) -> Result<PgConnection> {
    let options: PgConnectOptions = cluster.postgres.url("fechatter").parse()?;
    let mut holder = PgConnection::connect_with(&options).await?;
    raw_sql("listen chaos; begin; select 1").execute(&mut holder).await?;
    for number in 0..100_000 {
        let said = query("select pg_notify('chaos', $1 || repeat('x', 7900))")
            .bind(number.to_string())
            .execute(&cluster.db)
            .await;
        if said.is_err() {
            return Ok(holder);
        }
    }
    anyhow::bail!("the queue for notifications does not become full");
}

/// Whether this PostgreSQL can be given a small queue.
pub(super) async fn has_small_queue(options: &Options) -> Result<bool> {
    let cluster = options.cluster(1, 0).await?;
    let version: String = query_scalar("show server_version_num").fetch_one(&cluster.db).await?;
    Ok(version.parse::<u32>().context("a version")? >= 170_000)
}

async fn finish(mut stage: Stage) -> Result<Row> {
    stage.times = 1;
    let mut row = stage.finish().await?;
    row.delays.recovery("delivery p99", row.delays.delivery.percentile(99), POLLED);
    Ok(row)
}
