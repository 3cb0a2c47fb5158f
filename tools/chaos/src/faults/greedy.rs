//! T18: five people of one workspace ask for all that they can get, on every route at once; another workspace is served as
//! before.

mod greed;
mod neighbours;

use std::time::Duration;

use anyhow::Result;
use rig::Process;
use sqlx::query;
use tokio::time::sleep;

use crate::{
    checker::Verdict,
    delays::{Delays, Times},
    faults::greedy::{
        greed::Greed,
        neighbours::{Neighbours, Service},
    },
    load::Mix,
    report::Row,
    stage::{Cast, Options, Stage},
};

/// The configuration as it is shipped, whose limits this is about.
const SHIPPED: &str = include_str!("../../../../app.yml.example");
/// Keys of other sections than `limits`.
const LIMITS: [(&str, &str); 8] = [
    ("notify", "streams_per_user"),
    ("http", "requests_per_second"),
    ("http", "burst"),
    ("database", "max_connections"),
    ("accounts", "free_failures"),
    ("accounts", "attempts_per_minute"),
    ("accounts", "attempts_per_minute_per_site"),
    ("accounts", "attempts_per_minute_overall"),
];

/// How much slower the others may be served: twice as slowly, and then so much.
const TIMES_SLOWER: u32 = 2;
/// Of release builds on a machine of one's own: twice next to nothing is next to nothing.
const FULL_SLACK: Duration = Duration::from_millis(10);
/// Of debug builds beside who knows what: every request takes its share of a processor that is slow already. Without
/// shares it is seconds.
const QUICK_SLACK: Duration = Duration::from_secs(2);
/// Of fewer times than this, the 99th percentile is nothing but the slowest: the 90th is compared.
const ENOUGH: usize = 100;
/// A pause in which bulk data reaches the disk and processes finish starting.
const SETTLING: Duration = Duration::from_secs(2);

/// Plays it; in a quick run once more if others were slowed, since another process may have taken the processor at the
/// wrong moment. Anything but slowness counts at once.
pub(super) async fn shared(options: &Options) -> Result<Row> {
    let first = play(options).await?;
    let only_slowed = first.verdict.counts().iter().filter(|count| **count > 0).count() == 1
        && !first.verdict.slowed.is_empty();
    if options.quick && only_slowed { play(options).await } else { Ok(first) }
}

async fn play(options: &Options) -> Result<Row> {
    let environment = [&options.environment[..], &limits()].concat();
    let options = &Options { environment, ..options.clone() };
    let cast = Cast {
        servers: 1,
        notifiers: 1,
        people: 20,
        chats: 6,
        members: 8,
        streams: 20,
        restless: None,
        workers: 20,
        sends_per_second: 20,
        mix: Mix::Sends,
    };
    let cluster = options.cluster(cast.servers, cast.notifiers).await?;
    let greed = Greed::prepare(&cluster).await?;
    query("vacuum analyze").execute(&cluster.db).await?;
    query("checkpoint").execute(&cluster.db).await?;
    let mut scene = options.scene(&cluster, cast).await?;
    let mut neighbours = Neighbours::move_in(&mut scene, &cluster).await?;
    let mut stage = options.assemble(cluster, scene, cast).await?;
    sleep(SETTLING).await;

    let duration = options.either(Duration::from_secs(8), Duration::from_mins(1));
    let mut quiet = neighbours.ask(duration).await?;
    note_memory(&mut stage, "before");
    let greed = greed.begin();
    let mut greedy = neighbours.ask(duration).await?;
    note_memory(&mut stage, "beside the greedy");
    stage.delays.note(format!("the greedy were answered: {}", greed.end().await));
    stage.times = 1;

    let slack = options.either(QUICK_SLACK, FULL_SLACK);
    let mut slowed = Vec::new();
    let mut row = stage
        .finish_with(|past, delays| {
            quiet.add(past);
            greedy.add(past);
            slowed = compare(&quiet, &greedy, slack, delays);
        })
        .await?;
    row.verdict += Verdict { slowed, ..Verdict::default() };
    Ok(row)
}

/// The limits as they are shipped, as environment variables.
fn limits() -> Vec<(String, String)> {
    let mut section = "";
    let mut limits = Vec::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_suffix(':') {
            section = name;
        } else if let Some((key, value)) = line.trim().split_once(": ")
            && (section == "limits" || LIMITS.contains(&(section, key)))
            && !key.starts_with('#')
        {
            let name = format!("FECHATTER__{section}__{key}").to_uppercase();
            limits.push((name, value.to_owned()));
        }
    }
    // Callers from these addresses are trusted proxies.
    limits.push(("FECHATTER__HTTP__TRUSTED_PROXIES".into(), "127.0.0.0/8".into()));
    limits
}

/// Of both servers.
fn note_memory(stage: &mut Stage, when: &str) {
    let servers = stage.cluster.servers.iter().chain(&stage.cluster.notifiers);
    let memory: Vec<_> = servers.filter_map(Process::memory).map(|kib| kib / 1024).collect();
    stage.delays.note(format!("memory {when}: {memory:?} MiB"));
}

/// The measurements that exceed their limits.
fn compare(quiet: &Service, greedy: &Service, slack: Duration, delays: &mut Delays) -> Vec<String> {
    let mut slowed = Vec::new();
    for ((kind, before), (_, during)) in quiet.kinds().into_iter().zip(greedy.kinds()) {
        delays.note(format!("{kind}, quiet: {before}; greedy: {during}"));
        slowed.extend(slower(before, during, slack).map(|how| format!("{kind}: {how}")));
    }
    for (when, service) in [("before", quiet), ("beside the greedy", greedy)] {
        if let Some(first) = service.refusals.first() {
            let count = service.refusals.len();
            slowed.push(format!("{count} requests refused {when}, such as with {first}"));
        }
    }
    slowed
}

fn slower(before: &Times, during: &Times, slack: Duration) -> Option<String> {
    if during.count() * 2 < before.count() {
        return Some(format!("{} served, {} before", during.count(), before.count()));
    }
    let part = if before.count().min(during.count()) < ENOUGH { 90 } else { 99 };
    let [was, is] = [before, during].map(|times| times.percentile(part));
    let limit = was * TIMES_SLOWER + slack;
    let [was, is_now, at_most] = [was, is, limit].map(|time| time.as_secs_f64());
    (is > limit)
        .then(|| format!("p{part} {is_now:.3} s, {was:.3} s before, at most {at_most:.3} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_limits_are_found() {
        let limits = limits();
        let has = |name: &str, value: &str| {
            limits.contains(&(format!("FECHATTER__{name}"), value.to_owned()))
        };
        assert!(has("LIMITS__CONNECTIONS", "10000"));
        assert!(has("LIMITS__SESSIONS_PER_PERSON", "100"));
        assert!(has("ACCOUNTS__ATTEMPTS_PER_MINUTE_OVERALL", "600"));
        assert!(limits.len() > LIMITS.len() + 15, "{limits:?}");
        assert!(LIMITS.iter().all(|(section, key)| {
            let name = format!("FECHATTER__{section}__{key}").to_uppercase();
            limits.iter().any(|(limit, _)| *limit == name)
        }));
    }

    #[test]
    fn slower_is_more_than_twice_as_slow_or_not_served() {
        let times = |count: usize, millis| -> Times {
            std::iter::repeat_n(Duration::from_millis(millis), count).collect()
        };
        let slack = Duration::from_millis(10);
        let slower = |during: Times| slower(&times(100, 20), &during, slack);
        assert_eq!(slower(times(100, 50)), None);
        assert_eq!(slower(times(50, 50)), None);
        assert_eq!(
            slower(times(100, 51)).as_deref(),
            Some("p99 0.051 s, 0.020 s before, at most 0.050 s")
        );
        assert_eq!(slower(times(49, 1)).as_deref(), Some("49 served, 100 before"));
    }
}
