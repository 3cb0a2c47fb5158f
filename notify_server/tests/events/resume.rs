//! Coming back: from memory, from the log, or not at all.

use fechatter_core::ChatId;
use reqwest::StatusCode;
use serde_json::json;

use crate::world::{Person, Server, Stream, World};

/// A server that keeps few events in memory, and two people in one chat.
async fn forgetful(recent_events: usize) -> (World, Server, ChatId, [Person; 2]) {
    let mut world = World::new().await;
    world.config.notify.recent_events = recent_events;
    let server = world.serve();
    let acme = world.workspace("Acme").await;
    let (alice, bob) = (world.person("alice", acme).await, world.person("bob", acme).await);
    let chat = world.chat(&alice, &[&bob]).await;
    (world, server, chat, [alice, bob])
}

async fn counts(world: &World, sender: &Person, chat: ChatId, numbers: std::ops::Range<usize>) {
    let texts: Vec<_> = numbers.map(|number| number.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    world.sends_many(sender, chat, &texts).await;
}

async fn expect_counted(stream: &mut Stream, numbers: std::ops::Range<usize>) {
    for number in numbers {
        stream.expect_message(&number.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_in_memory_comes_from_the_log() {
    let (world, server, chat, [alice, bob]) = forgetful(20).await;
    let start = world.head(bob.workspace_id).await;
    let mut live = server.stream(&bob).await;
    live.expect("Ready").await;
    counts(&world, &alice, chat, 0..300).await;
    expect_counted(&mut live, 0..300).await;

    for cursor in
        [start.to_string(), world.cursor_at(bob.workspace_id, start.position.0 + 290).await]
    {
        let mut stream = server.stream_after(&bob, &cursor).await;
        assert_eq!(stream.expect("Ready").await.data["resumed"], true);
        let missed = if cursor == start.to_string() { 0 } else { 290 };
        expect_counted(&mut stream, missed..300).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_from_memory_and_from_the_log_agree_on_an_ended_membership() {
    for recent_events in [1, 10_000] {
        let (world, server, chat, [alice, bob]) = forgetful(recent_events).await;
        let start = world.head(bob.workspace_id).await;
        let mut others = server.stream(&alice).await;
        others.expect("Ready").await;
        world.sends(&alice, chat, "before").await;
        world.removes(chat, &alice, &bob).await;
        world.sends(&alice, chat, "secret").await;
        world.adds(chat, &alice, &bob).await;
        world.sends(&alice, chat, "again").await;
        for _ in 0..5 {
            others.next().await.unwrap();
        }

        let mut stream = server.stream_after(&bob, start).await;
        stream.expect("Ready").await;
        stream.expect_message("before").await;
        stream.expect("UserLeftChat").await;
        stream.expect("UserJoinedChat").await;
        stream.expect_message("again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_in_a_deleted_chat_is_told_by_neither_memory_nor_log() {
    for recent_events in [1, 10_000] {
        let (world, server, chat, [alice, bob]) = forgetful(recent_events).await;
        let start = world.head(bob.workspace_id).await;
        counts(&world, &alice, chat, 0..3).await;
        world.deletes(chat, &alice).await;

        let mut stream = server.stream_after(&bob, start).await;
        stream.expect("Ready").await;
        stream.expect("ChatDeleted").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_missed_more_than_5000_events_starts_over() {
    let (world, server, chat, [alice, bob]) = forgetful(10_000).await;
    let eve = world.person("eve", alice.workspace_id).await;
    let start = world.head(bob.workspace_id).await;
    counts(&world, &alice, chat, 0..5_001).await;
    let head = world.head(bob.workspace_id).await.to_string();

    let mut stream = server.stream_after(&bob, start).await;
    let reset = stream.expect("Reset").await;
    let data = json!({ "event": "Reset", "reason": "too_far_behind", "cursor": head });
    assert_eq!(reset.data, data);
    stream.expect_end().await;
    // Events of others do not count.
    let mut hers = server.stream_after(&eve, start).await;
    assert_eq!(hers.expect("Ready").await.data["resumed"], true);
    let later = world.cursor_at(bob.workspace_id, start.position.0 + 1).await;
    let mut stream = server.stream_after(&bob, later).await;
    stream.expect("Ready").await;
    expect_counted(&mut stream, 1..5_001).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_puts_people_off() {
    let mut world = World::new().await;
    world.config.notify.streams = 2;
    let server = world.serve();
    let acme = world.workspace("Acme").await;
    let (alice, bob) = (world.person("alice", acme).await, world.person("bob", acme).await);
    let _open = [server.stream(&alice).await, server.stream(&bob).await];

    let refused = server.refuses(&bob).await;

    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3..=10).contains(&wait));
    assert_eq!(refused.json()["type"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_the_log_during_a_slow_replay_causes_reset() {
    let (world, server, chat, [alice, bob]) = forgetful(1).await;
    let start = world.head(bob.workspace_id).await;
    // More than the sockets between us and the server hold.
    let longest = "\u{1}".repeat(10_000);
    for _ in 0..20 {
        world.sends_many(&alice, chat, &[&*longest; 20]).await;
    }
    let mut stream = server.stream_after(&bob, start).await;
    stream.expect("Ready").await;

    world.execute("delete from events where position < (select max(position) from events)").await;

    let mut seq = 0;
    let reset = loop {
        let frame = stream.next().await.unwrap();
        if frame.event == "Reset" {
            break frame;
        }
        seq += 1;
        assert_eq!(frame.data["seq"], seq);
    };
    assert!(seq < 400, "everything had been read before it was pruned");
    assert_eq!(reset.data["reason"], "cursor_expired");
    assert_eq!(reset.id(), world.head(bob.workspace_id).await.to_string());
    stream.expect_end().await;
}
