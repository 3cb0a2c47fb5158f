//! People who erase their account.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::harness::{Log, PASSWORD, Person, TestApp};

fn erase(messages: &str) -> Value {
    json!({ "password": PASSWORD, "messages": messages })
}

/// Waits until the rows of erased messages are empty.
async fn emptied(app: &TestApp) {
    let waiting = async {
        let unfinished = "select exists (select from blanked_people)";
        while sqlx::query_scalar::<_, bool>(unfinished).fetch_one(&app.db).await.unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn an_erased_account_leaves_nothing_that_says_who_it_was() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let message = bob.sends(&chat, "Noodles?").await;
    bob.patch("/api/me", json!({ "fullname": "Bob Builder", "title": "Cook" }))
        .await
        .expect(StatusCode::OK);
    bob.patch("/api/me/preferences", json!({ "theme": "dark" })).await.expect(StatusCode::OK);
    bob.patch(&format!("/api/chat/{}/me", chat.id), json!({ "pinned": true }))
        .await
        .expect(StatusCode::OK);
    let invited = json!({ "email": "bob@acme.test" });
    alice.post("/api/invites", invited).await.expect(StatusCode::CREATED);
    app.tries("bob@acme.test", "wrong").await;
    let mut log = app.log_of(alice.workspace_id).await;

    bob.delete("/api/me", erase("keep")).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;

    let events = log.news().await;
    let kinds: Vec<_> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["SessionRevoked", "UserUpdated", "UserLeftChat", "UserLeftWorkspace"]);
    let former = alice.get(&format!("/api/users/{}", bob.id)).await.expect(StatusCode::OK);
    let address = format!("former-{}@invalid", bob.id);
    for (field, value) in [
        ("fullname", json!("Former member")),
        ("email", json!(address)),
        ("title", Value::Null),
        ("status", json!("Left")),
    ] {
        assert_eq!(former[field], value);
        assert_eq!(events[1].data()[field], value);
    }
    let page = alice.get(&chat.messages).await.expect(StatusCode::OK);
    let kept = page.as_array().unwrap().iter().find(|m| m["id"] == message["id"]).unwrap();
    assert_eq!(kept["content"], "Noodles?");
    bob.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    for email in ["bob@acme.test", &address] {
        let refused = app.tries(email, PASSWORD).await;
        refused.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    }
    let state = format!("{:?}", app.state().await);
    for trace in ["bob@acme.test", "Bob", "Cook", "dark"] {
        assert!(!state.contains(trace), "{trace}");
    }
    // The address is free for somebody else.
    app.user("bob").await;
}

#[tokio::test]
async fn an_erased_name_is_gone_from_the_log_too() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mut log = Log::from_start(app.db.clone(), alice.workspace_id);
    bob.delete("/api/me", erase("keep")).await.expect(StatusCode::NO_CONTENT);
    let events = log.news().await;
    let of_bob = events.iter().filter(|event| event.kind.starts_with("User"));
    let of_bob: Vec<_> = of_bob.map(super::harness::Logged::data).collect();
    assert!(of_bob.iter().any(|user| user["id"] == bob.id));
    for user in of_bob.iter().filter(|user| user["id"] == bob.id) {
        assert_eq!(user["fullname"], "Former member");
    }
}

#[tokio::test]
async fn blanked_messages_are_deleted_at_once_everywhere() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let hers = alice.sends(&chat, "Pizza?").await;
    let text = format!("Noodles, @[user:{}]!", alice.id);
    let his = bob.sends(&chat, &text).await;
    let reply = json!({ "content": "Rice!", "reply_to_id": hers["id"] });
    bob.post(&chat.messages, reply).await.expect(StatusCode::CREATED);
    alice.reacts(&chat, &his, "👍").await;
    assert_eq!(alice.sidebar(&chat).await["unread_count"], 2);
    let mut log = app.log_of(alice.workspace_id).await;

    bob.delete("/api/me", erase("blank")).await.expect(StatusCode::NO_CONTENT);

    let check = async || {
        let page = alice.get(&chat.messages).await.expect(StatusCode::OK);
        for message in page.as_array().unwrap().iter().filter(|m| m["kind"] == "user") {
            if message["sender_id"] == bob.id {
                assert_eq!(message["content"], "");
                assert_ne!(message["deleted_at"], Value::Null);
                assert_eq!(message["mentions"], json!({ "user_ids": [], "all": false }));
                assert_eq!(message["reactions"], json!([]));
            } else {
                assert_eq!(message["content"], "Pizza?");
            }
        }
        let one = alice.get(&chat.message(&his)).await.expect(StatusCode::OK);
        assert_eq!(one["content"], "");
        let sidebar = alice.sidebar(&chat).await;
        assert_eq!(sidebar["last_message"]["content"], "");
        assert_eq!(sidebar["last_message"]["sender_name"], "Former member");
        assert_eq!((&sidebar["unread_count"], &sidebar["mention_count"]), (&json!(0), &json!(0)));
    };
    check().await;
    let blanked = log.news().await.into_iter().find(|event| event.kind == "MessagesBlanked");
    let blanked = blanked.unwrap().data();
    assert_eq!(blanked["user_id"], bob.id);
    let deleted_at =
        alice.get(&chat.message(&his)).await.expect(StatusCode::OK)["deleted_at"].clone();
    assert_eq!(deleted_at, blanked["blanked_at"]);

    emptied(&app).await;
    check().await;
    let one = alice.get(&chat.message(&his)).await.expect(StatusCode::OK);
    assert_eq!(one["deleted_at"], deleted_at);
    let replied = alice.get(&chat.message(&hers)).await.expect(StatusCode::OK);
    assert_eq!(replied["reply_count"], 0);
    assert!(!format!("{:?}", app.state().await).contains("Noodles"));
}

#[tokio::test]
async fn erasure_needs_the_password_and_another_owner_in_every_workspace() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let founded = bob.post("/api/workspaces", json!({ "name": "Side" })).await;
    founded.expect(StatusCode::CREATED);
    let before = app.state().await;
    let wrong = json!({ "password": "not my password", "messages": "keep" });
    bob.delete("/api/me", wrong).await.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    let refused = bob.delete("/api/me", erase("keep")).await;
    let refused = refused.refuses(StatusCode::CONFLICT, "last_owner");
    assert_eq!(refused["details"][0]["field"], "Side");
    let refused = alice.delete("/api/me", erase("blank")).await;
    let refused = refused.refuses(StatusCode::CONFLICT, "last_owner");
    assert_eq!(refused["details"][0]["field"], "Acme");
    for bad in [json!({}), json!({ "password": PASSWORD }), erase("burn")] {
        bob.delete("/api/me", bad).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let after = app.state().await;
    for table in ["users", "workspace_members", "events", "messages"] {
        assert_eq!(after.get(table), before.get(table));
    }
}

#[tokio::test]
async fn a_workspace_that_was_left_before_hears_of_the_erasure() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let elsewhere = app.user_in("eve", "Side").await;
    let joined = bob.post("/api/workspaces/join", json!({ "name": "Side" })).await;
    joined.expect(StatusCode::CREATED);
    alice
        .delete(&format!("/api/users/{}", bob.id), Value::Null)
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_ne!(elsewhere.workspace_id, alice.workspace_id);
    let bob = app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::OK);
    let bob = Person::signed_in(&app.anyone, &bob);
    let mut log = app.log_of(alice.workspace_id).await;
    bob.delete("/api/me", erase("keep")).await.expect(StatusCode::NO_CONTENT);
    let events = log.news().await;
    let updated = events.iter().find(|event| event.kind == "UserUpdated").unwrap();
    assert_eq!(updated.data()["fullname"], "Former member");
}
