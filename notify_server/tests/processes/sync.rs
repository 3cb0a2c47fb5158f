//! A client that syncs and then follows its events always equals one that syncs later.

mod client;
mod history;

use client::Client;
use history::{Step, history};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fechatter::{Fechatter, Person};

/// Histories, and steps in each.
const HISTORIES: u32 = 12;
const STEPS: usize = 40;

#[test]
fn who_follows_equals_who_syncs_later() {
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

/// Plays a history while two of its people follow: one live, one who comes back at its end. At its
/// middle and end both equal what a sync says.
async fn tell(fechatter: &Fechatter, workspace: &str, steps: &[Step]) {
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol", "dave"] {
        people.push(fechatter.signs_up(name, workspace).await);
    }
    let (live, away) = (&people[1], &people[2]);
    let mut clients = [Client::of(&sync(live).await), Client::of(&sync(away).await)];
    let mut stream = live.listens(Some(&clients[0].cursor)).await;
    let (first, second) = steps.split_at(steps.len() / 2);
    let mut chats = history::Chats::default();
    for half in [first, second] {
        let (before, during) = half.split_at(half.len() - 6);
        for step in before {
            step.play(&people, &mut chats).await;
        }
        // What is written in the meantime is in both, state and cursor, or in neither.
        let writing = async {
            for step in during {
                step.play(&people, &mut chats).await;
            }
        };
        let (later, ()) = tokio::join!(sync(live), writing);
        mark(&people[0]).await;
        clients[0].follow(&mut stream, &later["cursor"]).await;
        clients[0].assert_equals(&later, half);
    }
    let later = sync(away).await;
    mark(&people[0]).await;
    let mut stream = away.listens(Some(&clients[1].cursor)).await;
    clients[1].follow(&mut stream, &later["cursor"]).await;
    clients[1].assert_equals(&later, steps);
}

async fn sync(person: &Person<'_>) -> Value {
    let answer = person.call(Method::GET, "/api/sync", &Value::Null).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// An event for everybody, so that whoever follows knows that nothing earlier is still to come.
async fn mark(owner: &Person<'_>) {
    owner.does(Method::PATCH, "/api/workspace", &json!({})).await;
}
