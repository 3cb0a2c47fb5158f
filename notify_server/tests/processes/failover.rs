//! A cursor that is still true works after a failover or a restore, any other gets `Reset`, and nothing is missed in
//! silence.

mod cluster;
mod replay;
mod synchronous;

use std::time::Duration;

use devdb::{Postgres, Proxy, Scratch};
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::sleep;

use crate::fechatter::{Fechatter, Person, Stream};
use cluster::{Cluster, Commits};

/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries of a client.
const AGAIN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_failover_resets_those_who_saw_what_it_lost_and_nobody_else() {
    let mut cluster = Cluster::start(Commits::Here).await;
    let fechatter = Fechatter::start_on(&cluster.url(), &[]).await;
    let (alice, messages) = alice(&fechatter).await;
    let mut stream = alice.listens(None).await;
    let kept = says(&alice, &messages, &mut stream, ["a", "b", "c"]).await;
    cluster.loses_what_follows().await;
    let lost = says(&alice, &messages, &mut stream, ["lost", "lost too"]).await;

    cluster.fails_over().await;

    fechatter.is_ready().await;
    goes_on_without(&alice, &messages, stream, &kept, &lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_resets_those_who_saw_what_it_lacks_and_nobody_else() {
    let scratch = Scratch::new().unwrap();
    let [home, copy] = ["original", "copy"].map(|name| scratch.path().join(name));
    let original = Postgres::in_scratch_folder(&home).unwrap();
    let database = Proxy::start(original.address()).await.unwrap();
    let url = original.url_through(database.address(), "postgres");
    let fechatter = Fechatter::start_on(&url, &[]).await;
    let (alice, messages) = alice(&fechatter).await;
    let mut stream = alice.listens(None).await;
    let kept = says(&alice, &messages, &mut stream, ["a", "b", "c"]).await;

    original.stop().unwrap();
    Postgres::copy(&home, &copy).unwrap();
    let original = Postgres::in_scratch_folder(&home).unwrap();
    moves(&fechatter, &database, &original).await;
    let lost = says(&alice, &messages, &mut stream, ["lost", "lost too"]).await;
    original.stop().unwrap();
    let restored = Postgres::in_scratch_folder(&copy).unwrap();
    moves(&fechatter, &database, &restored).await;

    goes_on_without(&alice, &messages, stream, &kept, &lost).await;
}

async fn moves(fechatter: &Fechatter, database: &Proxy, to: &Postgres) {
    database.retarget(to.address());
    database.cut();
    fechatter.is_ready().await;
}

/// What clients see of a log that has lost the cursors `lost` and has those in `kept`. The stream has seen both.
async fn goes_on_without(
    alice: &Person<'_>,
    messages: &str,
    mut stream: Stream,
    kept: &[String],
    lost: &[String],
) {
    let fresh = is_reset(&mut stream).await;
    for cursor in lost {
        is_reset(&mut alice.asks_for_events(Some(cursor)).await.unwrap()).await;
    }
    let mut resumed = alice.listens(Some(&kept[0])).await;
    let mut started_over = alice.listens(Some(&fresh)).await;
    assert_eq!([hears(&mut resumed).await, hears(&mut resumed).await], ["b", "c"]);

    // The positions of what was lost are taken by something else.
    for content in ["d", "e", "f"] {
        alice.post(messages, &json!({ "content": content })).await;
        assert_eq!(hears(&mut resumed).await, content);
        assert_eq!(hears(&mut started_over).await, content);
    }
    assert!(lost.iter().all(|cursor| position(cursor) < reached(&resumed)));
    for cursor in lost {
        is_reset(&mut alice.asks_for_events(Some(cursor)).await.unwrap()).await;
    }
}

/// Alice, and the path of her chat's messages. Nobody else is there: every event is for her.
async fn alice(fechatter: &Fechatter) -> (Person<'_>, String) {
    let alice = fechatter.signs_up("alice", "Acme").await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    (alice, format!("/api/chat/{}/messages", chat["id"]))
}

/// Sends messages one by one, each of which the stream hears; its cursors.
async fn says<const N: usize>(
    person: &Person<'_>,
    messages: &str,
    stream: &mut Stream,
    contents: [&str; N],
) -> Vec<String> {
    let mut cursors = Vec::new();
    for content in contents {
        person.post(messages, &json!({ "content": content })).await;
        assert_eq!(hears(stream).await, content);
        cursors.push(stream.cursor.clone().unwrap());
    }
    cursors
}

/// The next message of a stream that goes on.
async fn hears(stream: &mut Stream) -> String {
    loop {
        let next = stream.next().await.expect("the stream ended");
        match next["event"].as_str().unwrap() {
            "NewMessage" => return next["content"].as_str().unwrap().to_owned(),
            "Heartbeat" | "ReadStateUpdated" => {}
            _ => panic!("{next}"),
        }
    }
}

/// A stream that says `Reset` next and ends; the cursor to start over from.
async fn is_reset(stream: &mut Stream) -> String {
    let mut next = stream.next().await.expect("the stream ended");
    while next["event"] == "Heartbeat" || next["event"] == "ReadStateUpdated" {
        next = stream.next().await.expect("the stream ended");
    }
    assert_eq!((&next["event"], &next["reason"]), (&json!("Reset"), &json!("cursor_unknown")));
    assert!(stream.next().await.is_none(), "Reset is the last event");
    next["cursor"].as_str().unwrap().to_owned()
}

/// Opens a stream as soon as that is possible.
async fn comes_back(person: &Person<'_>, cursor: &str) -> Stream {
    loop {
        match person.asks_for_events(Some(cursor)).await {
            Ok(stream) => return stream,
            Err(refused) => assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE),
        }
        sleep(AGAIN).await;
    }
}

/// Where the person's events stand.
async fn now(person: &Person<'_>) -> String {
    person.get("/api/sync").await["cursor"].as_str().unwrap().to_owned()
}

fn reached(stream: &Stream) -> i64 {
    position(stream.cursor.as_deref().unwrap())
}

fn position(cursor: &str) -> i64 {
    cursor.rsplit_once('-').unwrap().1.parse().unwrap()
}
