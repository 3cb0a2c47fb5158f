//! Preferences: for a chat, and what clients store.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, TestApp};

#[tokio::test]
async fn a_person_mutes_and_pins_chats_for_themselves() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let me = format!("{}/me", chat.path);
    let mut log = app.log_of(alice.workspace_id).await;

    let until = "2030-01-02T03:04:05.678Z";
    let choice = json!({ "notify_level": "mentions", "muted_until": until, "pinned": true });
    let chosen = bob.patch(&me, choice.clone()).await.expect(StatusCode::OK);

    assert_eq!(chosen["notify_level"], "mentions");
    assert_eq!(chosen["muted_until"], until);
    assert!(chosen["pinned_at"].is_string());
    assert_eq!(bob.sidebar(&chat).await, chosen);
    let others = alice.sidebar(&chat).await;
    assert_eq!((&others["notify_level"], &others["pinned_at"]), (&json!("all"), &Value::Null));
    let event = Log::only(log.news().await, "ChatPreferencesUpdated");
    assert_eq!((event.chat_id, event.user_id), (None, Some(bob.id)));
    let told = json!({
        "chat_id": chat.id, "notify_level": "mentions", "muted_until": until,
        "pinned_at": chosen["pinned_at"],
    });
    assert_eq!(event.data(), told);

    // The same again, and nothing at all, change nothing.
    for same in [choice, json!({})] {
        assert_eq!(bob.patch(&me, same).await.expect(StatusCode::OK), chosen);
    }
    assert!(log.news().await.is_empty());
    let cleared = json!({ "muted_until": null, "pinned": false });
    let cleared = bob.patch(&me, cleared).await.expect(StatusCode::OK);
    assert_eq!((&cleared["muted_until"], &cleared["pinned_at"]), (&Value::Null, &Value::Null));
    assert_eq!(cleared["notify_level"], "mentions");
}

#[tokio::test]
async fn pinned_chats_come_first_and_within_each_part_the_latest_activity() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mut chats = Vec::new();
    for name in ["one", "two", "three", "four"] {
        chats.push(alice.creates_private_channel(name, [&bob]).await);
    }
    let names = async || {
        let listed = bob.get("/api/chat").await.expect(StatusCode::OK);
        let listed = listed.as_array().unwrap().clone();
        listed.iter().map(|chat| chat["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["four", "three", "two", "one"]);
    for chat in [&chats[0], &chats[1]] {
        bob.patch(&format!("{}/me", chat.path), json!({ "pinned": true }))
            .await
            .expect(StatusCode::OK);
    }
    assert_eq!(names().await, ["two", "one", "four", "three"]);
    alice.sends(&chats[0], "x").await;
    alice.sends(&chats[2], "x").await;
    assert_eq!(names().await, ["one", "two", "three", "four"]);
    // A system message is no activity.
    alice.patch(&chats[1].path, json!({ "name": "2" })).await.expect(StatusCode::OK);
    assert_eq!(names().await, ["one", "2", "three", "four"]);
}

#[tokio::test]
async fn preferences_for_a_chat_are_checked() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let me = format!("{}/me", chat.path);
    for bad in [
        json!({ "notify_level": "loud" }),
        json!({ "notify_level": null }),
        json!({ "muted_until": "tomorrow" }),
        json!({ "pinned": null }),
        json!({ "pinned_at": "2030-01-02T03:04:05Z" }),
    ] {
        alice.patch(&me, bad).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let stranger = bob.patch(&me, json!({ "pinned": true })).await;
    stranger.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn clients_store_an_object_key_by_key() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let path = "/api/me/preferences";
    let mut log = app.log_of(alice.workspace_id).await;
    assert_eq!(alice.get(path).await.expect(StatusCode::OK), json!({}));

    let first = json!({ "theme": "dark", "folds": { "a": [1, 2.5, null, "\u{1f642}"] } });
    assert_eq!(alice.patch(path, first.clone()).await.expect(StatusCode::OK), first);
    let event = Log::only(log.news().await, "PreferencesUpdated");
    assert_eq!((event.chat_id, event.user_id), (None, Some(alice.id)));
    assert_eq!(event.data(), json!({ "preferences": first }));
    let second = json!({ "theme": null, "folds": { "b": null }, "n": 1 });
    let merged = json!({ "folds": { "b": null }, "n": 1 });
    assert_eq!(alice.patch(path, second.clone()).await.expect(StatusCode::OK), merged);
    log.news().await;
    assert_eq!(alice.patch(path, second).await.expect(StatusCode::OK), merged);
    assert!(log.news().await.is_empty());
    assert_eq!(alice.get(path).await.expect(StatusCode::OK), merged);
    assert_eq!(alice.get("/api/sync").await.expect(StatusCode::OK)["preferences"], merged);
    assert_eq!(bob.get(path).await.expect(StatusCode::OK), json!({}));
}

#[tokio::test]
async fn clients_store_at_most_eight_kibibytes() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let path = "/api/me/preferences";
    let long = |key: &str, length: usize| json!({ key: "x".repeat(length) });
    alice.patch(path, long("a", 4_000)).await.expect(StatusCode::OK);
    let kept = alice.patch(path, long("b", 4_000)).await.expect(StatusCode::OK);
    let too_large = alice.patch(path, long("c", 1_000)).await;
    too_large.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    assert_eq!(alice.get(path).await.expect(StatusCode::OK), kept);
    for bad in [json!({ "a": "\0" }), json!({ "a\0": 1 }), json!({ "a": [{ "b": "\0" }] })] {
        alice.patch(path, bad).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}
