//! T7: people lose their rights while they send, and while they come and go with their streams.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fechatter_core::{ChatId, UserId};
use rand::{Rng, seq::IndexedRandom};
use reqwest::Method;
use rig::{Answer, Person};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    audience::Notes,
    load::Seat,
    report::Row,
    stage::{Cast, Options, Stage},
};

/// How soon after the answer a stream is cut.
const CUT: Duration = Duration::from_secs(2);

pub(super) async fn changed(options: &Options) -> Result<Row> {
    let cast = Cast {
        people: options.either(80, 200),
        streams: options.either(60, 200),
        restless: Some(options.either(Duration::from_secs(3), Duration::from_millis(1_500))),
        // A debug build would be busy with the load alone.
        workers: options.either(4, 48),
        sends_per_second: options.either(25, 300),
        ..options.cast()
    };
    let mut stage = options.stage(cast).await?;
    let mut crowd = Crowd::of(&stage);
    let changes = options.either(150, 3_000);
    let mut ticks = interval(Duration::from_secs(1) / options.either(20, 50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    // A machine that is busy otherwise manages fewer.
    while stage.times < changes && began.elapsed() < options.either(QUICK, FULL) {
        ticks.tick().await;
        crowd.change(&mut stage).await?;
        stage.times += 1;
    }
    while let Some(took) = crowd.cuts.join_next().await {
        stage.delays.recovery("cut", took?, CUT);
    }
    stage.finish().await
}

const QUICK: Duration = Duration::from_secs(12);
const FULL: Duration = Duration::from_mins(2);

/// Whoever is about to lose a right uses it at that very moment, so many times within so long.
const LAST_WORDS: usize = 2;
const MOMENT: Duration = Duration::from_millis(30);

/// What we know of the people, since nobody else changes it.
struct Crowd {
    /// With their newest sessions. They own nothing, so that everything may be taken from them.
    people: Vec<Person>,
    chats: Vec<(ChatId, Person)>,
    members: HashSet<(ChatId, UserId)>,
    cuts: JoinSet<Duration>,
}

impl Crowd {
    fn of(stage: &Stage) -> Self {
        let chats: Vec<_> =
            stage.chats.iter().map(|(chat, members)| (*chat, members[0].clone())).collect();
        let owners: HashSet<_> = chats.iter().map(|(_, owner)| owner.id).collect();
        let people = stage.workspace.people.iter().skip(1);
        let people = people.filter(|person| !owners.contains(&person.id)).cloned().collect();
        let members = stage
            .chats
            .iter()
            .flat_map(|(chat, members)| members.iter().map(|member| (*chat, member.id)));
        Self { people, chats, members: members.collect(), cuts: JoinSet::new() }
    }

    async fn change(&mut self, stage: &mut Stage) -> Result<()> {
        // As long as there are enough of them.
        let may_go = self.people.len() > 40;
        match stage.rng.random_range(0..100) {
            0..5 if may_go => self.suspend(stage).await,
            5..10 if may_go => self.remove_from_workspace(stage).await,
            10..20 => self.log_out(stage).await,
            20..30 => self.end_session(stage).await,
            _ => self.change_membership(stage).await,
        }
    }

    async fn change_membership(&mut self, stage: &mut Stage) -> Result<()> {
        let (chat, owner) = self.chats.choose(&mut stage.rng).context("a chat")?;
        let person = self.people.choose(&mut stage.rng).context("a person")?;
        if self.members.remove(&(*chat, person.id)) {
            last_words(stage, person, *chat);
            done("removing", owner.remove(*chat, person.id).await)
        } else {
            self.members.insert((*chat, person.id));
            stage.load.seat(Seat::new(person, *chat));
            done("adding", owner.add(*chat, person.id).await)
        }
    }

    async fn suspend(&mut self, stage: &mut Stage) -> Result<()> {
        let person = self.take(stage);
        let path = format!("/api/users/{}", person.id);
        let body = json!({ "status": "Suspended" });
        let answer = stage.owner().call(Method::PATCH, &path, Some(&body)).await;
        self.expect_cut(stage, &person);
        done("suspending", answer)
    }

    async fn remove_from_workspace(&mut self, stage: &mut Stage) -> Result<()> {
        let person = self.take(stage);
        let path = format!("/api/users/{}", person.id);
        let answer = stage.owner().call(Method::DELETE, &path, None).await;
        self.expect_cut(stage, &person);
        done("removing from the workspace", answer)
    }

    async fn log_out(&mut self, stage: &mut Stage) -> Result<()> {
        let person = self.take(stage);
        let answer = person.log_out().await;
        self.expect_cut(stage, &person);
        let again = stage.cluster.town.sign_in_again(&person).await?;
        self.come_back(stage, again);
        done("logging out", answer)
    }

    /// From another session of the same person.
    async fn end_session(&mut self, stage: &mut Stage) -> Result<()> {
        let person = self.take(stage);
        let again = stage.cluster.town.sign_in_again(&person).await?;
        let path = format!("/api/sessions/{}", person.session_id);
        let answer = again.call(Method::DELETE, &path, None).await;
        self.expect_cut(stage, &person);
        self.come_back(stage, again);
        done("ending a session", answer)
    }

    /// Somebody who is about to lose everything.
    fn take(&mut self, stage: &mut Stage) -> Person {
        let chosen = stage.rng.random_range(0..self.people.len());
        let person = self.people.swap_remove(chosen);
        for (chat, _) in &self.chats {
            if self.members.contains(&(*chat, person.id)) {
                last_words(stage, &person, *chat);
            }
        }
        person
    }

    fn come_back(&mut self, stage: &mut Stage, person: Person) {
        stage.listen(&person);
        for (chat, _) in
            self.chats.iter().filter(|(id, _)| self.members.contains(&(*id, person.id)))
        {
            stage.load.seat(Seat::new(&person, *chat));
        }
        self.people.push(person);
    }

    fn expect_cut(&mut self, stage: &Stage, person: &Person) {
        if let Some(notes) = stage.audience.of(person.session_id) {
            self.cuts.spawn(until_refused(notes));
        }
    }
}

fn last_words(stage: &mut Stage, person: &Person, chat: ChatId) {
    for _ in 0..LAST_WORDS {
        let seat = Seat::new(person, chat);
        stage.load.say_or_change(seat, MOMENT, stage.rng.random());
    }
}

async fn until_refused(notes: Arc<Notes>) -> Duration {
    let began = Instant::now();
    while !notes.is_refused() && began.elapsed() < 10 * CUT {
        sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn done(what: &str, answer: Answer) -> Result<()> {
    match answer {
        Answer::Ok { .. } => Ok(()),
        answer => bail!("{what} failed: {answer:?}"),
    }
}
