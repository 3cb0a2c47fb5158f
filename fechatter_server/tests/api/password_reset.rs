//! Links with which people set a new password.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, PASSWORD, Person, TestApp};

const NEW_PASSWORD: &str = "another horse battery staple";

async fn creates_link(owner: &Person, person: &Person) -> String {
    let path = format!("/api/users/{}/reset-link", person.id);
    let link = owner.post(&path, NOTHING).await.expect(StatusCode::CREATED);
    let (url, token) = link["url"].as_str().unwrap().split_once("/reset#").unwrap();
    assert!(url.starts_with("http"), "{url}");
    token.to_owned()
}

fn reset(token: &str, password: &str) -> Value {
    json!({ "token": token, "new_password": password })
}

const CONFIRM: &str = "/api/password-reset/confirm";

#[tokio::test]
async fn a_link_sets_a_new_password_once_and_ends_all_sessions() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let elsewhere = app.signs_in(&bob).await;
    let mut log = app.log_of(alice.workspace_id).await;
    let token = creates_link(&alice, &bob).await;
    assert!(log.news().await.is_empty());

    let anyone = &app.anyone;
    anyone.post(CONFIRM, reset(&token, NEW_PASSWORD)).await.expect(StatusCode::NO_CONTENT);

    let event = Log::only(log.news().await, "SessionRevoked").data();
    assert_eq!(event["session_ids"].as_array().unwrap().len(), 2);
    for session in [&bob, &elsewhere] {
        session.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    alice.get("/api/me").await.expect(StatusCode::OK);
    app.tries("bob@acme.test", PASSWORD)
        .await
        .refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    app.tries("bob@acme.test", NEW_PASSWORD).await.expect(StatusCode::OK);
    let again = anyone.post(CONFIRM, reset(&token, PASSWORD)).await;
    again.refuses(StatusCode::NOT_FOUND, "token_invalid");
}

#[tokio::test]
async fn a_link_ends_after_an_hour_with_a_newer_one_and_with_a_new_password() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let refused = async |token: &str| {
        let reply = app.anyone.post(CONFIRM, reset(token, NEW_PASSWORD)).await;
        reply.refuses(StatusCode::NOT_FOUND, "token_invalid");
    };

    let older = creates_link(&alice, &bob).await;
    let newer = creates_link(&alice, &bob).await;
    refused(&older).await;
    let change = json!({ "current_password": PASSWORD, "new_password": PASSWORD });
    bob.post("/api/me/password", change).await.expect(StatusCode::NO_CONTENT);
    refused(&newer).await;
    let old = creates_link(&alice, &bob).await;
    app.sql("update password_resets set expires_at = expires_at - interval '61 minutes'").await;
    refused(&old).await;
    for absent in ["", "x", "\0", &"x".repeat(10_000)] {
        refused(absent).await;
    }
}

#[tokio::test]
async fn a_refused_password_leaves_the_link_as_it_was() {
    let app = TestApp::with(|config| config.accounts.refuse_common_passwords = true).await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let token = creates_link(&alice, &bob).await;
    for (weak, kind) in [("short", "weak_password"), ("password1", "weak_password")] {
        let reply = app.anyone.post(CONFIRM, reset(&token, weak)).await;
        reply.refuses(StatusCode::BAD_REQUEST, kind);
    }
    bob.get("/api/me").await.expect(StatusCode::OK);
    app.anyone.post(CONFIRM, reset(&token, NEW_PASSWORD)).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_link_forgives_the_failed_sign_ins_before_it() {
    let app = TestApp::with(|config| config.accounts.free_failures = 1).await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    for _ in 0..2 {
        app.tries("bob@acme.test", "not the password").await;
    }
    app.tries("bob@acme.test", PASSWORD)
        .await
        .refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    let token = creates_link(&alice, &bob).await;
    app.anyone.post(CONFIRM, reset(&token, NEW_PASSWORD)).await.expect(StatusCode::NO_CONTENT);
    app.tries("bob@acme.test", NEW_PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn owners_create_links_for_everybody_else_and_admins_for_members() {
    let app = TestApp::start().await;
    let [owner, admin, other_admin, member] =
        app.users(["owner", "admin", "other", "member"]).await;
    for person in [&admin, &other_admin] {
        let path = format!("/api/users/{}", person.id);
        owner.patch(&path, json!({ "role": "admin" })).await.expect(StatusCode::OK);
    }
    creates_link(&owner, &admin).await;
    creates_link(&admin, &member).await;
    let before = app.state().await;
    for (caller, person) in [
        (&admin, &other_admin),
        (&admin, &owner),
        (&member, &admin),
        // A stolen session must not open the account.
        (&owner, &owner),
        (&member, &member),
    ] {
        let reply = caller.post(&format!("/api/users/{}/reset-link", person.id), NOTHING).await;
        reply.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn no_workspace_opens_an_account_that_is_in_another_one_too() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let founded = bob.post("/api/workspaces", json!({ "name": "Side" })).await;
    founded.expect(StatusCode::CREATED);
    let reply = alice.post(&format!("/api/users/{}/reset-link", bob.id), NOTHING).await;
    reply.refuses(StatusCode::CONFLICT, "shared_account");
}

#[tokio::test]
async fn only_the_digest_of_a_link_is_stored() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let token = creates_link(&alice, &bob).await;
    assert!(!format!("{:?}", app.state().await).contains(&token));
}
