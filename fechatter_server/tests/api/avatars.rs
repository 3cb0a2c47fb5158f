//! The pictures of people.

use reqwest::header::COOKIE;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::files::png;
use crate::harness::{Client, Log, NOTHING, PASSWORD, Person, Reply, TestApp};

async fn sets(person: &Client, image: Vec<u8>) -> Reply {
    Reply::to(person.request(Method::PUT, "/api/me/avatar").body(image)).await
}

async fn url_of(person: &Person) -> Value {
    person.get("/api/me").await.expect(StatusCode::OK)["avatar_url"].clone()
}

async fn gets(client: &Client, url: &Value) -> Response {
    client.request(Method::GET, url.as_str().unwrap()).send().await.unwrap()
}

#[tokio::test]
async fn the_picture_of_a_person_is_shown_to_the_workspace_without_its_metadata() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil").await;
    let mut log = app.log_of(alice.workspace_id).await;
    assert_eq!(url_of(&alice).await, Value::Null);

    sets(&alice, png(64, 64, "taken at home")).await.expect(StatusCode::NO_CONTENT);

    let event = Log::only(log.news().await, "UserUpdated").data();
    let url = url_of(&alice).await;
    assert_eq!(event["avatar_url"], url);
    let shown = gets(&bob, &url).await;
    assert_eq!(shown.status(), StatusCode::OK);
    assert_eq!(shown.headers()["content-type"], "image/png");
    let etag = shown.headers()["etag"].clone();
    let bytes = shown.bytes().await.unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"home"));
    let known = bob.request(Method::GET, url.as_str().unwrap());
    let known = known.header("if-none-match", etag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(gets(&mallory, &url).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(gets(&app.anyone, &url).await.status(), StatusCode::UNAUTHORIZED);

    // The same again changes nothing; another one has another address.
    sets(&alice, png(64, 64, "taken elsewhere")).await.expect(StatusCode::NO_CONTENT);
    assert!(log.news().await.is_empty());
    sets(&alice, png(65, 64, "")).await.expect(StatusCode::NO_CONTENT);
    assert_ne!(url_of(&alice).await, url);
    for _ in 0..2 {
        alice.delete("/api/me/avatar", NOTHING).await.expect(StatusCode::NO_CONTENT);
    }
    assert_eq!(url_of(&alice).await, Value::Null);
    assert_eq!(gets(&bob, &url).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_picture_is_an_image_of_a_limited_size() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    for bytes in [&b""[..], b"<svg>", b"\x89PNG\r\n\x1a\nbroken", b"OggS\0"] {
        sets(&alice, bytes.to_vec()).await.refuses(StatusCode::BAD_REQUEST, "not_an_image");
    }
    let wide = sets(&alice, png(4_097, 1, "")).await;
    wide.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    let heavy = sets(&alice, png(1, 1, &"x".repeat(1024 * 1024))).await;
    heavy.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn the_media_cookie_shows_pictures_of_the_workspaces_one_is_in() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    sets(&alice, png(64, 64, "")).await.expect(StatusCode::NO_CONTENT);
    let url = url_of(&alice).await;
    let signed_in = app.tries(&bob.email, PASSWORD).await;
    let cookies = signed_in.headers.get_all("set-cookie").iter();
    let mut cookies = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
    let media = cookies.find(|cookie| cookie.starts_with("media=")).unwrap().to_owned();
    let with_cookie = async |url: &str| {
        let request = app.anyone.request(Method::GET, url).header(COOKIE, &media);
        request.send().await.unwrap().status()
    };
    assert_eq!(with_cookie(url.as_str().unwrap()).await, StatusCode::OK);
    let nowhere = format!("/api/users/{}/avatar", alice.id);
    assert_eq!(with_cookie(&nowhere).await, StatusCode::NOT_FOUND);
    app.suspends(&bob).await;
    assert_eq!(with_cookie(url.as_str().unwrap()).await, StatusCode::NOT_FOUND);
}
