//! What reaches a person's devices past the log: read states, typing; and their own preferences.

use std::net::{Ipv4Addr, SocketAddr};

use devdb::{Proxy, TestDatabase};
use fechatter_core::schema::{CODE, MIGRATOR};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fechatter::{Fechatter, Person, Stream};

/// The settings that `keygen` makes.
const KEYS: [&str; 3] = [
    "FECHATTER__AUTH__PRIVATE_KEY",
    "FECHATTER__AUTH__PUBLIC_KEYS",
    "FECHATTER__AUTH__REFRESH_KEY",
];

/// A chat of these two, with messages of the first: its path and its cursor.
async fn lunch(alice: &Person<'_>, bob: &Person<'_>, messages: usize) -> String {
    let chat = json!({ "name": "lunch", "chat_type": "PrivateChannel", "members": [bob.id] });
    let chat = alice.post("/api/chat", &chat).await;
    let path = format!("/api/chat/{}", chat["id"]);
    for _ in 0..messages {
        alice.post(&format!("{path}/messages"), &json!({ "content": "x" })).await;
    }
    path
}

async fn expect_mark(stream: &mut Stream, last_read: i64, unread: i64) {
    let next = stream.next().await.unwrap();
    assert_eq!(next["event"], "ReadStateUpdated", "{next}");
    assert_eq!(
        (&next["last_read_seq"], &next["unread_count"]),
        (&json!(last_read), &json!(unread))
    );
}

#[tokio::test]
async fn a_stream_that_begins_or_resumes_gets_the_read_states_that_have_changed() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let path = lunch(&alice, &bob, 3).await;
    let mut stream = bob.listens(None).await;
    let cursor = {
        alice.post(&format!("{path}/messages"), &json!({ "content": "x" })).await;
        stream.until("NewMessage").await;
        stream.cursor.clone()
    };
    drop(stream);

    bob.post(&format!("{path}/read"), &json!({ "seq": 2 })).await;
    bob.post(&format!("{path}/read"), &json!({ "seq": 3 })).await;
    alice.post(&format!("{path}/messages"), &json!({ "content": "later" })).await;

    let mut resumed = bob.listens(cursor.as_deref()).await;
    assert_eq!(resumed.next().await.unwrap()["content"], "later");
    expect_mark(&mut resumed, 3, 2).await;
    let mut fresh = bob.listens(None).await;
    expect_mark(&mut fresh, 3, 2).await;
    // Nothing of hers has changed.
    let mut others = alice.listens(cursor.as_deref()).await;
    assert_eq!(others.next().await.unwrap()["content"], "later");
    alice.post(&format!("{path}/messages"), &json!({ "content": "last" })).await;
    for stream in [&mut resumed, &mut fresh, &mut others] {
        assert_eq!(stream.next().await.unwrap()["content"], "last");
    }
}

#[tokio::test]
async fn read_states_are_sent_again_when_the_doorbell_is_heard_again() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let port = database.options().get_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let doorbell = Proxy::start(address).await.unwrap();
    let through =
        database.url().replacen(&format!(":{port}"), &format!(":{}", doorbell.address().port()), 1);
    assert_ne!(through, database.url());
    let settings = [("FECHATTER__DATABASE__LISTEN_URL", through)];
    let fechatter = Fechatter::start_on(&database.url(), &settings).await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let path = lunch(&alice, &bob, 2).await;
    let mut stream = bob.listens(None).await;

    doorbell.black_hole(true);
    bob.post(&format!("{path}/read"), &json!({ "seq": 1 })).await;
    doorbell.cut();
    doorbell.black_hole(false);

    expect_mark(&mut stream, 1, 1).await;
}

/// Two pairs of servers on one database.
async fn two_pairs(database: &TestDatabase) -> [Fechatter; 2] {
    let generated = fechatter_server::keygen().unwrap();
    let settings = KEYS.map(|name| {
        let value = generated.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        (name, value.unwrap().to_owned())
    });
    [
        Fechatter::start_on(&database.url(), &settings).await,
        Fechatter::start_on(&database.url(), &settings).await,
    ]
}

#[tokio::test]
async fn typing_reaches_the_other_members_at_all_servers_once_in_three_seconds() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let [first, second] = two_pairs(&database).await;
    let alice = first.signs_up("alice", "Acme").await;
    let bob = first.signs_up("bob", "Acme").await;
    let eve = first.signs_up("eve", "Acme").await;
    let path = lunch(&alice, &bob, 0).await;
    let mut hearing = [bob.listens(None).await, bob.at(&second).listens(None).await];
    let mut not_hearing = [alice.listens(None).await, alice.at(&second).listens(None).await];
    let mut stranger = eve.listens(None).await;

    let typing = format!("{path}/typing");
    for person in [&alice, &alice, &alice.at(&second)] {
        person.does(Method::POST, &typing, &Value::Null).await;
    }

    let mut goes_on = false;
    for stream in &mut hearing {
        let mut next = stream.next().await.unwrap();
        while next["event"] == "Heartbeat" {
            // A stream that has just begun may miss it.
            goes_on = true;
            alice.does(Method::POST, &typing, &Value::Null).await;
            next = stream.next().await.unwrap();
        }
        assert_eq!(next["event"], "Typing", "{next}");
        assert_eq!(next["user_id"], alice.id);
        assert!(next["expires_in"].as_i64().unwrap() > 0);
    }
    alice.post(&format!("{path}/messages"), &json!({ "content": "x" })).await;
    for stream in &mut hearing {
        let mut next = stream.next().await.unwrap();
        while goes_on && next["event"] == "Typing" {
            next = stream.next().await.unwrap();
        }
        assert_eq!(next["event"], "NewMessage");
    }
    for stream in &mut not_hearing {
        assert_eq!(stream.next().await.unwrap()["event"], "NewMessage");
    }
    eve.post("/api/chat", &json!({ "name": "mine", "chat_type": "PrivateChannel" })).await;
    assert_eq!(stranger.next().await.unwrap()["event"], "NewChat");
}

#[tokio::test]
async fn marks_of_two_servers_reach_the_streams_of_all_servers() {
    let database = TestDatabase::create(&MIGRATOR, CODE).await;
    let [first, second] = two_pairs(&database).await;
    let alice = first.signs_up("alice", "Acme").await;
    let bob = first.signs_up("bob", "Acme").await;
    let path = lunch(&alice, &bob, 3).await;
    let mut streams = [bob.listens(None).await, bob.at(&second).listens(None).await];

    bob.at(&second).post(&format!("{path}/read"), &json!({})).await;
    for stream in &mut streams {
        expect_mark(stream, 3, 0).await;
    }
    let first_message = bob.get(&format!("{path}/messages?after_seq=0&limit=1")).await;
    let unread = json!({ "message_id": first_message[0]["id"] });
    bob.post(&format!("{path}/unread"), &unread).await;
    for stream in &mut streams {
        // A stream that has just begun may tell the state before that again.
        while stream.next().await.unwrap()["unread_count"] != 3 {}
    }
}

#[tokio::test]
async fn preferences_reach_the_devices_of_the_person_alone() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let path = lunch(&alice, &bob, 0).await;
    let mut device = bob.listens(None).await;
    let before = device.cursor.clone();
    let mut others = alice.listens(None).await;

    bob.does(Method::PATCH, &format!("{path}/me"), &json!({ "notify_level": "nothing" })).await;
    bob.does(Method::PATCH, "/api/me/preferences", &json!({ "theme": "dark" })).await;

    for stream in [&mut device, &mut bob.listens(before.as_deref()).await] {
        let chat = stream.next().await.unwrap();
        let expected = (&json!("ChatPreferencesUpdated"), &json!("nothing"));
        assert_eq!((&chat["event"], &chat["notify_level"]), expected);
        let all = stream.next().await.unwrap();
        let expected = (&json!("PreferencesUpdated"), &json!({ "theme": "dark" }));
        assert_eq!((&all["event"], &all["preferences"]), expected);
    }
    alice.post(&format!("{path}/messages"), &json!({ "content": "x" })).await;
    assert_eq!(others.next().await.unwrap()["event"], "NewMessage");
}

#[tokio::test]
async fn a_mention_of_an_edited_message_is_told_as_it_is_now() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let path = lunch(&alice, &bob, 0).await;
    let mut stream = bob.listens(None).await;
    let before = stream.cursor.clone();
    let messages = format!("{path}/messages");
    let text = format!("@all @[user:{}]", bob.id);

    let sent = alice.post(&messages, &json!({ "content": text })).await;
    let mentions = json!({ "user_ids": [bob.id], "all": true });
    assert_eq!(stream.next().await.unwrap()["mentions"], mentions);
    let edit = json!({ "content": "never mind" });
    alice.does(Method::PATCH, &format!("{messages}/{}", sent["id"]), &edit).await;
    let nobody = json!({ "user_ids": [], "all": false });
    assert_eq!(stream.next().await.unwrap()["mentions"], nobody);
    let mut resumed = bob.listens(before.as_deref()).await;
    for event in ["NewMessage", "MessageUpdated"] {
        let next = resumed.next().await.unwrap();
        assert_eq!((&next["event"], &next["mentions"]), (&json!(event), &nobody));
    }
}
