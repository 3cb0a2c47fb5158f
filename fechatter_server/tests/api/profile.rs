//! Changes of one's own account: name, title, password, e-mail address.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, PASSWORD, Person, TestApp};

const NEW_PASSWORD: &str = "another horse battery staple";

async fn signs_in(app: &TestApp, email: &str, password: &str) -> StatusCode {
    app.tries(email, password).await.status
}

#[tokio::test]
async fn a_person_changes_their_name_and_title_in_the_workspace() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let single = bob.opens_single_with(&alice).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let request = json!({ "fullname": " Alice Cooper ", "title": "Cook" });
    let changed = alice.patch("/api/me", request).await.expect(StatusCode::OK);

    assert_eq!((&changed["fullname"], &changed["title"]), (&json!("Alice Cooper"), &json!("Cook")));
    assert_eq!(alice.get("/api/me").await.expect(StatusCode::OK), changed);
    let event = Log::only(log.news().await, "UserUpdated");
    assert_eq!((event.chat_id, event.user_id), (None, None));
    assert_eq!(event.data(), changed);
    assert_eq!(bob.sidebar(&single).await["name"], "Alice Cooper");
    let found = bob.get("/api/users?q=coop").await.expect(StatusCode::OK);
    assert_eq!(found, json!([changed]));

    let cleared = alice.patch("/api/me", json!({ "title": null })).await.expect(StatusCode::OK);
    assert_eq!((&cleared["fullname"], &cleared["title"]), (&json!("Alice Cooper"), &Value::Null));
    log.news().await;
    for same in [json!({}), json!({ "title": "" }), json!({ "fullname": "Alice Cooper" })] {
        assert_eq!(alice.patch("/api/me", same).await.expect(StatusCode::OK), cleared);
    }
    assert!(log.news().await.is_empty());
    for bad in [
        json!({ "fullname": "" }),
        json!({ "fullname": null }),
        json!({ "fullname": "x".repeat(51) }),
        json!({ "title": "x".repeat(101) }),
        json!({ "title": "a\nb" }),
        json!({ "email": "x@acme.test" }),
    ] {
        alice.patch("/api/me", bad).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_name_belongs_to_the_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let founded = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    let id = &founded.expect(StatusCode::CREATED)["id"];
    let there = alice.post(&format!("/api/workspaces/{id}/switch"), NOTHING).await;
    let there = Person::signed_in(&app.anyone, &there.expect(StatusCode::OK));

    there.patch("/api/me", json!({ "fullname": "Al" })).await.expect(StatusCode::OK);

    assert_eq!(there.get("/api/me").await.expect(StatusCode::OK)["fullname"], "Al");
    assert_eq!(alice.get("/api/me").await.expect(StatusCode::OK)["fullname"], "alice");
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions_everywhere() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let elsewhere = app.signs_in(&alice).await;
    let founded = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    let other_id = founded.expect(StatusCode::CREATED)["id"].as_i64().unwrap();
    let mut logs = [app.log_of(alice.workspace_id).await, app.log_of(other_id).await];

    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
    alice.post("/api/me/password", change.clone()).await.expect(StatusCode::NO_CONTENT);

    for log in &mut logs {
        let event = Log::only(log.news().await, "SessionRevoked");
        assert_eq!(event.data()["session_ids"], json!([elsewhere.session_id]));
    }
    elsewhere.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    alice.get("/api/me").await.expect(StatusCode::OK);
    assert_eq!(signs_in(&app, "alice@acme.test", PASSWORD).await, StatusCode::FORBIDDEN);
    assert_eq!(signs_in(&app, "alice@acme.test", NEW_PASSWORD).await, StatusCode::OK);
    let again = alice.post("/api/me/password", change).await;
    again.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
}

#[tokio::test]
async fn a_new_password_needs_the_current_one_and_must_be_good() {
    let app = TestApp::with(|config| config.accounts.refuse_common_passwords = true).await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    let change = async |current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        alice.post("/api/me/password", body).await
    };

    change("wrong password", NEW_PASSWORD)
        .await
        .refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    change("\0", NEW_PASSWORD).await.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    for weak in ["short", "password1"] {
        change(PASSWORD, weak).await.refuses(StatusCode::BAD_REQUEST, "weak_password");
    }
    let long = "x".repeat(129);
    change(PASSWORD, &long).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn wrong_passwords_of_a_session_delay_only_that_session() {
    let app = TestApp::with(|config| config.accounts.free_failures = 2).await;
    let alice = app.user("alice").await;
    let change = async |current: &str| {
        let body = json!({ "current_password": current, "new_password": NEW_PASSWORD });
        alice.post("/api/me/password", body).await
    };
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(change("wrong password").await.status);
    }
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    change(PASSWORD).await.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    assert_eq!(signs_in(&app, "alice@acme.test", PASSWORD).await, StatusCode::OK);
}

#[tokio::test]
async fn a_new_address_is_used_from_then_on_and_in_all_workspaces() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let elsewhere = app.signs_in(&alice).await;
    let founded = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    let other_id = founded.expect(StatusCode::CREATED)["id"].as_i64().unwrap();
    let mut logs = [app.log_of(alice.workspace_id).await, app.log_of(other_id).await];

    let change = json!({ "email": "Cooper@acme.test", "password": PASSWORD });
    let changed = alice.post("/api/me/email", change.clone()).await.expect(StatusCode::OK);

    assert_eq!(changed["email"], "Cooper@acme.test");
    for log in &mut logs {
        assert_eq!(log.kinds().await, ["UserUpdated", "SessionRevoked"]);
    }
    elsewhere.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(signs_in(&app, "alice@acme.test", PASSWORD).await, StatusCode::FORBIDDEN);
    assert_eq!(signs_in(&app, "cooper@acme.test", PASSWORD).await, StatusCode::OK);
    let found = bob.get("/api/users?q=cooper@").await.expect(StatusCode::OK);
    assert_eq!(found[0]["id"], alice.id);
    assert_eq!(bob.get("/api/users?q=alice@").await.expect(StatusCode::OK), json!([]));
    // The same address changes nothing.
    let before = app.state().await;
    alice.post("/api/me/email", change).await.expect(StatusCode::OK);
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn an_address_is_taken_once_and_needs_the_password() {
    let app = TestApp::start().await;
    let [alice, _bob] = app.users(["alice", "bob"]).await;
    let before = app.state().await;
    let change = async |email: &str, password: &str| {
        alice.post("/api/me/email", json!({ "email": email, "password": password })).await
    };

    change("BOB@acme.test", PASSWORD).await.refuses(StatusCode::CONFLICT, "email_taken");
    change("new@acme.test", "wrong password")
        .await
        .refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    change("no address", PASSWORD).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    assert_eq!(app.state().await, before);
}
