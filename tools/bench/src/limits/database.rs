//! How fast rows can be made durable.

use std::{
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rig::Cluster;
use sqlx::{Connection, PgConnection, query};
use tokio::task::{JoinSet, spawn_blocking};

use crate::figure::as_f64;

/// Beside Fechatter's database, so that nothing in there knows of it.
const DATABASE: &str = "limits";
/// What is stored of a message, and what it is found by; but no rules, and no log.
const TABLE: &str = "
    create table if not exists messages (
        id bigint generated always as identity,
        chat_id bigint not null,
        seq bigint not null generated always as identity,
        sender_id bigint not null,
        content text not null,
        key uuid not null,
        created_at timestamptz not null default clock_timestamp(),
        primary key (chat_id, id),
        unique (chat_id, seq),
        unique (chat_id, sender_id, key)
    )";
/// A message of 100 bytes in one of 50 chats, as pgbench and we write it.
const ONE: &str = "insert into messages (chat_id, sender_id, content, key)
    values (random() * 49, random() * 9, repeat('x', 100), gen_random_uuid())";
const MANY: &str = "insert into messages (chat_id, sender_id, content, key)
    select random() * 49, random() * 9, content, gen_random_uuid() from unnest($1::text[]) as content";
const PGBENCH: &str = "pgbench";
/// Rows in a batch.
const BATCH: usize = 100;

/// What measures single rows here.
pub(crate) fn measured_by(cluster: &Cluster) -> &'static str {
    let version = cluster.postgres.client(PGBENCH, DATABASE).arg("--version").output();
    if version.is_ok() { PGBENCH } else { "connections of this program, for want of pgbench" }
}

/// Rows a second that so many connections insert, each with a commit of its own.
pub(crate) async fn single_rows(
    cluster: &Cluster,
    connections: usize,
    seconds: u32,
) -> Result<f64> {
    let url = prepare(cluster).await?;
    if measured_by(cluster) != PGBENCH {
        return without_pgbench(&url, connections, seconds).await;
    }
    let mut pgbench = cluster.postgres.client(PGBENCH, DATABASE);
    pgbench.args(["-n", "-M", "prepared", "-f", "-", "-j", "2"]);
    pgbench.args(["-c", &connections.to_string(), "-T", &seconds.to_string()]);
    pgbench.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn_blocking(move || {
        let mut pgbench = pgbench.spawn()?;
        pgbench.stdin.take().context("pgbench has an input")?.write_all(ONE.as_bytes())?;
        anyhow::Ok(pgbench.wait_with_output()?)
    });
    let output = output.await??;
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    rate_in(&said).with_context(|| format!("pgbench said {said}"))
}

/// Rows a second that one connection inserts in batches, of which each is a commit.
pub(crate) async fn batched_rows(cluster: &Cluster, seconds: u32) -> Result<f64> {
    let mut db = PgConnection::connect(&prepare(cluster).await?).await?;
    let contents = vec!["x".repeat(100); BATCH];
    let began = Instant::now();
    let mut batches = 0;
    while began.elapsed() < Duration::from_secs(seconds.into()) {
        query(MANY).bind(&contents).execute(&mut db).await?;
        batches += 1;
    }
    let rate = as_f64(batches * BATCH) / began.elapsed().as_secs_f64();
    db.close().await?;
    Ok(rate)
}

async fn prepare(cluster: &Cluster) -> Result<String> {
    let url = cluster.postgres.url(DATABASE);
    devdb::create_database_if_absent(&url).await?;
    let mut db = PgConnection::connect(&url).await?;
    query(TABLE).execute(&mut db).await?;
    db.close().await?;
    Ok(url)
}

async fn without_pgbench(url: &str, connections: usize, seconds: u32) -> Result<f64> {
    let mut open = JoinSet::new();
    for _ in 0..connections {
        let mut db = PgConnection::connect(url).await?;
        open.spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(seconds.into());
            let mut rows = 0;
            while Instant::now() < deadline {
                query(ONE).execute(&mut db).await?;
                rows += 1;
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(inserted) = open.join_next().await {
        rows += inserted??;
    }
    Ok(as_f64(rows) / f64::from(seconds))
}

/// What pgbench says at its end.
fn rate_in(said: &str) -> Option<f64> {
    let mut rates = said.lines().filter_map(|line| line.strip_prefix("tps = "));
    rates.next_back()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbench_is_understood() {
        let said = "latency average = 0.4 ms\ntps = 2257.125 (without initial connection time)\n";
        assert_eq!(rate_in(said), Some(2257.125));
    }
}
