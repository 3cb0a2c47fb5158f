//! Archived chats.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, TestApp};

#[tokio::test]
async fn owners_and_admins_archive_a_chat_and_bring_it_back() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;
    alice.makes_admin(&bob, &chat).await;
    let mut log = app.log_of(alice.workspace_id).await;
    let [archive, unarchive] = ["archive", "unarchive"].map(|call| format!("{}/{call}", chat.path));

    for call in [&archive, &unarchive] {
        carol.post(call, NOTHING).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    let archived = alice.post(&archive, NOTHING).await.expect(StatusCode::OK);
    assert!(archived["archived_at"].is_string());
    let mut told = Log::only(log.news().await, "ChatUpdated").data();
    // The system message comes after it.
    assert_eq!((&told["last_seq"], &archived["last_seq"]), (&json!(0), &json!(1)));
    told["last_seq"] = json!(1);
    assert_eq!(told, archived);
    // Archiving it again changes nothing.
    assert_eq!(bob.post(&archive, NOTHING).await.expect(StatusCode::OK), archived);
    assert!(log.news().await.is_empty());

    let restored = bob.post(&unarchive, NOTHING).await.expect(StatusCode::OK);
    assert_eq!(restored["archived_at"], Value::Null);
    assert_eq!(Log::only(log.news().await, "ChatUpdated").data()["archived_at"], Value::Null);
    carol.sends(&chat, "again").await;
}

#[tokio::test]
async fn an_archived_chat_is_listed_only_among_the_archived_ones() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_public_channel("old").await;
    alice.creates_public_channel("new").await;
    alice.post(&format!("{}/archive", chat.path), NOTHING).await.expect(StatusCode::OK);

    let names = async |path: &str| {
        let chats = alice.get(path).await.expect(StatusCode::OK);
        let chats = chats.as_array().unwrap().clone();
        chats.iter().map(|chat| chat["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/chat").await, ["new"]);
    assert_eq!(names("/api/chat?archived=false").await, ["new"]);
    assert_eq!(names("/api/chat?archived=true").await, ["old"]);
    let directory = bob.get("/api/chat/directory").await.expect(StatusCode::OK);
    let found: Vec<_> = directory["items"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(found, ["new"]);
    // A client that starts needs both.
    let sync = alice.get("/api/sync").await.expect(StatusCode::OK);
    assert_eq!(sync["chats"].as_array().unwrap().len(), 2);
    assert!(alice.get(&chat.path).await.expect(StatusCode::OK)["archived_at"].is_string());
}

#[tokio::test]
async fn an_archived_chat_is_read_and_left_but_not_written_to() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let key = "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a";
    let draft = json!({ "content": "noodles?", "idempotency_key": key });
    let sent = bob.post(&chat.messages, draft.clone()).await.expect(StatusCode::CREATED);
    alice.post(&format!("{}/archive", chat.path), NOTHING).await.expect(StatusCode::OK);
    let before = app.state().await;

    let refused = [
        bob.post(&chat.messages, json!({ "content": "x" })).await,
        bob.patch(&chat.message(&sent), json!({ "content": "x" })).await,
        bob.delete(&chat.message(&sent), NOTHING).await,
        bob.put(&chat.reaction(&sent, "\u{1f44d}")).await,
        bob.post(&format!("{}/typing", chat.path), NOTHING).await,
    ];
    for reply in refused {
        reply.refuses(StatusCode::FORBIDDEN, "archived");
    }
    // A repeat only learns what has become of the message.
    assert_eq!(bob.post(&chat.messages, draft).await.expect(StatusCode::CREATED), sent);
    assert_eq!(bob.get(&chat.message(&sent)).await.expect(StatusCode::OK), sent);
    assert_eq!(app.state().await, before);
    // Reading, marking and muting go on.
    for (call, body) in [("read", json!({})), ("unread", json!({ "message_id": sent["id"] }))] {
        alice.post(&format!("{}/{call}", chat.path), body).await.expect(StatusCode::OK);
    }
    alice
        .patch(&format!("{}/me", chat.path), json!({ "pinned": true }))
        .await
        .expect(StatusCode::OK);
    bob.leaves(&chat).await;
}

#[tokio::test]
async fn a_single_cannot_be_archived() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let single = alice.opens_single_with(&bob).await;
    for call in ["archive", "unarchive"] {
        let refused = alice.post(&format!("{}/{call}", single.path), NOTHING).await;
        refused.refuses(StatusCode::BAD_REQUEST, "single_is_fixed");
    }
}
