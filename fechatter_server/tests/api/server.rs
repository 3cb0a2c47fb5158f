//! What the server says of itself.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{NOTHING, TestApp};

#[tokio::test]
async fn a_client_can_read_information_about_the_server_before_signing_in() {
    let app = TestApp::with(|config| {
        config.notify.public_url = "https://events.acme.test".into();
    })
    .await;

    let server = app.anyone.get("/api/server").await.expect(StatusCode::OK);

    assert_eq!(server.get("version"), None);
    assert_eq!(server["can_create_workspace"], true);
    let alice = app.user("alice").await;
    assert!(alice.get("/api/server").await.expect(StatusCode::OK)["version"].is_string());
    assert!(server["api_level"].as_i64().unwrap() >= 1);
    assert_eq!(
        server["features"],
        json!([
            "archive",
            "edit",
            "files",
            "mentions",
            "preferences",
            "reactions",
            "read_state",
            "replies",
            "system_messages",
            "typing"
        ])
    );
    assert_eq!(
        server["limits"],
        json!({
            "message_length": 10_000, "body_size": 1_048_576, "password_min": 8,
            "password_max": 128, "chat_name": 128, "reaction_kinds": 20,
            "file_size": 26_214_400, "upload_size": 104_857_600, "message_files": 20,
        })
    );
    assert_eq!(server["workspace_creation"], "anyone");
    assert_eq!(server["events_url"], "https://events.acme.test/events");
}

#[tokio::test]
async fn health_is_served_only_on_the_operations_port() {
    let app = TestApp::start().await;

    for path in ["/healthz", "/readyz"] {
        let reply = app.operator.get(path).await;
        assert_eq!(reply.expect(StatusCode::NO_CONTENT), Value::Null);
        app.anyone.get(path).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    app.operator.get("/api/server").await.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn hsts_is_sent_only_for_https_and_with_the_configured_duration() {
    for (public_url, seconds, expected) in [
        ("https://chat.acme.test", 31_536_000, Some("max-age=31536000")),
        ("https://chat.acme.test", 0, None),
        ("http://chat.acme.test", 31_536_000, None),
    ] {
        let app = TestApp::with(|config| {
            config.server.public_url = public_url.into();
            config.http.hsts_seconds = seconds;
        })
        .await;
        let reply = app.anyone.get("/api/server").await;
        assert_eq!(reply.header("strict-transport-security"), expected);
    }
}

#[tokio::test]
async fn the_document_of_all_routes_is_served() {
    let app = TestApp::start().await;

    let document = app.anyone.get("/api-docs/openapi.json").await.expect(StatusCode::OK);

    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document, serde_json::to_value(fechatter_server::openapi()).unwrap());
    assert_eq!(
        &document,
        contract::document(),
        "docs/openapi.json is not of this version: run `cargo xtask openapi`"
    );
}

#[tokio::test]
async fn every_documented_route_exists() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let document = app.anyone.get("/api-docs/openapi.json").await.expect(StatusCode::OK);

    for (path, method, _) in contract::operations(&document) {
        let address: Vec<_> =
            path.split('/').map(|one| if one.starts_with('{') { "1" } else { one }).collect();
        let address = address.join("/");
        // A method that no route takes is refused where there is a route, and not found elsewhere.
        let reply = alice.call(Method::TRACE, &address, NOTHING).await;
        reply.refuses(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
        let allow = reply.header("allow").unwrap();
        let method = method.to_uppercase();
        assert!(allow.split(',').any(|one| one.trim() == method), "{method} {path}: {allow}");
    }
}

#[test]
fn every_operation_is_documented_with_its_name_and_its_errors() {
    let document = contract::document();
    let mut names = Vec::new();

    for (path, method, operation) in contract::operations(document) {
        let name = operation["operationId"].as_str();
        names.push(name.unwrap_or_else(|| panic!("{method} {path} has no name")));
        let responses = operation["responses"].as_object().unwrap();
        let succeeds = responses.keys().any(|status| status.starts_with('2'));
        assert!(succeeds, "{method} {path} never succeeds");
        assert!(responses.contains_key("503"), "{method} {path} is always there");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = if path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap())) {
                "path"
            } else {
                "query"
            };
            assert_eq!(parameter["in"], place, "{method} {path}");
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "names are unique");
    assert!(count > 0);
}
