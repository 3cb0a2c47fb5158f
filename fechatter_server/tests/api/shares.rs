//! Shares of one person, one address and one workspace; others keep theirs.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::{NOTHING, PASSWORD, TestApp};

/// For what must not wait for something that is held for longer.
const SOON: Duration = Duration::from_millis(1_500);

/// Holds the log of a workspace until dropped.
async fn holds_log(app: &TestApp, workspace_id: i64) -> Transaction<'static, Postgres> {
    let mut holder = app.db.begin().await.unwrap();
    sqlx::query("select from workspace_logs where workspace_id = $1 for no key update")
        .bind(workspace_id)
        .execute(&mut *holder)
        .await
        .unwrap();
    holder
}

#[tokio::test]
async fn requests_that_write_nothing_do_not_wait_for_a_locked_log() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;
    let public = alice.creates_public_channel("news").await;
    let single = alice.opens_single_with(&bob).await;
    app.user_in("eve", "Elsewhere").await;
    let taken = StatusCode::CONFLICT;
    let ended = app.signs_in(&bob).await;
    ended.post("/api/logout", NOTHING).await.expect(StatusCode::OK);
    let _held = holds_log(&app, alice.workspace_id).await;

    let unknown = Uuid::new_v4();
    let (found, none) = (StatusCode::OK, StatusCode::NOT_FOUND);
    let forbidden = StatusCode::FORBIDDEN;
    let carol_as_member = chat.member(carol.id);
    let calls = [
        (&alice, Method::DELETE, format!("/api/sessions/{unknown}"), NOTHING, none),
        (&ended, Method::POST, "/api/logout".into(), NOTHING, found),
        (&alice, Method::DELETE, "/api/users/999999".into(), NOTHING, none),
        (&alice, Method::PATCH, "/api/users/999999".into(), json!({ "role": "admin" }), none),
        (
            &bob,
            Method::PATCH,
            format!("/api/users/{}", carol.id),
            json!({ "role": "admin" }),
            forbidden,
        ),
        (&bob, Method::DELETE, format!("/api/users/{}", carol.id), NOTHING, forbidden),
        (
            &alice,
            Method::PATCH,
            format!("/api/users/{}", bob.id),
            json!({ "role": "member" }),
            found,
        ),
        (&bob, Method::PATCH, "/api/workspace".into(), json!({ "name": "Mine" }), forbidden),
        (&alice, Method::POST, "/api/workspaces/join".into(), json!({ "name": "Acme" }), found),
        (
            &alice,
            Method::POST,
            "/api/workspaces/join".into(),
            json!({ "name": "Nowhere" }),
            forbidden,
        ),
        (&alice, Method::POST, "/api/workspace/leave".into(), NOTHING, taken),
        (&alice, Method::PATCH, "/api/workspace".into(), json!({ "name": "elsewhere" }), taken),
        (
            &bob,
            Method::POST,
            "/api/chat".into(),
            json!({ "name": "NEWS", "chat_type": "PublicChannel" }),
            taken,
        ),
        (
            &alice,
            Method::PATCH,
            chat.path.clone(),
            json!({ "name": "News", "chat_type": "PublicChannel" }),
            taken,
        ),
        (&alice, Method::POST, "/api/chat/999999/join".into(), NOTHING, none),
        (&alice, Method::POST, public.join.clone(), NOTHING, found),
        (&bob, Method::PATCH, chat.path.clone(), json!({ "name": "dinner" }), forbidden),
        (&bob, Method::DELETE, chat.path.clone(), NOTHING, forbidden),
        (&alice, Method::POST, chat.leave.clone(), NOTHING, StatusCode::CONFLICT),
        (&alice, Method::POST, chat.members.clone(), json!([bob.id]), StatusCode::CREATED),
        (&alice, Method::POST, chat.members.clone(), json!([999_999]), none),
        (&bob, Method::DELETE, chat.members.clone(), json!([carol.id]), forbidden),
        (&alice, Method::DELETE, chat.members.clone(), json!([999_999]), StatusCode::BAD_REQUEST),
        (&bob, Method::PATCH, carol_as_member.clone(), json!({ "role": "admin" }), forbidden),
        (&alice, Method::PATCH, carol_as_member, json!({ "role": "member" }), found),
        (&alice, Method::PATCH, chat.member(999_999), NOTHING, StatusCode::BAD_REQUEST),
        (&bob, Method::POST, "/api/invites".into(), json!({ "role": "owner" }), forbidden),
        (&bob, Method::POST, "/api/invites".into(), json!({ "chat_ids": [chat.id] }), none),
        (
            &alice,
            Method::POST,
            "/api/chat".into(),
            json!({ "chat_type": "Single", "members": [bob.id] }),
            found,
        ),
        (
            &alice,
            Method::POST,
            "/api/chat".into(),
            json!({ "name": "x", "chat_type": "Group", "members": [bob.id, 999_999] }),
            none,
        ),
    ];
    assert_eq!(single.body["chat_type"], "Single");
    for (person, method, path, body, status) in calls {
        let name = format!("{method} {path}");
        let answered = timeout(SOON, person.call(method, &path, body)).await;
        let answered = answered.unwrap_or_else(|_| panic!("{name} waits for the log"));
        answered.expect(status);
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_log_leave_connections_to_others() {
    let app = TestApp::with(|config| config.database.max_connections = 4).await;
    let alice = app.user("alice").await;
    let eve = app.user_in("eve", "Elsewhere").await;
    let chat = alice.creates_public_channel("lunch").await;
    let _held = holds_log(&app, alice.workspace_id).await;

    let waiting =
        join_all((0..30).map(|n| alice.patch(&chat.path, json!({ "name": format!("n{n}") }))));
    let others = async {
        // They wait in the database for as long as they may, and in memory behind it.
        let waits = "select 1 from pg_stat_activity
                     where wait_event_type = 'Lock' and datname = current_database()";
        while sqlx::query(waits).fetch_optional(&app.db).await.unwrap().is_none() {}
        for _ in 0..5 {
            let answered = timeout(SOON, eve.get("/api/me")).await.expect("eve waits");
            answered.expect(StatusCode::OK);
        }
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
        )
        .fetch_one(&app.db)
        .await
        .unwrap();
        assert!((1..=2).contains(&waiting), "{waiting} connections wait");
    };
    let (answers, ()) = futures_util::future::join(waiting, others).await;
    for answer in answers {
        answer.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    }
}

#[tokio::test]
async fn sign_ups_that_wait_for_a_log_do_not_block_sign_ins_elsewhere() {
    let app = TestApp::with(|config| {
        config.database.max_connections = 8;
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let alice = app.user("alice").await;
    let eve = app.user_in("eve", "Elsewhere").await;
    // Whoever shows a token that was exchanged twice since has copied it: the session ends.
    let mut newest = alice.refresh_token.clone();
    for _ in 0..2 {
        let refreshed = app.anyone.with_token(&newest).post("/api/refresh", NOTHING).await;
        let body = refreshed.expect(StatusCode::OK);
        body["refresh_token"].as_str().unwrap().clone_into(&mut newest);
    }
    let _held = holds_log(&app, alice.workspace_id).await;

    let from = |number: usize| app.anyone.with("x-forwarded-for", &format!("192.0.2.{number}"));
    let entering = join_all((0..6).map(|number| {
        let (anyone, copied) = (from(number), from(100 + number).with_token(&alice.refresh_token));
        let body = json!({
            "fullname": "N", "email": format!("n{number}@example.org"), "password": PASSWORD,
            "workspace": "Acme",
        });
        async move {
            let signs_up = anyone.post("/api/signup", body);
            let refreshes = copied.post("/api/refresh", NOTHING);
            futures_util::future::join(signs_up, refreshes).await
        }
    }));
    let others = async {
        let waits = "select 1 from pg_stat_activity
                     where wait_event_type = 'Lock' and datname = current_database()";
        while sqlx::query(waits).fetch_optional(&app.db).await.unwrap().is_none() {}
        for number in 0..5 {
            let body = json!({ "email": eve.email, "password": PASSWORD });
            let client = from(200 + number);
            let answered = timeout(SOON, client.post("/api/signin", body)).await;
            answered.expect("eve waits").expect(StatusCode::OK);
        }
    };
    let (answers, ()) = futures_util::future::join(entering, others).await;
    for (signed_up, refreshed) in answers {
        signed_up.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        refreshed.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    }
}

#[tokio::test]
async fn a_request_costs_by_the_people_it_names() {
    let app = TestApp::with(|config| {
        config.http.requests_per_second = 1;
        config.http.burst = 60;
    })
    .await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let ids = app.extras(alice.workspace_id, 400).await;
    let draft = json!({ "name": "all", "chat_type": "PrivateChannel", "members": ids });

    alice.post("/api/chat", draft.clone()).await.expect(StatusCode::CREATED);
    let again = alice.post("/api/chat", draft.clone()).await;
    again.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    // One that names nobody is still within what is left, and others have their own.
    alice.get("/api/me").await.expect(StatusCode::OK);
    bob.post("/api/chat", draft).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn the_rate_limit_also_applies_to_refreshing_and_logging_out() {
    let app = TestApp::with(|config| {
        config.http.requests_per_second = 1;
        config.http.burst = 10;
    })
    .await;
    let alice = app.user("alice").await;
    let refresh = app.anyone.with_token(&alice.refresh_token);
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(refresh.post("/api/refresh", NOTHING).await.status);
    }
    assert!(
        statuses.iter().filter(|status| **status == StatusCode::OK).count() <= 12,
        "{statuses:?}"
    );
    let refused = refresh.post("/api/refresh", NOTHING).await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    let refused = refresh.post("/api/logout", NOTHING).await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    let refused = alice.post("/api/logout", NOTHING).await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
    let refused = alice.get("/api/me").await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn large_responses_cost_more_than_small_ones() {
    let app = TestApp::with(|config| {
        config.http.requests_per_second = 1;
        config.http.burst = 40;
    })
    .await;
    let alice = app.user("alice").await;
    app.extras(alice.workspace_id, 10_000).await;

    for _ in 0..2 {
        alice.get("/api/users").await.expect(StatusCode::OK);
    }
    let refused = alice.get("/api/me").await;
    refused.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
}

#[tokio::test]
async fn the_body_of_a_sign_in_or_sign_up_is_limited() {
    let app = TestApp::start().await;
    for path in ["/api/signin", "/api/signup"] {
        let large = app.anyone.post_bytes(path, "x".repeat(16 * 1024 + 1)).await;
        large.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
        let small = app.anyone.post_bytes(path, "x".repeat(16 * 1024)).await;
        small.refuses(StatusCode::UNPROCESSABLE_ENTITY, "malformed_json");
    }
}

#[tokio::test]
async fn the_bytes_of_simultaneous_bodies_of_a_person_are_limited() {
    let app = TestApp::with(|config| config.limits.request_mebibytes_per_person = 1).await;
    let alice = app.user("alice").await;
    let chat = alice.creates_public_channel("lunch").await;
    let body = json!({ "content": "x", "padding": "y".repeat(700_000) });

    // Of two that come at the same time, both can be in memory only one after the other.
    let replies = join_all((0..8).map(|_| alice.post(&chat.messages, body.clone()))).await;
    for reply in &replies {
        match reply.status {
            StatusCode::BAD_REQUEST => reply.refuses(reply.status, "invalid_input"),
            _ => reply.refuses(StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        };
    }
    // And the room comes back.
    alice.post(&chat.messages, body).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

#[tokio::test]
async fn the_number_of_chats_that_a_person_owns_is_limited() {
    let app = TestApp::with(|config| config.limits.chats_per_person = 3).await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    for name in ["one", "two"] {
        alice.creates_public_channel(name).await;
    }
    let single = alice.opens_single_with(&bob).await;
    let before = app.state().await;
    let public = |name: &str| json!({ "name": name, "chat_type": "PublicChannel" });

    let refused = alice.post("/api/chat", public("four")).await;
    refused.refuses(StatusCode::FORBIDDEN, "limit_reached");
    let with_carol = json!({ "chat_type": "Single", "members": [carol.id] });
    alice.post("/api/chat", with_carol).await.refuses(StatusCode::FORBIDDEN, "limit_reached");
    assert_eq!(app.state().await, before);

    // What exists is found, others have theirs, and what is deleted does not count.
    let same = json!({ "chat_type": "Single", "members": [bob.id] });
    alice.post("/api/chat", same).await.expect(StatusCode::OK);
    let bobs = bob.creates_public_channel("bobs").await;
    alice.deletes(&single).await;
    alice.creates_public_channel("three").await;

    // Nobody is given more than they may have.
    alice.joins(&bobs).await;
    let transfer = bob.patch(&bobs.member(alice.id), NOTHING).await;
    transfer.refuses(StatusCode::FORBIDDEN, "limit_reached");
}

#[tokio::test]
async fn the_number_of_workspaces_that_an_account_owns_is_limited() {
    let app = TestApp::with(|config| config.limits.workspaces_per_person = 2).await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    alice.post("/api/workspaces", json!({ "name": "Two" })).await.expect(StatusCode::CREATED);

    let refused = alice.post("/api/workspaces", json!({ "name": "Three" })).await;
    refused.refuses(StatusCode::FORBIDDEN, "limit_reached");
    for name in ["Bob one", "Bob two"] {
        bob.post("/api/workspaces", json!({ "name": name })).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn the_number_of_open_invites_of_a_person_is_limited() {
    let app = TestApp::with(|config| config.limits.invites_per_person = 2).await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let first = alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
    alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);

    let refused = alice.post("/api/invites", json!({})).await;
    refused.refuses(StatusCode::FORBIDDEN, "limit_reached");
    bob.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
    let path = format!("/api/invites/{}", first["id"]);
    alice.delete(&path, NOTHING).await.expect(StatusCode::NO_CONTENT);
    alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn the_least_recently_used_session_ends_when_one_more_begins() {
    let app = TestApp::with(|config| config.limits.sessions_per_person = 3).await;
    let alice = app.user("alice").await;
    let second = app.signs_in(&alice).await;
    let third = app.signs_in(&alice).await;
    let refreshed = app.anyone.with_token(&alice.refresh_token).post("/api/refresh", NOTHING).await;
    refreshed.expect(StatusCode::OK);
    let mut log = app.log_of(alice.workspace_id).await;

    let fourth = app.signs_in(&alice).await;

    second.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    for living in [&alice, &third, &fourth] {
        living.get("/api/me").await.expect(StatusCode::OK);
    }
    let events = log.news().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, "SessionRevoked");
    assert_eq!(events[0].data()["session_id"], second.session_id);
}

#[tokio::test]
async fn simultaneous_sign_ins_do_not_exceed_the_limit_of_sessions() {
    let app = TestApp::with(|config| config.limits.sessions_per_person = 2).await;
    let alice = app.user("alice").await;

    let tries = join_all((0..6).map(|_| app.tries(&alice.email, PASSWORD))).await;

    for reply in tries {
        reply.expect(StatusCode::OK);
    }
    let last = app.signs_in(&alice).await;
    let sessions = last.get("/api/sessions").await.expect(StatusCode::OK);
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(2), "{sessions}");
}

/// Asks and reads nothing of the answer but its status: most of it stays with the server.
async fn asks_without_reading(address: SocketAddr, path: &str, token: &str) -> (TcpStream, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    let status = str::from_utf8(&status[9..]).unwrap().parse().unwrap();
    (socket, status)
}

#[tokio::test]
async fn the_bytes_of_unread_responses_of_a_person_are_limited() {
    let app = TestApp::with(|config| config.limits.answer_mebibytes_per_person = 8).await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let long: String = "\u{1f35c}".repeat(10_000);
    for _ in 0..100 {
        alice.sends(&chat, &long).await;
    }

    let asks = || asks_without_reading(app.anyone.address(), &chat.messages, &alice.token);
    let unread = join_all((0..20).map(|_| asks())).await;
    let refused = unread.iter().filter(|(_, status)| *status == 429).count();
    assert!((10..20).contains(&refused), "{refused} of 20 were refused");
    bob.get(&chat.messages).await.expect(StatusCode::OK);
    drop(unread);

    let comes_back = async {
        while alice.get("/api/me").await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), comes_back).await.expect("the room comes back");
}

#[tokio::test]
async fn a_suspended_person_cannot_read_the_workspace_from_another_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let bob = app.user("bob").await;
    let other =
        bob.post("/api/workspaces", json!({ "name": "Bobs" })).await.expect(StatusCode::CREATED);
    let switch = format!("/api/workspaces/{}/switch", other["id"]);
    let there = bob.post(&switch, NOTHING).await.expect(StatusCode::OK);
    let there = app.anyone.with_token(there["access_token"].as_str().unwrap());
    let invite = alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
    let suspend = json!({ "status": "Suspended" });
    alice.patch(&format!("/api/users/{}", bob.id), suspend).await.expect(StatusCode::OK);
    alice.patch("/api/workspace", json!({ "name": "Secret" })).await.expect(StatusCode::OK);
    let before = app.state().await;

    for join in [json!({ "name": "Secret" }), json!({ "invite_code": invite["code"] })] {
        let refused = there.post("/api/workspaces/join", join).await;
        refused.refuses(StatusCode::FORBIDDEN, "suspended");
    }
    let listed = there.get("/api/workspaces").await.expect(StatusCode::OK);
    let names: Vec<&Value> =
        listed["items"].as_array().unwrap().iter().map(|w| &w["name"]).collect();
    assert_eq!(names, ["Bobs"]);
    assert_eq!(app.state().await, before);
}
