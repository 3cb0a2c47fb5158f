//! A client that syncs and then follows its events always equals one that syncs later.

mod client;
mod history;

use std::pin::pin;

use client::Client;
use history::{Chats, Step, history};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fechatter::{Fechatter, Person};

/// Histories, and steps in each.
const HISTORIES: u32 = 8;
const STEPS: usize = 30;

#[test]
fn applying_events_equals_a_later_sync() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fechatter = runtime.block_on(Fechatter::start());
    let config = Config {
        cases: HISTORIES,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    };
    let workspaces = std::cell::Cell::new(0);
    let story = history(STEPS).prop_map(|steps| {
        workspaces.set(workspaces.get() + 1);
        (workspaces.get(), steps)
    });
    let told = TestRunner::new(config).run(&story, |(number, steps)| {
        runtime.block_on(tell(&fechatter, &format!("Acme {number}"), &steps));
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{error}"));
}

/// Plays a history while one of its people follows it live and another comes back at its end. Both
/// equal what a sync says, at whatever moment of the history it was made.
async fn tell(fechatter: &Fechatter, workspace: &str, steps: &[Step]) {
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol", "dave"] {
        people.push(fechatter.signs_up(name, workspace).await);
    }
    for (person, is_live) in [(&people[1], true), (&people[2], false)] {
        let mut client = Client::of(&sync(person).await);
        let live = if is_live { Some(person.listens(Some(&client.cursor)).await) } else { None };
        let syncs = syncs_during(play(&people, steps), person).await;
        mark(&people[0]).await;
        let mut stream = match live {
            Some(stream) => stream,
            None => person.listens(Some(&client.cursor)).await,
        };
        // What was said in a chat that has been deleted since is not told any more.
        let last = Client::of(syncs.last().unwrap());
        for later in syncs {
            client.follow(&mut stream, &later["cursor"]).await;
            client.assert_equals(&later, &last, steps);
        }
    }
}

async fn play(people: &[Person<'_>], steps: &[Step]) {
    let mut chats = Chats::default();
    for step in steps {
        step.play(people, &mut chats).await;
    }
}

/// What a person's syncs say while something happens, and once more after it.
async fn syncs_during(happening: impl Future<Output = ()>, person: &Person<'_>) -> Vec<Value> {
    let mut happening = pin!(happening);
    let mut syncs = Vec::new();
    loop {
        let syncing = sync(person);
        let mut syncing = pin!(syncing);
        tokio::select! {
            synced = &mut syncing => syncs.push(synced),
            () = &mut happening => {
                syncs.push(syncing.await);
                syncs.push(sync(person).await);
                return syncs;
            }
        }
    }
}

async fn sync(person: &Person<'_>) -> Value {
    person.get("/api/sync").await
}

/// An event for everybody, so that whoever follows knows that nothing earlier is still to come.
async fn mark(owner: &Person<'_>) {
    let name = Uuid::new_v4().simple().to_string();
    owner.does(Method::PATCH, "/api/workspace", &json!({ "name": name })).await;
}
