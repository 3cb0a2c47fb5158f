//! Guessing and hurrying, and how they are slowed down.

use std::thread::available_parallelism;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{PASSWORD, Reply, TestApp};

#[tokio::test]
async fn after_the_free_failures_every_address_is_throttled_with_or_without_an_account() {
    let app = TestApp::with(|config| config.accounts.free_failures = 3).await;
    app.user("alice").await;

    for email in ["alice@acme.test", "nobody@acme.test"] {
        for _ in 0..3 {
            let wrong = app.tries(email, "not my password").await;
            wrong.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
        }
        for password in ["not my password", PASSWORD] {
            let throttled = app.tries(&email.to_uppercase(), password).await;
            throttled.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
            assert_eq!(throttled.header("retry-after"), Some("1"));
        }
    }
}

#[tokio::test]
async fn the_right_password_works_after_the_delay_and_clears_the_count() {
    let app = TestApp::with(|config| config.accounts.free_failures = 2).await;
    app.user("alice").await;
    for _ in 0..2 {
        app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    }
    let right = app.tries("alice@acme.test", PASSWORD).await;
    right.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");

    wait(&app).await;
    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);

    for _ in 0..2 {
        app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn the_delay_doubles_up_to_a_minute() {
    let app = TestApp::with(|config| config.accounts.free_failures = 2).await;
    app.user("alice").await;
    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);

    for delay in [1, 2, 4, 8, 16, 32, 60, 60] {
        app.sql("update signin_failures set last_failed_at = now() - interval '61 s'").await;
        app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);

        let throttled = app.tries("alice@acme.test", PASSWORD).await;
        throttled.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
        let wait: u32 = throttled.header("retry-after").unwrap().parse().unwrap();
        assert!((delay - 1..=delay).contains(&wait) && wait > 0, "{wait} s instead of {delay} s");
    }
    app.sql("update signin_failures set failures = 1000000").await;
    wait(&app).await;
    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn failures_for_one_address_do_not_throttle_another() {
    let app = TestApp::with(|config| config.accounts.free_failures = 1).await;
    app.users(["alice", "bob"]).await;

    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::TOO_MANY_REQUESTS);

    app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn failed_sign_ins_and_sign_ups_from_one_address_are_counted_together() {
    let app = TestApp::with(|config| config.accounts.attempts_per_minute = 3).await;
    app.user("alice").await;
    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);
    app.tries("alice@acme.test", "not my password").await.expect(StatusCode::FORBIDDEN);

    throttled(&app.tries("alice@acme.test", PASSWORD).await);
    let bob = json!({
        "fullname": "Bob", "email": "bob@acme.test", "password": PASSWORD, "workspace": "Acme"
    });
    throttled(&app.anyone.post("/api/signup", bob).await);

    app.sql("update attempt_windows set started_at = started_at - interval '61 s'").await;
    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn successful_sign_ins_from_one_address_are_not_limited() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute = 3;
        config.accounts.attempts_per_minute_per_site = 3;
        config.accounts.attempts_per_minute_overall = 3;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    app.user("alice").await;
    let office = app.anyone.with("x-forwarded-for", "2001:db8::1");
    let right = json!({ "email": "alice@acme.test", "password": PASSWORD });

    for _ in 0..5 {
        office.post("/api/signin", right.clone()).await.expect(StatusCode::OK);
    }

    // Signing up counted once overall.
    for _ in 0..2 {
        tries_from(&app, "2001:db8::1").await.expect(StatusCode::FORBIDDEN);
    }
    throttled(&tries_from(&app, "2001:db8::1").await);
}

#[tokio::test]
async fn a_right_password_for_a_workspace_of_others_counts_as_a_failure() {
    let app = TestApp::with(|config| config.accounts.attempts_per_minute = 3).await;
    app.user("alice").await;
    let elsewhere =
        json!({ "email": "alice@acme.test", "password": PASSWORD, "workspace": "Elsewhere" });

    for _ in 0..2 {
        let refused = app.anyone.post("/api/signin", elsewhere.clone()).await;
        refused.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    }
    throttled(&app.anyone.post("/api/signin", elsewhere).await);
}

#[tokio::test]
async fn attempts_that_the_delay_of_an_e_mail_address_refuses_do_not_count_overall() {
    let app = TestApp::with(|config| {
        config.accounts.free_failures = 1;
        config.accounts.attempts_per_minute_overall = 3;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    app.user("alice").await;

    tries_from(&app, "10.0.0.1").await.expect(StatusCode::FORBIDDEN);
    // A minute's delay, so that none of them comes after it.
    app.sql("update signin_failures set failures = 100").await;
    for number in 0..20 {
        throttled(&tries_from(&app, &format!("10.0.1.{number}")).await);
    }

    app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn attempts_from_all_addresses_together_are_limited() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute_overall = 2;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;

    for address in ["10.0.0.1", "10.0.0.2"] {
        tries_from(&app, address).await.expect(StatusCode::FORBIDDEN);
    }
    throttled(&tries_from(&app, "10.0.0.3").await);
}

#[tokio::test]
async fn attempts_beyond_the_limit_of_their_address_do_not_count_overall() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute = 3;
        config.accounts.attempts_per_minute_overall = 5;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for _ in 0..3 {
        tries_from(&app, "10.0.0.1").await.expect(StatusCode::FORBIDDEN);
    }
    for _ in 0..20 {
        throttled(&tries_from(&app, "10.0.0.1").await);
    }
    tries_from(&app, "10.0.0.2").await.expect(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn attempts_from_all_networks_of_an_ipv6_site_share_one_limit() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute = 2;
        config.accounts.attempts_per_minute_per_site = 4;
        config.accounts.attempts_per_minute_overall = 6;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    // Beyond its network's share an attempt does not count for the site either.
    for number in 0..6 {
        let status = tries_from(&app, &format!("2001:db8:1:1::{number}")).await.status;
        let expected =
            if number < 2 { StatusCode::FORBIDDEN } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(status, expected);
    }
    for network in 2..4 {
        tries_from(&app, &format!("2001:db8:1:{network}::1")).await.expect(StatusCode::FORBIDDEN);
    }
    for network in 4..20 {
        throttled(&tries_from(&app, &format!("2001:db8:1:{network}::1")).await);
    }
    tries_from(&app, "2001:db8:2:1::1").await.expect(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_rate_limit_of_an_address_applies_before_attempts_are_counted() {
    let app = TestApp::with(|config| {
        config.http.requests_per_second = 1;
        config.http.burst = 4;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for number in 0..20 {
        let reply = tries_from(&app, "10.0.0.1").await;
        if number > 5 {
            throttled(&reply);
        }
    }
    let counted: i32 = sqlx::query_scalar(
        "select attempts from attempt_windows where bucket = 'address 10.0.0.1'",
    )
    .fetch_one(&app.db)
    .await
    .unwrap();
    assert!(counted <= 6, "{counted}");
    tries_from(&app, "10.0.0.2").await.expect(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_forwarded_address_of_a_trusted_proxy_is_used() {
    let app = TestApp::with(|config| {
        config.accounts.attempts_per_minute = 1;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;

    tries_from(&app, "10.0.0.1").await.expect(StatusCode::FORBIDDEN);
    throttled(&tries_from(&app, "10.0.0.1").await);
    throttled(&tries_from(&app, "6.6.6.6, 10.0.0.1").await);
    tries_from(&app, "10.0.0.2").await.expect(StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_forwarded_address_of_any_other_client_is_ignored() {
    let app = TestApp::with(|config| config.accounts.attempts_per_minute = 1).await;

    tries_from(&app, "10.0.0.1").await.expect(StatusCode::FORBIDDEN);
    throttled(&tries_from(&app, "10.0.0.2").await);
}

#[tokio::test]
async fn the_rate_limit_of_one_person_does_not_affect_another() {
    let app = TestApp::with(|config| {
        config.http.requests_per_second = 1;
        config.http.burst = 8;
    })
    .await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    let mut refused = None;
    for _ in 0..12 {
        let reply = alice.get("/api/me").await;
        if reply.status != StatusCode::OK {
            throttled(&reply);
            refused = Some(reply);
        }
    }
    assert!(refused.is_some());
    bob.get("/api/me").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn sign_ins_beyond_the_capacity_for_hashing_get_503() {
    let app = TestApp::start().await;
    let crowd = 20 * available_parallelism().unwrap().get();

    let replies = join_all((0..crowd).map(|_| app.tries("nobody@acme.test", PASSWORD))).await;

    let put_off = replies.iter().filter(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE);
    assert!((1..crowd).contains(&put_off.count()));
    for reply in replies {
        match reply.status {
            StatusCode::FORBIDDEN => reply.refuses(reply.status, "invalid_credentials"),
            _ => reply.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
    }
}

async fn tries_from(app: &TestApp, addresses: &str) -> Reply {
    let client = app.anyone.with("x-forwarded-for", addresses);
    let credentials = json!({ "email": "nobody@acme.test", "password": PASSWORD });
    client.post("/api/signin", credentials).await
}

/// Lets the longest delay pass.
async fn wait(app: &TestApp) {
    app.sql("update signin_failures set last_failed_at = last_failed_at - interval '61 s'").await;
}

#[track_caller]
fn throttled(reply: &Reply) {
    reply.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}
