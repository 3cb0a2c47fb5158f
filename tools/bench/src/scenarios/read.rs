//! How fast 64 people at once can mark chats as read.

use anyhow::Result;
use rig::{Cluster, Person};
use sqlx::query;

use crate::{
    figure::Figure,
    large::settle,
    load::{Requests, Run, Senders},
    report::{Report, Target::Most, Targets},
    stage::Stage,
};
use fechatter_core::ChatId;
use std::time::Duration;

const TARGETS: Targets = &[("64_cpu", Most(0.1))];

const PEOPLE: usize = 64;
/// All people are in all rooms, so that they can mark many chats before anything new is said.
const ROOMS: usize = 500;
/// In each room: what there is to read.
const MESSAGES: usize = 20;
const REPETITIONS: usize = 3;
/// Nobody takes this long.
const LIMIT: Duration = Duration::from_mins(2);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("readers", PEOPLE + 1).await?.people;
    let everybody: Vec<_> = people.iter().collect();
    let mut rooms = Vec::new();
    for number in 0..stage.count(ROOMS) {
        let room = cluster.town.channel(&format!("room {number}"), &everybody).await?;
        rooms.push((room, people[PEOPLE].clone()));
    }
    cluster.town.ancient_history(&rooms, MESSAGES).await?;
    let rooms: Vec<_> = rooms.into_iter().map(|(room, _)| room).collect();
    settle(&cluster).await?;
    let (repetitions, _) = stage.repetitions(REPETITIONS, LIMIT);
    let conditions = format!(
        "{PEOPLE} people, each marking {} chats as read to the end, in each of which {MESSAGES} messages are unread, no \
         streams, {repetitions} times",
        rooms.len()
    );
    let mut rows = report.under("read", TARGETS, &conditions);
    // The first time, their marks are inserted.
    read_all(&cluster, &people[..PEOPLE], &rooms).await?;
    let mut runs = Vec::new();
    for _ in 0..repetitions {
        query("update read_marks set seq = 0, set_at_seq = 0").execute(&cluster.db).await?;
        settle(&cluster).await?;
        runs.push(read_all(&cluster, &people[..PEOPLE], &rooms).await?);
    }
    rows.add("64_rate", Run::rates(&runs), "marks/s");
    rows.quantiles("64", &runs.iter().map(|run| &run.times).collect::<Vec<_>>());
    rows.add("64_cpu", Figure::over(&runs, |run| run.cpu), "CPU-ms each");
    rows.add("64_generator_cpu", Figure::over(&runs, |run| run.generator_cpu), "CPU-ms each");
    Run::check(&runs)
}

/// Lets everybody mark each of the rooms once, each beginning at another one.
async fn read_all(cluster: &Cluster, people: &[Person], rooms: &[ChatId]) -> Result<Run> {
    let mut requests: Vec<Requests> = Vec::new();
    for (number, person) in people.iter().enumerate() {
        let person = cluster.town.sign_in_again(person).await?;
        let mut rooms = rooms.to_vec();
        let first = number * rooms.len() / people.len();
        rooms.rotate_left(first);
        requests.push(Box::new(
            rooms
                .into_iter()
                .map(move |room| person.raw_request(&format!("POST /api/chat/{room}/read"), "{}")),
        ));
    }
    Senders::calling(cluster, requests).await?.send(cluster, LIMIT).await
}
