//! What ends a stream, and that nothing later gets through.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fechatter::{Fechatter, Person};

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
    let refused = bob.asks_for_events(cursor.as_deref()).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let sent = bob.call(Method::POST, &messages, &json!({ "content": "hello?" })).await;
    assert_eq!(sent.status(), StatusCode::FORBIDDEN);

    // Suspension keeps memberships: what they missed is theirs once they are back.
    alice.does(Method::PATCH, &bobs, &json!({ "status": "Active" })).await;
    let mut stream = bob.listens(cursor.as_deref()).await;
    assert_eq!(stream.next().await.unwrap()["content"], "without bob");
    assert_eq!(stream.next().await.unwrap()["status"], "Active");
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

    let [bobs, carols] = &mut streams;
    for (stream, reason) in [(bobs, "removed"), (carols, "left")] {
        let own = if reason == "removed" { bob.id } else { carol.id };
        loop {
            let next = stream.next().await.unwrap();
            assert!(next["event"] == "UserLeftChat" || next["event"] == "UserLeftWorkspace");
            if next["event"] == "UserLeftWorkspace" && next["user_id"] == own {
                assert_eq!(next["reason"], reason);
                break;
            }
        }
        assert_eq!(stream.next().await.unwrap()["reason"], "removed");
        assert_eq!(stream.next().await, None);
    }
    for person in [&bob, &carol] {
        assert_eq!(person.asks_for_events(None).await.status(), StatusCode::UNAUTHORIZED);
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
    assert_eq!(phone.asks_for_events(None).await.status(), StatusCode::UNAUTHORIZED);
}
