//! How many messages can be sent, by how many at once and to how many rooms.

use std::time::Duration;

use anyhow::Result;
use fechatter_core::ChatId;
use rig::{Cluster, Person};

use crate::{
    figure::Figure,
    limits,
    load::{Run, Senders},
    report::{
        Report, Section,
        Target::{Least, LeastOfLimit, Most},
        Targets,
    },
    stage::Stage,
};

/// The limit of one sender is the single row with a commit of its own, that of more the batch of 100 rows. A hot room is
/// held against 50 rooms, and 256 senders against 64, of which two runs differ by a few per cent as it is.
const TARGETS: Targets = &[
    ("1_to_50_rooms_rate", LeastOfLimit(0.3)),
    ("1_to_50_rooms_p50", Most(2.0)),
    ("64_to_50_rooms_rate", Least(8_000.0)),
    ("64_to_50_rooms_rate", LeastOfLimit(0.25)),
    ("64_to_50_rooms_p99", Most(30.0)),
    ("64_to_50_rooms_cpu", Most(0.2)),
    ("64_to_room_of_10_rate", LeastOfLimit(0.8)),
    ("256_to_50_rooms_rate", LeastOfLimit(0.95)),
    ("256_to_50_rooms_p99", Most(100.0)),
];

const SENDERS: [usize; 4] = [1, 16, 64, 256];
/// How long each limit is measured, in seconds.
const LIMIT: u32 = 3;
const REPETITIONS: usize = 3;
const EACH: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(1);

/// Chats and their members, each of whom has a turn in sending.
pub(super) struct Rooms {
    name: &'static str,
    rooms: Vec<(ChatId, Vec<Person>)>,
}

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("senders", 1_000).await?.people;
    let all = [
        Rooms::new(&cluster, "50_rooms", &people[..500], 10).await?,
        Rooms::new(&cluster, "room_of_10", &people[..10], 10).await?,
        Rooms::new(&cluster, "room_of_1000", &people, 1_000).await?,
    ];
    let (repetitions, each) = stage.repetitions(REPETITIONS, EACH);
    let conditions = format!(
        "100 bytes a message, each sender with a connection and a session of their own, no streams, {repetitions} × {each:?}; \
         held against single rows (by {}) or, from 64 senders on, batches; but 256 to 50 rooms and 64 to a room of 10 \
         against 64 to 50 rooms",
        limits::measured_by(&cluster)
    );
    let mut rows = report.under("send", TARGETS, &conditions);
    let mut everything = Vec::new();
    let mut of_64 = Figure::NONE;
    for senders in SENDERS {
        let single = limits::single_rows(&cluster, senders, stage.seconds(LIMIT)).await?;
        let batched = limits::batched_rows(&cluster, stage.seconds(LIMIT)).await?;
        rows.add(format!("limit_{senders}_single_rows"), single, "rows/s");
        rows.add(format!("limit_{senders}_batches_of_100"), batched, "rows/s");
        for rooms in &all {
            let mut there = Senders::connect(&cluster, &rooms.seats(senders)).await?;
            there.send(&cluster, WARM_UP.min(each)).await?;
            let mut runs = Vec::new();
            for _ in 0..repetitions {
                runs.push(there.send(&cluster, each).await?);
            }
            let limit = match (senders, rooms.name) {
                (64, "room_of_10") | (256, "50_rooms") => of_64,
                (64.., _) => batched.into(),
                _ => single.into(),
            };
            add(&mut rows, &format!("{senders}_to_{}", rooms.name), &runs, limit);
            if (senders, rooms.name) == (64, "50_rooms") {
                of_64 = Run::rates(&runs);
            }
            everything.extend(runs);
        }
    }
    Run::check(&everything)
}

fn add(rows: &mut Section<'_>, name: &str, runs: &[Run], limit: Figure) {
    rows.add(format!("{name}_rate"), Run::rates(runs), "messages/s").against(limit);
    let times: Vec<_> = runs.iter().map(|run| &run.times).collect();
    rows.quantiles(name, &times);
    let cpu = Figure::over(runs, |run| run.cpu);
    rows.add(format!("{name}_cpu"), cpu, "CPU-ms a message");
    let generator = Figure::over(runs, |run| run.generator_cpu);
    rows.add(format!("{name}_generator_cpu"), generator, "CPU-ms a message");
    let errors = runs.iter().map(|run| run.errors.len()).sum();
    rows.count(&format!("{name}_errors"), errors, "answers");
}

impl Rooms {
    /// Makes rooms of this size for all these people.
    pub(super) async fn new(
        cluster: &Cluster,
        name: &'static str,
        people: &[Person],
        size: usize,
    ) -> Result<Self> {
        let mut rooms = Vec::new();
        for members in people.chunks(size) {
            let everybody: Vec<_> = members.iter().collect();
            rooms.push((cluster.town.channel(name, &everybody).await?, members.to_vec()));
        }
        Ok(Self { name, rooms })
    }

    /// The chats and their members.
    pub(super) fn all(&self) -> &[(ChatId, Vec<Person>)] {
        &self.rooms
    }

    /// Spread over rooms first, and then over their members.
    pub(super) fn seats(&self, senders: usize) -> Vec<(Person, ChatId)> {
        let seat = |number: usize| {
            let (chat, members) = &self.rooms[number % self.rooms.len()];
            (members[number / self.rooms.len() % members.len()].clone(), *chat)
        };
        (0..senders).map(seat).collect()
    }
}
