//! System messages: what happens to a chat, told in the chat.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Chat, NOTHING, Person, TestApp, seqs};

/// The newest message of a chat, which must be a system message: its sender and what it tells.
async fn told(reader: &Person, chat: &Chat) -> (i64, Value) {
    let newest = reader.get(&format!("{}?limit=1", chat.messages)).await.expect(StatusCode::OK);
    let newest = &newest[0];
    assert_eq!((&newest["kind"], &newest["content"]), (&json!("system"), &json!("")));
    (newest["sender_id"].as_i64().unwrap(), newest["system"].clone())
}

fn notice(kind: &str, people: &[&Person], name: Option<&str>) -> Value {
    let ids: Vec<_> = people.iter().map(|person| person.id).collect();
    json!({ "type": kind, "user_ids": ids, "name": name })
}

#[tokio::test]
async fn a_chat_tells_who_came_and_went_and_who_did_it() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_public_channel("news").await;
    assert_eq!(alice.get(&chat.messages).await.expect(StatusCode::OK), json!([]));

    bob.joins(&chat).await;
    assert_eq!(told(&alice, &chat).await, (bob.id, notice("joined", &[&bob], None)));
    let both = json!([carol.id, bob.id, dave.id]);
    alice.post(&chat.members, both.clone()).await.expect(StatusCode::CREATED);
    assert_eq!(told(&bob, &chat).await, (alice.id, notice("added", &[&carol, &dave], None)));
    bob.leaves(&chat).await;
    assert_eq!(told(&alice, &chat).await, (bob.id, notice("left", &[&bob], None)));
    alice.removes([&carol, &dave], &chat).await;
    assert_eq!(told(&alice, &chat).await, (alice.id, notice("removed", &[&carol, &dave], None)));
    alice.post(&chat.members, json!([bob.id])).await.expect(StatusCode::CREATED);
    alice.patch(&chat.member(bob.id), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(told(&alice, &chat).await, (alice.id, notice("transferred", &[&bob], None)));
    let history = alice.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(seqs(&history), [6, 5, 4, 3, 2, 1]);

    // Nothing happened, so nothing is told.
    bob.joins(&chat).await;
    bob.post(&chat.members, json!([alice.id])).await.expect(StatusCode::CREATED);
    bob.patch(&chat.member(bob.id), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(alice.get(&chat.messages).await.expect(StatusCode::OK), history);
}

#[tokio::test]
async fn a_chat_tells_how_it_was_changed_once_a_request() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let change =
        async |changes: Value| alice.patch(&chat.path, changes).await.expect(StatusCode::OK);

    change(json!({ "name": "Dinner", "description": "For Friday" })).await;
    assert_eq!(told(&alice, &chat).await, (alice.id, notice("renamed", &[], Some("Dinner"))));
    change(json!({ "description": null })).await;
    assert_eq!(told(&alice, &chat).await.1, notice("described", &[], None));
    change(json!({ "chat_type": "PublicChannel" })).await;
    assert_eq!(told(&alice, &chat).await.1, notice("converted", &[], None));
    for kind in ["archive", "unarchive"] {
        alice.post(&format!("{}/{kind}", chat.path), NOTHING).await.expect(StatusCode::OK);
        assert_eq!(told(&alice, &chat).await.1, notice(&format!("{kind}d"), &[], None));
    }
    let before = app.state().await;
    for same in [json!({}), json!({ "name": "Dinner" }), json!({ "chat_type": "PublicChannel" })] {
        assert_eq!(change(same).await["last_seq"], 5);
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_system_message_follows_a_join_and_precedes_a_leave() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let mut log = app.log_of(alice.workspace_id).await;
    alice.post(&chat.members, json!([bob.id])).await.expect(StatusCode::CREATED);
    alice.removes([&bob], &chat).await;
    let kinds: Vec<_> = log.all_news().await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["UserJoinedChat", "NewMessage", "NewMessage", "UserLeftChat"]);
    // Leaving the workspace tells nothing in the chats.
    alice.post(&chat.members, json!([bob.id])).await.expect(StatusCode::CREATED);
    log.all_news().await;
    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;
    let news = log.all_news().await;
    assert!(news.iter().all(|event| !event.is_system_message), "{news:?}");
}

#[tokio::test]
async fn a_system_message_is_no_activity_and_nobody_changes_it() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let empty = bob.sidebar(&chat).await;
    alice.patch(&chat.path, json!({ "name": "Dinner" })).await.expect(StatusCode::OK);
    let quiet = bob.sidebar(&chat).await;
    assert_eq!(
        (&quiet["last_message"], &quiet["updated_at"]),
        (&Value::Null, &empty["updated_at"])
    );
    assert_eq!((&quiet["unread_count"], &quiet["last_seq"]), (&json!(0), &json!(1)));
    let sent = bob.sends(&chat, "hello").await;
    for name in ["Supper", "Lunch"] {
        alice.patch(&chat.path, json!({ "name": name })).await.expect(StatusCode::OK);
    }
    let sidebar = bob.sidebar(&chat).await;
    assert_eq!(sidebar["last_message"]["id"], sent["id"]);
    assert_eq!((&sidebar["updated_at"], &sidebar["last_seq"]), (&sent["created_at"], &json!(4)));
    assert_eq!((&sidebar["unread_count"], &sidebar["last_read_seq"]), (&json!(0), &json!(2)));
    assert_eq!(alice.sidebar(&chat).await["unread_count"], 1);

    let history = alice.get(&chat.messages).await.expect(StatusCode::OK);
    let change = alice.patch(&chat.message(&history[0]), json!({ "content": "x" })).await;
    change.refuses(StatusCode::FORBIDDEN, "forbidden");
    let deletion = alice.delete(&chat.message(&history[0]), NOTHING).await;
    deletion.refuses(StatusCode::FORBIDDEN, "forbidden");
}
