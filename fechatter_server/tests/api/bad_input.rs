//! What every request and every answer have in common, and requests that make no sense.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{NOTHING, Reply, TestApp};

const ORIGIN: &str = "https://desk.acme.test";

#[tokio::test]
async fn an_error_has_a_code_a_text_a_type_and_the_request_id() {
    let app = TestApp::start().await;

    let reply = app.anyone.with("x-request-id", "lunch-7").get("/api/me").await;

    reply.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    insta::assert_json_snapshot!(reply.ordered(), { ".error" => "[text]" }, @r#"
    {
      "code": 401,
      "error": "[text]",
      "type": "unauthenticated",
      "request_id": "lunch-7"
    }
    "#);
}

#[tokio::test]
async fn an_unknown_path_is_not_found_with_a_token_or_without() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for client in [&app.anyone, &*alice] {
        for path in
            ["/", "/api", "/api/", "/api/nothing", "/api/chat/1/nothing", "/healthz", "/api//chat"]
        {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let reply = client.call(method, path, NOTHING).await;
                reply.refuses(StatusCode::NOT_FOUND, "not_found");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_gets_405_with_the_allowed_methods() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for (method, path, allowed) in [
        (Method::GET, "/api/signin", "POST"),
        (Method::PUT, "/api/signup", "POST"),
        (Method::DELETE, "/api/users", "GET"),
        (Method::PUT, "/api/chat", "POST"),
        (Method::PATCH, "/api/chat/1/messages", "POST"),
    ] {
        let reply = alice.call(method, path, NOTHING).await;
        reply.refuses(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        let allow = reply.header("allow").unwrap();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{path}: {allow}");
    }
}

#[tokio::test]
async fn a_body_without_the_content_type_of_json_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    let draft = json!({ "name": "x", "chat_type": "PublicChannel" }).to_string();

    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/json"),
        Some("nonsense"),
    ] {
        let mut request = alice.request(Method::POST, "/api/chat").body(draft.clone());
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let reply = Reply::to(request).await;
        reply.refuses(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    }
    assert_eq!(app.state().await, before);

    let request = alice.request(Method::POST, "/api/chat").body(draft);
    let utf8 = request.header(CONTENT_TYPE, "application/json; charset=utf-8");
    Reply::to(utf8).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_without_a_body_needs_no_content_type() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_public_channel("news").await;

    let bare = alice.post(&chat.join, NOTHING).await;
    bare.expect(StatusCode::OK);
    let form = alice.request(Method::POST, &chat.join).header(CONTENT_TYPE, "text/plain");
    Reply::to(form).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_malformed() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"name":"x","chat_type":"PublicChannel","members":{open}{close}}}"#)
    };

    for body in [
        b"".as_slice(),
        b"{",
        b"nonsense",
        b"{\"name\":\"x\",}",
        b"{'name':'x'}",
        b"{\"name\":\"x\"} {}",
        b"{\"name\":NaN}",
        b"{\"name\":\"\xff\",\"chat_type\":\"PublicChannel\"}",
        b"{\"name\":\"\xed\xa0\x80\",\"chat_type\":\"PublicChannel\"}",
        br#"{"name":"\ud800","chat_type":"PublicChannel"}"#,
        br#"{"name":"\udc00\ud800","chat_type":"PublicChannel"}"#,
        b"{\"name\":\"a\nb\",\"chat_type\":\"PublicChannel\"}",
        b"\xef\xbb\xbf",
        deep(65).as_bytes(),
        deep(1000).as_bytes(),
        deep(100_000).as_bytes(),
    ] {
        let reply = alice.post_bytes("/api/chat", body.to_vec()).await;
        reply.refuses(StatusCode::UNPROCESSABLE_ENTITY, "malformed_json");
    }
    let allowed = alice.post_bytes("/api/chat", deep(64)).await;
    allowed.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_invalid_input() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;

    for body in [
        "null",
        "[]",
        "7",
        "{}",
        r#"{"name":7,"chat_type":"PublicChannel"}"#,
        r#"{"name":"x","chat_type":"PublicChannel","nonsense":1}"#,
        r#"{"name":"x","name":"y","chat_type":"PublicChannel"}"#,
        r#"{"name":"a\u0000b","chat_type":"PublicChannel"}"#,
        r#"{"name":"x","chat_type":"PrivateChannel","members":[9223372036854775808]}"#,
        r#"{"name":"x","chat_type":"PrivateChannel","members":[1e3]}"#,
        r#"{"name":"x","chat_type":"PrivateChannel","members":[1.0]}"#,
        r#"{"name":"x","chat_type":"PrivateChannel","members":[true]}"#,
    ] {
        let reply = alice.post_bytes("/api/chat", body).await;
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_body_has_at_most_one_mebibyte() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("x", []).await;
    let before = app.state().await;

    let huge = format!(r#"{{"content":"{}"}}"#, "x".repeat(2 << 20));
    for path in ["/api/signin", "/api/chat", &chat.messages] {
        let reply = alice.post_bytes(path, huge.clone()).await;
        reply.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    }
    // Nor may a client who doesn't say how much it is going to send.
    let chunks = (0..512).map(|_| Ok::<_, std::io::Error>(" ".repeat(4096)));
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let reply = alice.post_bytes("/api/chat", stream).await;
    reply.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    assert_eq!(app.state().await, before);

    let spaces = format!(r#"{{"content":"x"{}}}"#, " ".repeat(1_000_000));
    alice.post_bytes(&chat.messages, spaces).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let large = format!(r#"{{"content":"{}"}}"#, "x".repeat(900_000));

    for _ in 0..5 {
        let stranger = app.anyone.post_bytes("/api/chat/1/messages", large.clone()).await;
        stranger.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
        let nowhere = alice.post_bytes("/api/nothing", large.clone()).await;
        nowhere.refuses(StatusCode::NOT_FOUND, "not_found");
        let text = alice.request(Method::POST, "/api/chat").header(CONTENT_TYPE, "text/plain");
        let text = Reply::to(text.body(large.clone())).await;
        text.refuses(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    }
}

#[tokio::test]
async fn addresses_and_headers_have_limits() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let long = format!("/api/users?q={}", "x".repeat(9000));
    alice.get(&long).await.expect(StatusCode::URI_TOO_LONG);
    let long = alice.with("x-nonsense", &"x".repeat(17_000));
    long.get("/api/me").await.expect(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_second_host_or_token_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for header in ["host", "authorization"] {
        for value in ["x", "Bearer x"] {
            let request = alice.request(Method::GET, "/api/me").header("host", "acme.test");
            let reply = Reply::to(request.header(header, value)).await;
            reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
    }
    let request = app.operator.request(Method::GET, "/healthz");
    let reply = Reply::to(request.header("host", "x y")).await;
    reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

#[tokio::test]
async fn connections_are_limited_as_configured() {
    let app = TestApp::with(|config| config.limits.connections_per_address = 1).await;
    app.anyone.get("/api/server").await.expect(StatusCode::OK);

    let others = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = app.anyone.request(Method::GET, "/api/server").build().unwrap();
    let refused = others.execute(request).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["type"], "rate_limited");

    let proxied = app
        .another(|config| config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()])
        .await;
    proxied.anyone.get("/api/server").await.expect(StatusCode::OK);
    let request = proxied.anyone.request(Method::GET, "/api/server").build().unwrap();
    let through_proxy = others.execute(request).await.unwrap();
    assert_eq!(through_proxy.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_invalid_query_is_invalid_input() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for path in [
        "/api/users?limit=x",
        "/api/users?limit=0",
        "/api/users?ids=1,x",
        "/api/users?role=boss",
        "/api/users?q=%00",
        "/api/chat?archived=7",
        "/api/chat/directory?q=%00",
        "/api/chat/directory?limit=99999999999999999999",
    ] {
        let reply = alice.get(path).await;
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for path in ["/api/users?q=%ff", "/api/users?q=%ed%a0%80", "/api/users?q=%"] {
        let reply = alice.get(path).await;
        assert!(!reply.status.is_server_error(), "{}", reply.text);
    }
}

#[tokio::test]
async fn an_invalid_path_id_is_not_found() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    alice.creates_public_channel("news").await;

    for id in ["0", "-1", "+1", "01", "1.0", "1e0", "%31%20", "x", "%00", "%ff", "９"] {
        let reply = alice.get(&format!("/api/chat/{id}")).await;
        reply.refuses(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_a_new_one() {
    let app = TestApp::start().await;

    for id in ["7", "a-b_c.D", "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a"] {
        let reply = app.anyone.with("x-request-id", id).get("/api/server").await;
        assert_eq!(reply.header("x-request-id"), Some(id));
    }
    for id in ["", "a b", "<script>", "a\"b", &"x".repeat(1000)] {
        let reply = app.anyone.with("x-request-id", id).get("/api/server").await;
        let given = reply.header("x-request-id").unwrap();
        let version = uuid::Uuid::parse_str(given).unwrap().get_version_num();
        assert_eq!(version, 7, "{id:?} becomes {given}");
    }
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let app = TestApp::with(|config| config.server.public_url = "https://acme.test".into()).await;
    let alice = app.user("alice").await;

    let replies = [
        alice.get("/api/me").await,
        alice.get("/api/nothing").await,
        app.anyone.get("/api/me").await,
        alice.post_bytes("/api/chat", "{").await,
        app.anyone.get("/api/server").await,
    ];
    for reply in replies {
        for (name, value) in [
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
        assert!(reply.header("strict-transport-security").is_some());
        assert_eq!(reply.header("server"), None, "no banner");
    }
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_read_the_headers() {
    let app = TestApp::with(|config| config.http.allowed_origins = vec![ORIGIN.into()]).await;
    let alice = app.user("alice").await;

    let reply = alice.with("origin", ORIGIN).get("/api/me").await;

    assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    let vary: Vec<_> =
        reply.headers.get_all("vary").iter().map(|vary| vary.to_str().unwrap()).collect();
    assert!(vary.join(",").to_lowercase().contains("origin"), "{vary:?}");
    let exposed = reply.header("access-control-expose-headers").unwrap().to_lowercase();
    let mut exposed: Vec<_> = exposed.split(',').map(str::trim).collect();
    exposed.sort_unstable();
    assert_eq!(
        exposed,
        [
            "idempotency-replayed",
            "retry-after",
            "x-has-newer",
            "x-has-older",
            "x-next-cursor",
            "x-request-id",
        ]
    );
    let refused = app.anyone.with("origin", ORIGIN).get("/api/me").await;
    assert_eq!(refused.header("access-control-allow-origin"), Some(ORIGIN), "errors are read too");
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let app = TestApp::with(|config| config.http.allowed_origins = vec![ORIGIN.into()]).await;
    let alice = app.user("alice").await;

    for origin in ["https://evil.test", "https://desk.acme.test.evil.test", "null"] {
        let reply = alice.with("origin", origin).get("/api/me").await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn a_preflight_allows_what_clients_need() {
    let app = TestApp::with(|config| config.http.allowed_origins = vec![ORIGIN.into()]).await;
    let preflight = async |origin: &str| {
        app.anyone
            .request(Method::OPTIONS, "/api/chat/1")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await
            .unwrap()
    };

    let ours = preflight(ORIGIN).await;
    assert!(ours.status().is_success());
    let header = |name: &str| ours.headers()[name].to_str().unwrap().to_lowercase();
    assert_eq!(header("access-control-allow-origin"), ORIGIN);
    let allowed = header("access-control-allow-headers");
    for name in ["authorization", "content-type", "last-event-id"] {
        assert!(allowed.split(',').any(|one| one.trim() == name), "{allowed}");
    }
    let methods = header("access-control-allow-methods");
    for name in ["get", "post", "put", "patch", "delete"] {
        assert!(methods.split(',').any(|one| one.trim() == name), "{methods}");
    }

    let theirs = preflight("https://evil.test").await;
    assert!(!theirs.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn an_unreadable_body_changes_nothing_on_any_path() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_public_channel("news").await;
    let before = app.state().await;

    for path in [
        "/api/signup",
        "/api/signin",
        "/api/workspaces",
        "/api/workspaces/join",
        "/api/invites",
        "/api/chat",
        &chat.members,
        &chat.messages,
    ] {
        for body in ["{", r#"{"name":"\ud800"}"#, r#"{"nonsense":1}"#, "7", r#""x""#, "null"] {
            let reply = alice.post_bytes(path, body).await;
            assert!(matches!(reply.status.as_u16(), 400 | 422), "{path} {body}: {}", reply.text);
        }
    }
    for path in ["/api/workspace", &chat.path] {
        let request = alice.request(Method::PATCH, path).header(CONTENT_TYPE, "application/json");
        let reply = Reply::to(request.body(r#"{"nonsense":null}"#)).await;
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
    assert_eq!(alice.get(&chat.path).await.expect(StatusCode::OK)["member_count"], json!(1));
    assert_ne!(alice.get("/api/me").await.expect(StatusCode::OK), Value::Null);
}

#[tokio::test]
async fn parameters_that_a_route_does_not_have_are_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;

    let routes = serde_json::to_value(fechatter_server::openapi()).unwrap();
    for (path, method, operation) in contract::operations(&routes) {
        let path = path.replace("{id}", &chat.id.to_string()).replace("{mid}", "1");
        let is_open = operation["security"].is_array();
        let query = format!("{path}?limit=1&offset=20");
        let method = method.to_uppercase().parse().unwrap();
        let caller = if is_open { &app.anyone } else { &*alice };
        let refused = caller.call(method, &query, NOTHING).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for query in ["before=5", "limit=5&=x", "Limit=5", "last_id=1&last_id=2", "limit[]=5"] {
        let refused = alice.get(&format!("{}?{query}", chat.messages)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for query in ["", "limit=5", "limit=%35"] {
        alice.get(&format!("{}?{query}", chat.messages)).await.expect(StatusCode::OK);
    }
    // Strangers learn nothing by it.
    let refused = app.anyone.get("/api/me?offset=1").await;
    refused.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
}
