//! Refresh tokens, their rotation and their end.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, NOTHING, Person, Reply, TestApp};

#[tokio::test]
async fn a_refresh_by_cookie_or_bearer_returns_a_new_pair_of_tokens() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let me = alice.get("/api/me").await.expect(StatusCode::OK);

    let mut current = alice.refresh_token.clone();
    for with in [Client::with_cookie, Client::with_token] {
        let refreshing = with(&app.anyone, &current);
        let auth = refreshing.post("/api/refresh", NOTHING).await.expect(StatusCode::OK);

        assert_eq!(auth["user"], me);
        assert_eq!(auth["session_id"], alice.session_id);
        assert_eq!(auth["expires_in"], 900);
        assert_ne!(auth["refresh_token"], current);
        assert_ne!(auth["access_token"], alice.token);
        let renewed = Person::signed_in(&app.anyone, &auth);
        renewed.get("/api/me").await.expect(StatusCode::OK);
        current = renewed.refresh_token;
    }
}

#[tokio::test]
async fn the_cookie_comes_before_the_bearer_token() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let both = app.anyone.with_token("nonsense").with_cookie(&alice.refresh_token);

    both.post("/api/refresh", NOTHING).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn an_invalid_refresh_token_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;

    let missing = app.anyone.post("/api/refresh", NOTHING).await;
    missing.refuses(StatusCode::UNAUTHORIZED, "refresh_missing");
    let forged = |place: usize| {
        let mut token = alice.refresh_token.clone().into_bytes();
        token[place] = if token[place] == b'A' { b'B' } else { b'A' };
        String::from_utf8(token).unwrap()
    };
    let (id, mac) = (forged(5), forged(alice.refresh_token.len() - 5));
    let longer = format!("{}A", alice.refresh_token);
    for token in ["nonsense", &alice.token, &id, &mac, &longer] {
        refused(&refresh(&app, token).await, "refresh_invalid");
        let by_cookie = app.anyone.with_cookie(token).post("/api/refresh", NOTHING).await;
        refused(&by_cookie, "refresh_invalid");
    }

    assert_eq!(app.state().await, before);
    refresh(&app, &alice.refresh_token).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_token_is_accepted_only_for_refreshing_and_signing_out() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let by_bearer = app.anyone.with_token(&alice.refresh_token).get("/api/me").await;
    by_bearer.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    let by_cookie = app.anyone.with_cookie(&alice.refresh_token).get("/api/me").await;
    by_cookie.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn the_direct_predecessor_gets_the_same_successor_for_30_seconds() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let first = refreshed(&app, &alice.refresh_token).await;

    app.ages_sessions_of(&alice, "28 s").await;
    let again = refreshed(&app, &alice.refresh_token).await;

    assert_eq!(again, first);
    refresh(&app, &first).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn after_30_seconds_the_predecessor_ends_the_session() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let current = refreshed(&app, &alice.refresh_token).await;
    app.ages_sessions_of(&alice, "31 s").await;
    let mut log = app.log_of(alice.workspace_id).await;

    refused(&refresh(&app, &alice.refresh_token).await, "refresh_reused");

    refresh(&app, &current).await.expect(StatusCode::UNAUTHORIZED);
    alice.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(log.kinds().await, ["SessionRevoked"]);
}

#[tokio::test]
async fn an_older_token_ends_the_session_at_once() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let other = app.signs_in(&alice).await;
    let second = refreshed(&app, &alice.refresh_token).await;
    let third = refreshed(&app, &second).await;

    refused(&refresh(&app, &alice.refresh_token).await, "refresh_reused");

    for token in [&alice.refresh_token, &second, &third] {
        refresh(&app, token).await.expect(StatusCode::UNAUTHORIZED);
    }
    alice.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    other.get("/api/me").await.expect(StatusCode::OK);
    refresh(&app, &other.refresh_token).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn refreshing_in_many_tabs_at_once_does_not_end_the_session() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let mut current = alice.refresh_token.clone();
    for _ in 0..3 {
        let tabs = join_all((0..8).map(|_| refreshed(&app, &current))).await;
        assert!(tabs.iter().all(|token| *token == tabs[0]));
        assert_ne!(tabs[0], current);
        current.clone_from(&tabs[0]);
    }
}

#[tokio::test]
async fn a_session_ends_after_14_days_without_use() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    app.ages_sessions_of(&alice, "13 days 23 hours").await;
    let current = refreshed(&app, &alice.refresh_token).await;
    app.ages_sessions_of(&alice, "14 days 1 minute").await;

    refused(&refresh(&app, &current).await, "refresh_invalid");
}

#[tokio::test]
async fn a_session_ends_after_30_days_however_much_it_is_used() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let days = "select (extract(epoch from expires_at - created_at) / 86400)::float8
                from sessions";
    let current = refreshed(&app, &alice.refresh_token).await;
    let lasts: f64 = sqlx::query_scalar(days).fetch_one(&app.db).await.unwrap();
    assert!((lasts - 30.0).abs() < 0.01, "{lasts} days, refreshed or not");

    app.sql("update sessions set expires_at = clock_timestamp() - interval '1 s'").await;

    refused(&refresh(&app, &current).await, "refresh_invalid");
}

#[tokio::test]
async fn the_cookie_is_only_for_the_api_and_unreadable_for_scripts() {
    for secure in [false, true] {
        let app = TestApp::with(|config| config.signing.secure_cookie = secure).await;
        let alice = app.user("alice").await;
        let signed_in = app.tries(&alice.email, crate::harness::PASSWORD).await;
        let refreshed = refresh(&app, &alice.refresh_token).await;

        for reply in [signed_in, refreshed] {
            let token = reply.expect(StatusCode::OK)["refresh_token"].clone();
            let (value, attributes) = cookie(&reply);
            assert_eq!(value, token.as_str().unwrap());
            for attribute in ["httponly", "samesite=strict", "path=/api"] {
                assert!(attributes.contains(&attribute.to_owned()), "{attributes:?}");
            }
            assert_eq!(attributes.contains(&"secure".to_owned()), secure);
            assert!(!attributes.iter().any(|one| one.starts_with("domain")));
        }
    }
}

#[tokio::test]
async fn the_cookie_is_refused_on_requests_from_other_sites() {
    let app = TestApp::with(|config| {
        config.server.public_url = "http://chat.acme.test".into();
        config.http.allowed_origins = vec!["https://desk.acme.test".into()];
    })
    .await;
    let alice = app.user("alice").await;
    let browser = app.anyone.with_cookie(&alice.refresh_token);
    let before = app.state().await;

    for (header, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "nonsense"),
        ("origin", "https://evil.test"),
        ("origin", "http://chat.acme.test.evil.test"),
        ("origin", "https://chat.acme.test"),
        ("origin", "null"),
    ] {
        for path in ["/api/refresh", "/api/logout"] {
            let forged = browser.with(header, value).post(path, NOTHING).await;
            forged.refuses(StatusCode::FORBIDDEN, "cross_site");
        }
    }
    let mixed = browser.with("sec-fetch-site", "same-origin").with("origin", "https://evil.test");
    mixed.post("/api/refresh", NOTHING).await.refuses(StatusCode::FORBIDDEN, "cross_site");
    assert_eq!(app.state().await, before);

    for (header, value) in [
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
        ("origin", "http://chat.acme.test"),
        ("origin", "https://desk.acme.test"),
    ] {
        let ours = browser.with(header, value).post("/api/refresh", NOTHING).await;
        ours.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_bearer_token_is_accepted_from_any_site() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let app_of_hers = app.anyone.with_token(&alice.refresh_token).with("origin", "app://desk");

    app_of_hers.post("/api/refresh", NOTHING).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_chooses_the_named_or_the_last_used_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let bobs = app.user_in("bob", "Bobs").await.workspace_id;
    let join = alice.post("/api/workspaces/join", json!({ "name": "Bobs" })).await;
    join.expect(StatusCode::CREATED);

    let mut current = alice.refresh_token.clone();
    for (query, workspace) in [
        (format!("?workspace_id={bobs}"), bobs),
        (String::new(), bobs),
        (format!("?workspace_id={}", alice.workspace_id), alice.workspace_id),
        (String::new(), alice.workspace_id),
    ] {
        let refreshing = app.anyone.with_token(&current);
        let reply = refreshing.post(&format!("/api/refresh{query}"), NOTHING).await;
        let auth = reply.expect(StatusCode::OK);
        assert_eq!(auth["workspace"]["id"], workspace, "{query}");
        assert_eq!(auth["user"]["workspace_id"], workspace, "{query}");
        current = auth["refresh_token"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn a_refresh_for_another_persons_workspace_is_refused_without_effect() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let before = app.state().await;

    for workspace in [mallory.workspace_id, 999] {
        let path = format!("/api/refresh?workspace_id={workspace}");
        let refused = app.anyone.with_token(&alice.refresh_token).post(&path, NOTHING).await;
        assert!(refused.status.is_client_error(), "{}", refused.text);
    }

    assert_eq!(app.state().await, before);
    refresh(&app, &alice.refresh_token).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn signing_out_ends_the_session_of_any_token() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for way in 0..3 {
        let here = app.signs_in(&alice).await;
        let client = match way {
            0 => app.anyone.with_token(&here.token),
            1 => app.anyone.with_token(&here.refresh_token),
            _ => app.anyone.with_cookie(&here.refresh_token),
        };
        let mut log = app.log_of(alice.workspace_id).await;

        let reply = client.post("/api/logout", NOTHING).await;

        let bye = reply.expect(StatusCode::OK);
        assert_eq!(bye, json!({ "message": "Logged out successfully" }));
        let (value, attributes) = cookie(&reply);
        assert_eq!(value, "");
        assert!(attributes.contains(&"max-age=0".to_owned()), "{attributes:?}");
        assert!(attributes.contains(&"path=/api".to_owned()), "{attributes:?}");
        refresh(&app, &here.refresh_token).await.expect(StatusCode::UNAUTHORIZED);
        here.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
        here.post("/api/chat", json!({ "name": "x", "chat_type": "PublicChannel" }))
            .await
            .refuses(StatusCode::UNAUTHORIZED, "unauthenticated");

        let again = client.post("/api/logout", NOTHING).await.expect(StatusCode::OK);
        assert_eq!(again, bye, "signing out twice is signing out");
        let news = log.news().await;
        assert_eq!(news.len(), 1, "{news:?}");
        assert_eq!(news[0].kind, "SessionRevoked");
        assert_eq!((news[0].user_id, news[0].chat_id), (Some(alice.id), None));
        assert_eq!(
            news[0].data(),
            json!({ "session_id": here.session_id, "session_ids": [here.session_id] })
        );
    }
    alice.get("/api/me").await.expect(StatusCode::OK);
    refresh(&app, &alice.refresh_token).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn every_workspace_of_an_account_gets_the_event_of_a_sign_out() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let bob = app.user_in("bob", "Bobs").await;
    let elsewhere = app.user_in("eve", "Elsewhere").await;
    let join = alice.post("/api/workspaces/join", json!({ "name": "Bobs" })).await;
    join.expect(StatusCode::CREATED);
    let mut logs = Vec::new();
    for workspace in [alice.workspace_id, bob.workspace_id, elsewhere.workspace_id] {
        logs.push(app.log_of(workspace).await);
    }

    alice.post("/api/logout", NOTHING).await.expect(StatusCode::OK);

    assert_eq!(logs[0].kinds().await, ["SessionRevoked"]);
    assert_eq!(logs[1].kinds().await, ["SessionRevoked"]);
    assert!(logs[2].kinds().await.is_empty());
}

#[tokio::test]
async fn signing_out_everywhere_ends_all_sessions_of_one_person() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    for path in ["/api/logout-all", "/api/logout_all"] {
        let here = app.signs_in(&alice).await;
        let there = app.signs_in(&alice).await;
        let mut log = app.log_of(alice.workspace_id).await;

        let reply = here.post(path, NOTHING).await;

        let bye = json!({ "message": "Logged out from all sessions successfully" });
        assert_eq!(reply.expect(StatusCode::OK), bye);
        for session in [&here, &there, &alice] {
            session.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
            refresh(&app, &session.refresh_token).await.expect(StatusCode::UNAUTHORIZED);
        }
        // One event names them all.
        let event = crate::harness::Log::only(log.news().await, "SessionRevoked").data();
        assert_eq!(event["session_id"], event["session_ids"][0]);
        let revoked = event["session_ids"].as_array().unwrap().iter();
        let mut revoked: Vec<_> = revoked.map(|id| id.as_str().unwrap().to_owned()).collect();
        revoked.retain(|id| *id != alice.session_id);
        revoked.sort();
        let mut expected = [here.session_id.clone(), there.session_id.clone()];
        expected.sort();
        assert_eq!(revoked, expected);
    }
    bob.get("/api/me").await.expect(StatusCode::OK);
    app.signs_in(&alice).await.get("/api/me").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn no_token_is_stored() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let session: Value = sqlx::query_scalar("select to_jsonb(s) from sessions as s")
        .fetch_one(&app.db)
        .await
        .unwrap();

    assert!(!session.to_string().contains(&alice.refresh_token));
    assert!(!session.to_string().contains(&alice.token));
}

async fn refresh(app: &TestApp, token: &str) -> Reply {
    app.anyone.with_token(token).post("/api/refresh", NOTHING).await
}

/// The next refresh token.
async fn refreshed(app: &TestApp, token: &str) -> String {
    let auth = refresh(app, token).await.expect(StatusCode::OK);
    auth["refresh_token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(reply: &Reply, kind: &str) {
    reply.refuses(StatusCode::UNAUTHORIZED, kind);
}

/// The refresh cookie's value and its attributes in lower case.
fn cookie(reply: &Reply) -> (String, Vec<String>) {
    let cookies = reply.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    let mut pairs = cookies.map(|cookie| cookie.split_once(';').unwrap());
    let refresh = pairs.find_map(|(pair, rest)| Some((pair.strip_prefix("refresh_token=")?, rest)));
    let (value, attributes) = refresh.unwrap();
    let attributes = attributes.split(';').map(|one| one.trim().to_lowercase());
    (value.to_owned(), attributes.collect())
}

#[tokio::test]
async fn a_request_whose_session_ends_while_it_waits_for_the_lock_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_public_channel("lunch").await;
    let before = app.state().await;

    let mut lock = app.db.begin().await.unwrap();
    sqlx::query("select 1 from workspace_logs for update").execute(&mut *lock).await.unwrap();
    let ends = async {
        let waiting = "select 1 from pg_locks where not granted";
        while sqlx::query(waiting).fetch_optional(&app.db).await.unwrap().is_none() {}
        sqlx::query("update sessions set revoked_at = now()").execute(&mut *lock).await.unwrap();
        lock.commit().await.unwrap();
    };
    let renames = alice.patch(&chat.path, json!({ "name": "dinner" }));
    let (refused, ()) = futures_util::future::join(renames, ends).await;

    refused.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    app.sql("update sessions set revoked_at = null").await;
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn an_account_lists_its_sessions_that_have_not_ended() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let phone = app.signs_in(&alice).await;
    let gone = app.signs_in(&alice).await;
    gone.post("/api/logout", NOTHING).await.expect(StatusCode::OK);

    let listed = phone.get("/api/sessions").await.expect(StatusCode::OK);

    let sessions = listed["items"].as_array().unwrap();
    let ids: Vec<_> = sessions.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&phone.session_id, &alice.session_id]);
    assert_eq!((&sessions[0]["current"], &sessions[1]["current"]), (&json!(true), &json!(false)));
    for session in sessions {
        assert_eq!(session["ip"], "127.0.0.1");
        let mut fields: Vec<_> = session.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            ["created_at", "current", "expires_at", "id", "ip", "last_used_at", "user_agent"]
        );
    }
    let theirs = bob.get("/api/sessions").await.expect(StatusCode::OK);
    assert_eq!(theirs["items"].as_array().unwrap().len(), 1);

    app.ages_sessions_of(&alice, "15 days").await;
    assert_eq!(phone.get("/api/sessions").await.expect(StatusCode::OK)["items"], json!([]));
}

#[tokio::test]
async fn the_sessions_of_an_account_are_paged_by_last_use() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mut expected = vec![alice.session_id.clone()];
    for _ in 0..4 {
        expected.insert(0, app.signs_in(&alice).await.session_id);
    }
    // Of the same time, by id.
    app.sql("update sessions set rotated_at = date_trunc('minute', clock_timestamp())").await;
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    for size in [2, 2, 1] {
        let page = alice.get(&format!("/api/sessions?limit=2{cursor}")).await;
        let page = page.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), size);
        ids.extend(items.iter().map(|session| session["id"].as_str().unwrap().to_owned()));
        cursor = page["next_cursor"].as_str().map_or(String::new(), |c| format!("&cursor={c}"));
    }
    assert_eq!((ids, cursor), (expected, String::new()));
    // A time and parts of an id that there are not.
    for bad in ["x", "OTIyMzM3MjAzNjg1NDc3NTgwNy4xLjIuMy40", "MS40Mjk0OTY3Mjk2LjAuMC4w"] {
        let reply = alice.get(&format!("/api/sessions?cursor={bad}")).await;
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_session_is_ended_from_another_device_in_every_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let phone = app.signs_in(&alice).await;
    let other = alice.post("/api/workspaces", json!({ "name": "Mine" })).await;
    let other = other.expect(StatusCode::CREATED)["id"].as_i64().unwrap();
    let mut logs = [app.log_of(alice.workspace_id).await, app.log_of(other).await];
    let path = format!("/api/sessions/{}", phone.session_id);

    alice.delete(&path, NOTHING).await.expect(StatusCode::NO_CONTENT);

    for log in &mut logs {
        let event = crate::harness::Log::only(log.news().await, "SessionRevoked");
        let told = json!({ "session_id": phone.session_id, "session_ids": [phone.session_id] });
        assert_eq!(event.data(), told);
        assert_eq!(event.user_id, Some(alice.id));
    }
    phone.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    refused(&refresh(&app, &phone.refresh_token).await, "refresh_invalid");
    alice.delete(&path, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    for id in ["", "0", "text", "00000000-0000-0000-0000-000000000000"] {
        let refused = alice.delete(&format!("/api/sessions/{id}"), NOTHING).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{id}");
    }
}
