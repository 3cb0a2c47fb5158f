//! How many people can sign in, and what a flood of them does to those who send.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    figure::as_f64,
    load::{Run, Senders},
    pool::Pool,
    report::{Report, Target::LeastOfLimit, Targets},
    stage::Stage,
    timed::Timed,
};

/// The limit is the rate without.
const TARGETS: Targets = &[("send_rate_during_flood", LeastOfLimit(0.5))];

const PEOPLE: usize = 8;
/// How many sign in at once, each again and again.
const AT_ONCE: usize = 4;
const SECONDS: u32 = 10;
const FLOOD_A_SECOND: u32 = 200;
const SENDERS: usize = 64;
const ROOMS: usize = 50;

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let requests: Arc<[String]> = cluster.rest.create_accounts_for_sign_in(PEOPLE).await?.into();
    let pool = Pool::of(&cluster);
    let each = Duration::from_secs(stage.seconds(SECONDS).into());
    let (signed_in, rate) = sign_in(&pool, &requests, each).await?;
    let seats = super::seats(&cluster, ROOMS, SENDERS).await?;
    let mut senders = Senders::connect(&cluster, &seats).await?;
    senders.send(&cluster, Duration::from_secs(1)).await?;
    let before = senders.send(&cluster, each).await?;
    let flood = tokio::spawn(flood(pool.clone(), requests, Instant::now() + each));
    let during = senders.send(&cluster, each).await?;
    let [admitted, refused, failed] = flood.await??;
    let after = senders.send(&cluster, each).await?;

    let conditions = format!(
        "{AT_ONCE} people signing in again and again for {each:?}; {FLOOD_A_SECOND} sign-ins/s for {each:?} while \
         {SENDERS} send to {ROOMS} rooms, against the median of before and after"
    );
    let mut rows = report.under("signin", TARGETS, &conditions);
    rows.add("rate", rate, "sign-ins/s");
    rows.quantiles("signin", &[signed_in]);
    let without = [before, after];
    rows.add("send_rate_without", Run::rates(&without), "messages/s");
    rows.add("send_rate_during_flood", during.rate, "messages/s").against(Run::rates(&without));
    rows.quantiles("send_during_flood", &[&during.times]);
    rows.count("flood_admitted", admitted, "sign-ins");
    rows.count("flood_refused", refused, "sign-ins");
    Run::check(without.iter().chain([&during]))?;
    ensure!(failed == 0, "{failed} sign-ins were answered with neither 200, 429 nor 503");
    Ok(())
}

/// How long it takes, and how often it can be done a second.
async fn sign_in(pool: &Pool, requests: &[String], each: Duration) -> Result<(Timed, f64)> {
    let (began, deadline) = (Instant::now(), Instant::now() + each);
    let mut open = JoinSet::new();
    for request in requests.iter().take(AT_ONCE) {
        let (pool, request) = (pool.clone(), request.clone());
        open.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < deadline {
                let began = Instant::now();
                pool.call(&request).await?;
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(one) = open.join_next().await {
        times.extend(one??);
    }
    let rate = as_f64(times.len()) / began.elapsed().as_secs_f64();
    Ok((Timed::new(times).context("nobody signed in")?, rate))
}

/// Lets people sign in at a steady rate; how many were admitted, refused for the moment, and answered otherwise.
async fn flood(pool: Pool, requests: Arc<[String]>, deadline: Instant) -> Result<[usize; 3]> {
    let mut ticks = interval(Duration::from_secs(1) / FLOOD_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = JoinSet::new();
    for number in iter::successors(Some(0), |number| Some((number + 1) % PEOPLE)) {
        ticks.tick().await;
        if Instant::now() >= deadline {
            break;
        }
        let (pool, requests) = (pool.clone(), Arc::clone(&requests));
        open.spawn(async move { pool.status(&requests[number]).await });
    }
    let mut counts = [0; 3];
    while let Some(status) = open.join_next().await {
        let which = match status?? {
            200 => 0,
            429 | 503 => 1,
            _ => 2,
        };
        counts[which] += 1;
    }
    Ok(counts)
}
