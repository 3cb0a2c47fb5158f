//! What clients of the earlier Fechatter do, in the order they do it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{NOTHING, TestApp, seqs};

#[tokio::test]
async fn clients_of_the_earlier_fechatter_keep_working() {
    let app = TestApp::start().await;
    let anyone = &app.anyone;

    for (id, name) in [(1, "Alice"), (2, "Bob"), (3, "Charlie")] {
        let person = json!({
            "fullname": name,
            "email": format!("{}@acme.test", name.to_lowercase()),
            "password": "password123",
            "workspace": "Acme",
        });
        let auth = anyone.post("/api/signup", person).await.expect(StatusCode::CREATED);
        assert!(auth["access_token"].is_string() && auth["refresh_token"].is_string());
        assert!(auth["expires_in"].as_i64().unwrap() > 0);
        assert_eq!(claims(&auth)["user"]["id"], id);
        assert_eq!(claims(&auth)["user"]["workspace_id"], 1);
    }

    let alice = json!({ "email": "alice@acme.test", "password": "password123" });
    let signed_in = anyone.post("/api/signin", alice).await.expect(StatusCode::OK);
    let cookie = signed_in["refresh_token"].as_str().unwrap();
    let by_cookie = anyone.with_cookie(cookie).post("/api/refresh", NOTHING).await;
    let refresh_token = by_cookie.expect(StatusCode::OK)["refresh_token"].clone();
    let refreshing = anyone.with_token(refresh_token.as_str().unwrap());
    let auth = refreshing.post("/api/refresh", NOTHING).await.expect(StatusCode::OK);
    let alice = anyone.with_token(auth["access_token"].as_str().unwrap());

    let users = alice.get("/api/users").await.expect(StatusCode::OK);
    let users: Vec<_> = users.as_array().unwrap().iter().map(|user| &user["fullname"]).collect();
    assert_eq!(users, ["Alice", "Bob", "Charlie"]);

    let draft = json!({
        "name": "Plans", "chat_type": "Group", "members": [1, 2, 3], "description": "For Friday"
    });
    let chat = alice.post("/api/chat", draft).await.expect(StatusCode::CREATED);
    assert_eq!(chat["chat_members"], json!([1, 2, 3]));
    assert_eq!(chat["created_by"], 1);
    let path = format!("/api/chat/{}", chat["id"]);
    let (messages, members) = (format!("{path}/messages"), format!("{path}/members"));

    let renamed = alice.patch(&path, json!({ "name": "Party" })).await.expect(StatusCode::OK);
    assert_eq!(renamed["name"], "Party");
    assert_eq!(renamed["description"], "For Friday");
    let chats = alice.get("/api/chat").await.expect(StatusCode::OK);
    assert_eq!(chats[0]["name"], "Party");
    assert_eq!(chats[0]["is_creator"], true);

    let mut sent = Vec::new();
    for content in ["one", "two", "three"] {
        let message = json!({ "content": content, "files": [] });
        sent.push(alice.post(&messages, message).await.expect(StatusCode::CREATED));
    }
    let newest = alice.get(&format!("{messages}?limit=2")).await.expect(StatusCode::OK);
    assert_eq!(newest, json!([sent[2], sent[1]]));
    let older = format!("{messages}?last_id={}&limit=2", sent[1]["id"]);
    let older = alice.get(&older).await.expect(StatusCode::OK);
    // The first says that the chat was renamed.
    assert_eq!(seqs(&older), [2, 1]);

    alice.delete(&members, json!([3])).await.expect(StatusCode::NO_CONTENT);
    let listed = alice.get(&members).await.expect(StatusCode::OK);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let added = alice.post(&members, json!([3])).await.expect(StatusCode::CREATED);
    assert_eq!(added[0]["user_id"], 3);
    assert_eq!(added[0]["chat_id"], chat["id"]);

    let transfer = alice.patch(&format!("{members}/2"), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(transfer, "Chat ownership transferred successfully");
    let chat = alice.get(&path).await.expect(StatusCode::OK);
    assert_eq!(chat["created_by"], 2);

    let bye = alice.post("/api/logout", NOTHING).await.expect(StatusCode::OK);
    assert_eq!(bye, json!({ "message": "Logged out successfully" }));
    let last = anyone.with_cookie(auth["refresh_token"].as_str().unwrap());
    last.post("/api/refresh", NOTHING).await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn requests_of_later_clients_of_the_earlier_fechatter_are_refused() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let messages = format!("{}/messages", chat.path);
    let before = app.state().await;

    for extra in ["mentions", "reply_to"] {
        let body = json!({ "content": "hello", extra: null });
        alice.post(&messages, body).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for query in ["offset=20", "before=7", "page=2"] {
        let refused = alice.get(&format!("{messages}?limit=2&{query}")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for path in ["/api/workspace/chats", "/api/users/profile"] {
        alice.get(path).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    let put = alice.call(Method::PUT, &chat.path, json!({ "name": "dinner" })).await;
    put.refuses(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    assert_eq!(app.state().await, before);
}

/// What such clients read from the access token.
fn claims(auth: &Value) -> Value {
    crate::tokens::payload(auth["access_token"].as_str().unwrap())
}
