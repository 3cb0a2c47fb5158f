//! Small changes of messages by 64 people at once: reactions and edits.

use std::iter;
use std::time::Duration;

use anyhow::Result;
use fechatter_core::{ChatId, MessageId};
use rig::{Cluster, Person};
use sqlx::query_scalar;

use super::seats;
use crate::{
    figure::Figure,
    load::{Requests, Run, Senders},
    report::{Report, Target::Most, Targets},
    stage::Stage,
};

const REACT_TARGETS: Targets = &[("64_cpu", Most(0.15))];
const EDIT_TARGETS: Targets = &[("64_cpu", Most(0.2))];

const PEOPLE: usize = 64;
const ROOMS: usize = 50;
/// In each room, for each person in it.
const MESSAGES: usize = 20;
/// The emojis 👍 and 🎉, percent-encoded.
const EMOJIS: [&str; 2] = ["%F0%9F%91%8D", "%F0%9F%8E%89"];
const REPETITIONS: usize = 3;
const EACH: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(1);

/// A person, their room, and messages of theirs there.
struct Author {
    person: Person,
    chat: ChatId,
    messages: Vec<MessageId>,
}

pub(super) async fn run_reactions(stage: &Stage, report: &mut Report) -> Result<()> {
    let conditions = format!(
        "{PEOPLE} people in {ROOMS} rooms of 10, each adding 2 emojis to {MESSAGES} messages and taking them back, no \
         streams"
    );
    run(stage, report, ("react", REACT_TARGETS, "reactions/s"), &conditions, |author| {
        let Author { person, chat, messages } = author;
        let calls = ["PUT", "DELETE"].into_iter().flat_map(move |method| {
            let each = messages.clone().into_iter().flat_map(|id| EMOJIS.map(|emoji| (id, emoji)));
            each.map(move |(id, emoji)| {
                format!("{method} /api/chat/{chat}/messages/{id}/reactions/{emoji}")
            })
        });
        let calls: Vec<_> = calls.map(|line| person.raw_request(&line, "")).collect();
        Box::new(iter::repeat(calls).flatten())
    })
    .await
}

pub(super) async fn run_edits(stage: &Stage, report: &mut Report) -> Result<()> {
    let conditions = format!(
        "{PEOPLE} people in {ROOMS} rooms of 10, each editing {MESSAGES} messages of their own in turn, 100 bytes each, \
         no streams"
    );
    run(stage, report, ("edit", EDIT_TARGETS, "edits/s"), &conditions, |author| {
        let Author { person, chat, messages } = author;
        let calls = (0_u64..).flat_map(move |round| {
            let person = person.clone();
            messages.clone().into_iter().map(move |id| {
                let body = format!(r#"{{"content":"{round:0100}"}}"#);
                person.raw_request(&format!("PATCH /api/chat/{chat}/messages/{id}"), &body)
            })
        });
        Box::new(calls)
    })
    .await
}

async fn run(
    stage: &Stage,
    report: &mut Report,
    (name, targets, unit): (&'static str, Targets, &'static str),
    conditions: &str,
    requests: impl Fn(Author) -> Requests,
) -> Result<()> {
    let cluster = stage.start(&[]).await?;
    let authors = authors(&cluster).await?;
    let mut people =
        Senders::calling(&cluster, authors.into_iter().map(requests).collect()).await?;
    let (repetitions, each) = stage.repetitions(REPETITIONS, EACH);
    people.send(&cluster, WARM_UP.min(each)).await?;
    let mut runs = Vec::new();
    for _ in 0..repetitions {
        runs.push(people.send(&cluster, each).await?);
    }
    let conditions = format!("{conditions}, {repetitions} × {each:?}");
    let mut rows = report.under(name, targets, &conditions);
    rows.add("64_rate", Run::rates(&runs), unit);
    rows.quantiles("64", &runs.iter().map(|run| &run.times).collect::<Vec<_>>());
    rows.add("64_cpu", Figure::over(&runs, |run| run.cpu), "CPU-ms each");
    rows.add("64_generator_cpu", Figure::over(&runs, |run| run.generator_cpu), "CPU-ms each");
    Run::check(&runs)
}

async fn authors(cluster: &Cluster) -> Result<Vec<Author>> {
    let seats = seats(cluster, ROOMS, PEOPLE).await?;
    let rooms: Vec<_> = seats.iter().map(|(person, chat)| (*chat, person.clone())).collect();
    let mut authors = Vec::new();
    for (chat, person) in rooms {
        cluster.town.ancient_history(&[(chat, person.clone())], MESSAGES).await?;
        let messages = query_scalar(
            "select id from messages where chat_id = $1 and sender_id = $2 order by id",
        )
        .bind(chat)
        .bind(person.id)
        .fetch_all(&cluster.db)
        .await?;
        let person = cluster.town.sign_in_again(&person).await?;
        authors.push(Author { person, chat, messages });
    }
    Ok(authors)
}
