//! An ordinary day: many rooms in which some talk and all listen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fechatter_core::{ChatId, MessageId};
use rig::{Cluster, Person};
use sqlx::query_scalar;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use super::send::Rooms;
use crate::{
    clock::Clock,
    crowd::{Crowd, Receipt},
    figure::{Figure, as_f64},
    pace,
    pool::Pool,
    processes::{self, Usage},
    report::{
        Report, Section,
        Target::{Most, MostOfLimit},
        Targets,
    },
    stage::Stage,
    timed::Timed,
};

const TARGETS: Targets = &[
    ("500_a_second_receipt_p50", Most(1.3)),
    ("500_a_second_receipt_p99", Most(8.0)),
    ("500_a_second_read_along_receipt_p99_held_against_alone", MostOfLimit(1.5)),
    ("500_a_second_postgresql_cpu", Most(0.4)),
    ("most_cpu", Most(0.25)),
    ("5000_streams_notifier_cpu", MostOfLimit(1.1)),
];

const STREAMS: usize = 1_000;
const ROOM: usize = 20;
/// Those of another workspace who hear, and those besides who are in no room and hear nothing.
const HEARING: usize = 500;
const SILENT: usize = 4_500;
const SENDERS: usize = 64;
/// Read marks beside each message; and one reaction beside so many messages.
const READS: usize = 5;
const REACTION_EVERY: usize = 20;
const PACE: u32 = 500;
const SECONDS: u32 = 10;
const REPETITIONS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);

/// Everybody who sends, and their room.
#[derive(Clone)]
struct Senders {
    clock: Clock,
    pool: Pool,
    seats: Vec<(Person, ChatId)>,
    /// The people of each room, and a message there.
    rooms: Arc<HashMap<ChatId, (Vec<Person>, MessageId)>>,
    /// Whether the people of the room read along, and sometimes react.
    is_read_along: bool,
}

/// A figure of a run.
type Of = fn(&Run) -> f64;

/// The figures of a while of sending.
struct Run {
    /// Messages a second.
    rate: f64,
    receipts: Timed,
    /// CPU-milliseconds a message.
    cpu: f64,
    postgresql_cpu: f64,
    notifier_cpu: f64,
}

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let streams = stage.count(STREAMS);
    let (hearing, silent) = (stage.count(HEARING / ROOM) * ROOM, stage.count(SILENT));
    processes::ensure_files_for(2 * (streams + hearing + silent))?;
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("rooms", streams).await?.people;
    let rooms = Rooms::new(&cluster, "room", &people, ROOM).await?;
    let seats = rooms.seats(SENDERS);
    let clock = Clock::new();
    let rooms = first_messages(&cluster, &rooms).await?;
    let pool = Pool::of(&cluster);
    let senders = Senders { clock, pool, seats, rooms, is_read_along: false };
    let (repetitions, each) = stage.repetitions(REPETITIONS, Duration::from_secs(SECONDS.into()));
    let conditions = format!(
        "{streams} streams in rooms of {ROOM}, {SENDERS} senders; {PACE} messages a second, alone and with {READS} \
         read marks and 1/{REACTION_EVERY} of a reaction each, and as many as they can send; then {hearing} streams in rooms of {ROOM} of another workspace at {PACE} messages a second, alone and with \
         {silent} more that hear nothing; {repetitions} × {each:?} each"
    );
    let mut rows = report.under("mixed", TARGETS, &conditions);
    let crowd = Crowd::gather(clock, &cluster.events, &people).await?;
    let mut alone = Figure::NONE;
    for (name, is_paced, is_read_along) in [
        ("500_a_second", true, false),
        ("500_a_second_read_along", true, true),
        ("most", false, false),
        ("most_read_along", false, true),
    ] {
        let senders = Senders { is_read_along, ..senders.clone() };
        let runs = runs(&cluster, &senders, &crowd, is_paced, (repetitions, each)).await?;
        let p99 = add(&mut rows, name, &runs);
        if is_read_along {
            let name = format!("{name}_receipt_p99_held_against_alone");
            rows.add(name, p99, "ms").against(alone);
        }
        alone = p99;
    }
    rows.count("lost_streams", crowd.lost(), "streams");
    crowd.leave().await;

    let people = cluster.town.workspace("silent", hearing + silent).await?.people;
    let (hearing, silent) = people.split_at(hearing);
    let seats = Rooms::new(&cluster, "loud", hearing, ROOM).await?.seats(SENDERS);
    let senders = Senders { seats, ..senders };
    let crowd = Crowd::gather(clock, &cluster.events, hearing).await?;
    let paced = async || runs(&cluster, &senders, &crowd, true, (repetitions, each)).await;
    let cpu = |runs: &[Run]| Figure::over(runs, |run| run.notifier_cpu);
    let alone = cpu(&paced().await?);
    rows.add(format!("{}_streams_notifier_cpu", hearing.len()), alone, "CPU-ms a message");
    let others = Crowd::gather(clock, &cluster.events, silent).await?;
    let beside = cpu(&paced().await?);
    let name = format!("{}_streams_notifier_cpu", people.len());
    rows.add(name, beside, "CPU-ms a message").against(alone);
    rows.count("lost_silent_streams", others.lost(), "streams");
    Ok(())
}

/// Lets them send for a while, so many times, and measures each time.
async fn runs(
    cluster: &Cluster,
    senders: &Senders,
    crowd: &Crowd,
    is_paced: bool,
    (repetitions, each): (usize, Duration),
) -> Result<Vec<Run>> {
    let warm_up = senders.send(is_paced, WARM_UP).await?;
    crowd.receipts(warm_up * ROOM).await?;
    let mut runs = Vec::new();
    for _ in 0..repetitions {
        let (before, began) = (Usage::of(cluster)?, Instant::now());
        let messages = senders.send(is_paced, each).await?;
        let took = began.elapsed();
        let receipts = crowd.receipts(messages * ROOM).await?;
        let spent = Usage::of(cluster)?.since(before);
        let a_message = |spent: Duration| spent.as_secs_f64() * 1000.0 / as_f64(messages);
        runs.push(Run {
            rate: as_f64(messages) / took.as_secs_f64(),
            receipts: Receipt::latencies(&receipts).context("nothing was received")?,
            cpu: a_message(spent.fechatter()),
            postgresql_cpu: a_message(spent.postgres),
            notifier_cpu: a_message(spent.notifiers),
        });
    }
    Ok(runs)
}

/// Returns the figure of the slow receipts.
fn add(rows: &mut Section<'_>, name: &str, runs: &[Run]) -> Figure {
    rows.add(format!("{name}_rate"), Figure::over(runs, |run| run.rate), "messages/s");
    let receipts: Vec<_> = runs.iter().map(|run| &run.receipts).collect();
    rows.quantiles(&format!("{name}_receipt"), &receipts);
    for (of, cpu) in [
        ("cpu", (|run| run.cpu) as Of),
        ("postgresql_cpu", |run| run.postgresql_cpu),
        ("notifier_cpu", |run| run.notifier_cpu),
    ] {
        rows.add(format!("{name}_{of}"), Figure::over(runs, cpu), "CPU-ms a message");
    }
    Figure::over(&receipts, |receipts| receipts.p99().as_secs_f64() * 1000.0)
}

/// Sends a message to each room, and returns them with the people there.
async fn first_messages(
    cluster: &Cluster,
    rooms: &Rooms,
) -> Result<Arc<HashMap<ChatId, (Vec<Person>, MessageId)>>> {
    let mut all = HashMap::new();
    for (chat, people) in rooms.all() {
        cluster.town.ancient_history(&[(*chat, people[0].clone())], 1).await?;
        let message = query_scalar("select max(id) from messages where chat_id = $1")
            .bind(*chat)
            .fetch_one(&cluster.db)
            .await?;
        all.insert(*chat, (people.clone(), message));
    }
    Ok(Arc::new(all))
}

impl Senders {
    /// Lets them send for so long, at the pace or as fast as each is answered; tells how many messages.
    async fn send(&self, is_paced: bool, duration: Duration) -> Result<usize> {
        if is_paced {
            let until = async {
                sleep(duration).await;
                Ok(())
            };
            return Ok(pace::calls(PACE, until, |number| self.call(number)).await?.count());
        }
        let deadline = Instant::now() + duration;
        let mut open = JoinSet::new();
        for number in 0..self.seats.len() {
            let senders = self.clone();
            open.spawn(async move {
                let mut sent = 0;
                while Instant::now() < deadline {
                    senders.call(number + sent * senders.seats.len()).await?;
                    sent += 1;
                }
                anyhow::Ok(sent)
            });
        }
        let mut sent = 0;
        while let Some(of_one) = open.join_next().await {
            sent += of_one??;
        }
        Ok(sent)
    }

    /// Sends one message of the sender whose turn it is.
    fn call(&self, number: usize) -> impl Future<Output = Result<()>> + Send + use<> {
        let (clock, pool) = (self.clock, self.pool.clone());
        let (person, chat) = self.seats[number % self.seats.len()].clone();
        let along = if self.is_read_along { self.calls_along(number, chat) } else { Vec::new() };
        async move {
            pool.call(&person.raw_send_message_request(chat, &clock.message(), Uuid::new_v4()))
                .await?;
            let mut open: JoinSet<_> = along
                .into_iter()
                .map(|request| {
                    let pool = pool.clone();
                    async move { pool.call(&request).await }
                })
                .collect();
            while let Some(called) = open.join_next().await {
                called??;
            }
            Ok(())
        }
    }

    /// What people of the room do when they see a message.
    fn calls_along(&self, number: usize, chat: ChatId) -> Vec<String> {
        let Some((people, message)) = self.rooms.get(&chat) else { return Vec::new() };
        let turn = number / self.seats.len();
        let readers = people.iter().cycle().skip(turn * READS).take(READS);
        let read = format!("POST /api/chat/{chat}/read");
        let mut calls: Vec<_> = readers.map(|person| person.raw_request(&read, "{}")).collect();
        if number.is_multiple_of(REACTION_EVERY) {
            let method = if turn.is_multiple_of(2) { "PUT" } else { "DELETE" };
            let emoji = "%F0%9F%91%8D";
            let line = format!("{method} /api/chat/{chat}/messages/{message}/reactions/{emoji}");
            calls.push(people[number % people.len()].raw_request(&line, ""));
        }
        calls
    }
}
