//! What ends a stream, and that nothing later gets through.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fechatter::{Fechatter, Person, Stream};

/// A channel of Alice's with these people in it, and where to write.
async fn channel(alice: &Person<'_>, others: &[&Person<'_>]) -> String {
    let members: Vec<_> = others.iter().map(|person| person.id).collect();
    let draft = json!({ "name": "lunch", "chat_type": "PrivateChannel", "members": members });
    let chat = alice.post("/api/chat", &draft).await;
    format!("/api/chat/{}/messages", chat["id"])
}

#[tokio::test]
async fn the_suspended_are_told_and_hear_nothing_until_they_may_act_again() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let messages = channel(&alice, &[&bob]).await;
    let bobs = format!("/api/users/{}", bob.id);
    let mut stream = bob.listens(None).await;

    alice.does(Method::PATCH, &bobs, &json!({ "status": "Suspended" })).await;
    alice.post(&messages, &json!({ "content": "without bob" })).await;

    assert_eq!(stream.next().await.unwrap()["status"], "Suspended");
    let cursor = stream.cursor.clone();
    assert_eq!(stream.next().await.unwrap()["reason"], "suspended");
    assert_eq!(stream.next().await, None);
    assert_eq!(bob.is_refused_events(cursor.as_deref()).await, StatusCode::FORBIDDEN);
    let sent = bob.call(Method::POST, &messages, &json!({ "content": "hello?" })).await;
    assert_eq!(sent.status, StatusCode::FORBIDDEN);

    // Suspension keeps memberships: what they missed is theirs once they are back.
    alice.does(Method::PATCH, &bobs, &json!({ "status": "Active" })).await;
    let mut stream = bob.listens(cursor.as_deref()).await;
    assert_eq!(stream.next().await.unwrap()["content"], "without bob");
    assert_eq!(stream.next().await.unwrap()["status"], "Active");
}

#[tokio::test]
async fn a_suspended_workspace_ends_all_its_streams_until_it_is_restored() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let olga = fechatter.signs_up("olga", "Other").await;
    let messages = channel(&alice, &[&bob]).await;
    let [mut stream, mut others] = [bob.listens(None).await, olga.listens(None).await];

    fechatter.administers(&["workspace", "suspend", "Acme"]);
    assert_eq!(stream.next().await.unwrap()["status"], "Suspended");
    let cursor = stream.cursor.clone();
    assert_eq!(stream.next().await.unwrap()["reason"], "workspace_closed");
    assert_eq!(stream.next().await, None);
    assert_eq!(bob.is_refused_events(cursor.as_deref()).await, StatusCode::FORBIDDEN);

    fechatter.administers(&["workspace", "restore", "Acme"]);
    let mut stream = bob.listens(cursor.as_deref()).await;
    assert_eq!(stream.until("WorkspaceUpdated").await.get("status"), None);
    alice.post(&messages, &json!({ "content": "back" })).await;
    assert_eq!(stream.next().await.unwrap()["content"], "back");

    fechatter.administers(&["workspace", "delete", "Acme", "--yes-really", "Acme"]);
    assert_eq!(stream.until("WorkspaceUpdated").await["status"], "Deleted");
    assert_eq!(stream.next().await.unwrap()["reason"], "workspace_closed");
    let cursor = stream.cursor.clone();
    assert_eq!(bob.is_refused_events(cursor.as_deref()).await, StatusCode::UNAUTHORIZED);
    let theirs = channel(&olga, &[]).await;
    olga.post(&theirs, &json!({ "content": "still here" })).await;
    assert_eq!(others.until("NewMessage").await["content"], "still here");
}

#[tokio::test]
async fn the_removed_hear_that_they_are_and_no_more() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let carol = fechatter.signs_up("carol", "Acme").await;
    let messages = channel(&alice, &[&bob, &carol]).await;
    let mut streams = [bob.listens(None).await, carol.listens(None).await];

    alice.does(Method::DELETE, &format!("/api/users/{}", bob.id), &Value::Null).await;
    carol.does(Method::POST, "/api/workspace/leave", &Value::Null).await;
    alice.post(&messages, &json!({ "content": "alone" })).await;

    for (stream, own) in streams.iter_mut().zip([bob.id, carol.id]) {
        let told = loop {
            let next = stream.next().await.unwrap();
            if next["id"] == own {
                break next;
            }
            let others = ["UserUpdated", "UserLeftChat", "UserLeftWorkspace"];
            assert!(others.contains(&next["event"].as_str().unwrap()), "{next}");
        };
        assert_eq!((&told["event"], &told["status"]), (&json!("UserUpdated"), &json!("Left")));
        assert_eq!(stream.next().await.unwrap()["reason"], "removed");
        assert_eq!(stream.next().await, None);
    }
    for person in [&bob, &carol] {
        assert_eq!(person.is_refused_events(None).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn colleagues_hear_of_a_colleague_who_left_and_of_the_chats_that_they_shared() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let carol = fechatter.signs_up("carol", "Acme").await;
    let both = channel(&alice, &[&bob, &carol]).await;
    let hers = channel(&alice, &[&bob]).await;
    let (both_id, hers_id) = (chat_of(&both), chat_of(&hers));
    let mut streams = [alice.listens(None).await, carol.listens(None).await];
    let cursor = streams[1].cursor.clone();

    bob.does(Method::POST, "/api/workspace/leave", &Value::Null).await;

    for (stream, chats) in streams.iter_mut().zip([vec![both_id, hers_id], vec![both_id]]) {
        assert_offboarded(stream, bob.id, &chats).await;
    }
    // Afterwards the chats are as they say, also for those who were away.
    alice.post(&both, &json!({ "content": "without bob" })).await;
    let mut resumed = carol.listens(cursor.as_deref()).await;
    assert_offboarded(&mut resumed, bob.id, &[both_id]).await;
    for stream in streams.iter_mut().chain([&mut resumed]) {
        assert_eq!(stream.next().await.unwrap()["content"], "without bob");
    }
}

fn chat_of(messages: &str) -> i64 {
    messages.split('/').nth(3).unwrap().parse().unwrap()
}

async fn assert_offboarded(stream: &mut Stream, user_id: i64, chats: &[i64]) {
    let first = stream.next().await.unwrap();
    assert_eq!((&first["event"], &first["status"]), (&json!("UserUpdated"), &json!("Left")));
    assert_eq!(first["id"], user_id);
    for chat_id in chats {
        let left = stream.next().await.unwrap();
        assert_eq!((&left["event"], &left["chat_id"]), (&json!("UserLeftChat"), &json!(chat_id)));
        assert_eq!((&left["user_id"], &left["reason"]), (&json!(user_id), &json!("left")));
    }
    let last = stream.next().await.unwrap();
    assert_eq!((&last["event"], &last["user_id"]), (&json!("UserLeftWorkspace"), &json!(user_id)));
}

#[tokio::test]
async fn a_person_who_comes_back_starts_over_and_receives_nothing_from_before() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    channel(&alice, &[&bob]).await;
    let mut alices = alice.listens(None).await;
    let before = alices.cursor.clone();
    alice.does(Method::DELETE, &format!("/api/users/{}", bob.id), &Value::Null).await;
    let removed = alices.until("UserUpdated").await;
    assert_eq!(removed["status"], "Left");
    let at_removal = alices.cursor.clone();
    alices.until("UserLeftWorkspace").await;

    let back = fechatter.signs_up("bob", "Acme").await;
    assert_eq!(back.id, bob.id);
    for cursor in [before, at_removal] {
        let mut stream = back.asks_for_events(cursor.as_deref()).await.unwrap();
        let only = stream.next().await.unwrap();
        assert_eq!((&only["event"], &only["reason"]), (&json!("Reset"), &json!("cursor_expired")));
        assert_eq!(stream.next().await, None);
        // From where it says, the stream goes on.
        let mut stream = back.listens(stream.cursor.as_deref()).await;
        let chat = channel(&alice, &[&back]).await;
        let begun = stream.until("NewChat").await;
        assert_eq!(begun["id"], chat_of(&chat));
    }
}

#[tokio::test]
async fn a_session_ended_on_another_device_takes_its_streams_along() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let phone = alice.signs_in().await;
    let mut streams = [alice.listens(None).await, phone.listens(None).await];

    let path = format!("/api/sessions/{}", phone.session_id);
    alice.does(Method::DELETE, &path, &Value::Null).await;

    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap()["session_id"], phone.session_id);
    }
    let [stays, ended] = &mut streams;
    assert_eq!(ended.next().await.unwrap()["reason"], "session_revoked");
    assert_eq!(ended.next().await, None);
    channel(&alice, &[]).await;
    assert_eq!(stays.next().await.unwrap()["event"], "NewChat");
    assert_eq!(phone.is_refused_events(None).await, StatusCode::UNAUTHORIZED);
}
