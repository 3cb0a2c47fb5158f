//! `GET /api/sync`: state and cursor of one moment.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::TestApp;

#[tokio::test]
async fn a_sync_equals_the_separate_calls_and_has_the_position_of_the_log() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    mallory.creates_public_channel("evil").await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    bob.opens_single_with(&alice).await;
    carol.creates_private_channel("secret", []).await;
    alice.sends(&chat, "Noodles?").await;

    let synced = bob.get("/api/sync").await.expect(StatusCode::OK);

    let mut fields: Vec<_> = synced.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(
        fields,
        ["chats", "cursor", "me", "preferences", "server_time", "users", "workspace"]
    );
    for (field, path) in [
        ("me", "/api/me"),
        ("workspace", "/api/workspace"),
        ("preferences", "/api/me/preferences"),
        ("chats", "/api/chat"),
        ("users", "/api/users"),
    ] {
        assert_eq!(synced[field], bob.get(path).await.expect(StatusCode::OK), "{path}");
    }
    assert_eq!(synced["chats"].as_array().unwrap().len(), 2);
    assert_eq!(synced["cursor"], head(&app, bob.workspace_id).await);
}

#[tokio::test]
async fn a_sync_can_omit_the_people() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let without = alice.get("/api/sync?users=false").await.expect(StatusCode::OK);
    assert_eq!(without.get("users"), None);
    assert_eq!(without["me"]["id"], alice.id);
    assert_eq!(without["chats"], json!([]));
    let with = alice.get("/api/sync?users=true").await.expect(StatusCode::OK);
    assert_eq!(with["users"].as_array().unwrap().len(), 1);
    let refused = alice.get("/api/sync?users=maybe").await;
    refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

#[tokio::test]
async fn a_sync_has_all_people_of_a_large_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    app.extras(alice.workspace_id, 9_999).await;

    let synced = alice.get("/api/sync").await.expect(StatusCode::OK);

    assert_eq!(synced["users"].as_array().unwrap().len(), 10_000);
}

/// The cursor of the log's newest event.
async fn head(app: &TestApp, workspace_id: i64) -> Value {
    let cursor: String = sqlx::query_scalar(
        "select lpad(to_hex(stamp), 8, '0') || '-' || position
         from events
         where workspace_id = $1
         order by position desc
         limit 1",
    )
    .bind(workspace_id)
    .fetch_one(&app.db)
    .await
    .unwrap();
    cursor.into()
}

#[tokio::test]
async fn a_sync_names_only_the_people_of_the_list_of_chats_if_asked_to() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let [dave, erin] = app.users(["dave", "erin"]).await;
    alice.opens_single_with(&bob).await;
    let chat = alice.creates_group("Lunch", [&carol, &dave]).await;
    carol.sends(&chat, "first").await;
    dave.sends(&chat, "last").await;
    let people = async |query: &str| {
        let sync = alice.get(&format!("/api/sync{query}")).await.expect(StatusCode::OK);
        let people = sync.get("users").map(|users| users.as_array().unwrap().clone());
        people.map(|all| all.iter().map(|one| one["id"].as_i64().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(people("?users=sidebar").await, Some(vec![alice.id, bob.id, dave.id]));
    assert_eq!(people("?users=false").await, None);
    let all = vec![alice.id, bob.id, carol.id, dave.id, erin.id];
    assert_eq!(people("?users=true").await, Some(all));
    alice.get("/api/sync?users=x").await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}
