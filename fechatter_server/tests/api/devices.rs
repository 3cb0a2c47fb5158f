//! Devices that have signed in to an account before: strangers cannot keep the owner out there.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, PASSWORD, Reply, TestApp};

/// Tries to sign in as Alice, with the token of a device.
async fn tries_with(client: &Client, password: &str, token: &Value) -> Reply {
    let email = "alice@acme.test";
    client
        .post("/api/signin", json!({ "email": email, "password": password, "device_token": token }))
        .await
}

fn cookies_of(reply: &Reply) -> Vec<String> {
    let values = reply.headers.get_all("set-cookie").iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn device_cookie(reply: &Reply) -> String {
    let cookies = cookies_of(reply);
    let cookie = cookies.iter().find_map(|cookie| cookie.strip_prefix("device="));
    cookie.unwrap_or_else(|| panic!("{cookies:?}")).to_owned()
}

#[tokio::test]
async fn a_sign_up_or_sign_in_returns_a_device_token_and_a_cookie() {
    let app = TestApp::with(|config| config.signing.secure_cookie = true).await;
    let alice = app.user("alice").await;
    let reply = app.tries("alice@acme.test", PASSWORD).await;
    let body = reply.expect(StatusCode::OK);

    let cookie = device_cookie(&reply);
    let (value, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(body["device_token"], value);
    let mut attributes: Vec<_> = attributes.split("; ").map(str::to_lowercase).collect();
    attributes.sort();
    let expected =
        ["httponly", "max-age=15552000", "path=/api/signin", "samesite=strict", "secure"];
    assert_eq!(attributes, expected);

    let refreshed =
        app.anyone.with_token(&alice.refresh_token).post("/api/refresh", Value::Null).await;
    assert_eq!(refreshed.expect(StatusCode::OK).get("device_token"), None);
    assert!(cookies_of(&refreshed).iter().all(|cookie| !cookie.starts_with("device=")));
}

#[tokio::test]
async fn wrong_passwords_of_strangers_do_not_block_a_known_device() {
    let app = TestApp::with(|config| config.accounts.free_failures = 1).await;
    app.user("alice").await;
    let first = app.tries("alice@acme.test", PASSWORD).await;
    let token = first.expect(StatusCode::OK)["device_token"].clone();
    let browser = app.anyone.with("cookie", &format!("device={}", token.as_str().unwrap()));

    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    // So many that the delay is a minute.
    app.sql("update signin_failures set failures = 10").await;
    let stranger = app.tries("alice@acme.test", PASSWORD).await;
    stranger.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");

    for _ in 0..3 {
        tries_with(&app.anyone, PASSWORD, &token).await.expect(StatusCode::OK);
        tries_with(&browser, PASSWORD, &Value::Null).await.expect(StatusCode::OK);
    }
    // Nor does it set the strangers free.
    let stranger = app.tries("alice@acme.test", PASSWORD).await;
    stranger.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn a_known_device_is_not_counted_with_its_address_or_with_all_others() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute = 2;
        config.accounts.attempts_per_minute_overall = 2;
    })
    .await;
    let alice = app.anyone.post(
        "/api/signup",
        json!({ "fullname": "Alice", "email": "alice@acme.test", "password": PASSWORD, "workspace": "Acme" }),
    );
    let token = alice.await.expect(StatusCode::CREATED)["device_token"].clone();
    app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::FORBIDDEN);
    app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::TOO_MANY_REQUESTS);

    tries_with(&app.anyone, PASSWORD, &token).await.expect(StatusCode::OK);
    // It has a limit of its own.
    for _ in 0..2 {
        tries_with(&app.anyone, "not my password", &token).await.expect(StatusCode::FORBIDDEN);
    }
    let third = tries_with(&app.anyone, PASSWORD, &token).await;
    third.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn wrong_passwords_from_a_known_device_are_throttled() {
    let app = TestApp::with(|config| config.accounts.free_failures = 2).await;
    app.user("alice").await;
    let first = app.tries("alice@acme.test", PASSWORD).await;
    let token = first.expect(StatusCode::OK)["device_token"].clone();

    for _ in 0..2 {
        let wrong = tries_with(&app.anyone, "not my password", &token).await;
        wrong.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    }
    let throttled = tries_with(&app.anyone, PASSWORD, &token).await;
    throttled.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    // They are not held against anybody else.
    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_device_token_is_of_no_use_for_another_account_or_after_a_new_password() {
    let app = TestApp::with(|config| config.accounts.free_failures = 1).await;
    app.users(["alice", "bob"]).await;
    let bobs = app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::OK);
    let alices = app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    // So many that the delay is a minute.
    app.sql("update signin_failures set failures = 10").await;

    let refused = tries_with(&app.anyone, PASSWORD, &bobs["device_token"]).await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    tries_with(&app.anyone, PASSWORD, &alices["device_token"]).await.expect(StatusCode::OK);

    app.sql(
        "update users set password_hash = (select password_hash from users where email_key = 'bob@acme.test')
         where email_key = 'alice@acme.test'",
    )
    .await;
    let refused = tries_with(&app.anyone, PASSWORD, &alices["device_token"]).await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn an_invalid_device_token_is_ignored() {
    let app = TestApp::start().await;
    app.user("alice").await;
    for token in ["", ".", "nonsense", &"A".repeat(96), &"\u{e9}".repeat(10)] {
        tries_with(&app.anyone, PASSWORD, &token.into()).await.expect(StatusCode::OK);
    }
    let browser = app.anyone.with("cookie", "device=a.b.c.d.e.f.g.h");
    tries_with(&browser, PASSWORD, &Value::Null).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_browser_of_two_accounts_is_known_to_both() {
    let app = TestApp::with(|config| config.accounts.free_failures = 1).await;
    app.users(["alice", "bob"]).await;
    let alices = device_cookie(&app.tries("alice@acme.test", PASSWORD).await);
    let alices = alices.split(';').next().unwrap().to_owned();
    let browser = app.anyone.with("cookie", &format!("device={alices}"));
    let bob = json!({ "email": "bob@acme.test", "password": PASSWORD });
    let both = device_cookie(&browser.post("/api/signin", bob).await);
    let browser = app.anyone.with("cookie", &format!("device={}", both.split(';').next().unwrap()));

    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    app.tries("bob@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    for email in ["alice@acme.test", "bob@acme.test"] {
        let credentials = json!({ "email": email, "password": PASSWORD });
        browser.post("/api/signin", credentials).await.expect(StatusCode::OK);
    }
}
