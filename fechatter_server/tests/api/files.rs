//! Uploads, downloads, and files in messages.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::harness::{Chat, Client, NOTHING, Person, Reply, TestApp};

/// Uploads a file as the raw body, and returns it.
/// Uploads a file as the whole body.
pub(crate) async fn uploads(person: &Person, name: &str, bytes: &[u8]) -> Value {
    let file = uploads_as(person, name, bytes).await.expect(StatusCode::OK);
    file[0].clone()
}

pub(crate) async fn uploads_as(person: &Client, name: &str, bytes: &[u8]) -> Reply {
    let request = person.request(Method::POST, "/api/upload?expand=file");
    let request = request.header(CONTENT_TYPE, "application/octet-stream");
    Reply::to(request.header("x-file-name", name).body(bytes.to_vec())).await
}

/// Uploads several files as a form.
async fn uploads_form(person: &Client, files: &[(&str, &[u8])]) -> Reply {
    let mut body = Vec::new();
    for (name, bytes) in files {
        body.extend_from_slice(
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\n"
            )
            .as_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    let request = person.request(Method::POST, "/api/upload");
    Reply::to(request.header(CONTENT_TYPE, "multipart/form-data; boundary=x").body(body)).await
}

async fn downloads(person: &Client, file: &Value) -> Response {
    gets(person, &format!("/api{}", file["url"].as_str().unwrap())).await
}

async fn gets(person: &Client, path: &str) -> Response {
    person.request(Method::GET, path).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

async fn sends_files(person: &Person, chat: &Chat, files: &[&Value]) -> Reply {
    let urls: Vec<_> = files.iter().map(|file| &file["url"]).collect();
    person.post(&chat.messages, json!({ "content": "", "files": urls })).await
}

/// A PNG of this size with a text, in chunks whose checksums nobody looks at.
pub(crate) fn png(width: u32, height: u32, text: &str) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in
        [(b"IHDR", &header[..]), (b"tEXt", text.as_bytes()), (b"IDAT", b"pixels"), (b"IEND", b"")]
    {
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(kind);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"crc?");
    }
    bytes
}

#[tokio::test]
async fn a_file_is_sent_in_a_message_and_downloaded_by_the_members() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let file = uploads(&alice, "Men%C3%BC.txt", b"noodles").await;
    assert_eq!((&file["name"], &file["size"]), (&json!("Menü.txt"), &json!(7)));
    assert_eq!(file["mime"], "application/octet-stream");
    assert_eq!((&file["width"], &file["alt"]), (&Value::Null, &Value::Null));
    // Nobody else sees it before it is sent.
    assert_eq!(downloads(&alice, &file).await.text().await.unwrap(), "noodles");
    assert_eq!(downloads(&bob, &file).await.status(), StatusCode::NOT_FOUND);

    let url = file["url"].as_str().unwrap();
    let draft = json!({ "content": "", "files": [url], "file_alts": { url: "a menu" } });
    let message = alice.post(&chat.messages, draft).await.expect(StatusCode::CREATED);
    assert_eq!(message["files"], json!([url]));
    let mut attached = file.clone();
    attached["alt"] = "a menu".into();
    assert_eq!(message["attachments"], json!([attached]));
    let page = bob.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(page[0]["attachments"], json!([attached]));
    let sidebar = bob.sidebar(&chat).await;
    assert_eq!(sidebar["last_message"]["has_files"], true);

    let downloaded = downloads(&bob, &file).await;
    assert_eq!(downloaded.status(), StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        (
            "content-disposition",
            "attachment; filename=\"Men_.txt\"; filename*=UTF-8''Men%C3%BC.txt",
        ),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-cache"),
        ("accept-ranges", "bytes"),
        ("content-length", "7"),
    ] {
        assert_eq!(header(&downloaded, name), value);
    }
    assert!(header(&downloaded, "content-security-policy").contains("sandbox"));
    assert_eq!(downloaded.text().await.unwrap(), "noodles");
    assert_eq!(downloads(&carol, &file).await.status(), StatusCode::NOT_FOUND);
    let stranger = downloads(&app.anyone, &file).await;
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);

    let token = carol.with_token("nonsense");
    assert_eq!(downloads(&token, &file).await.status(), StatusCode::UNAUTHORIZED);

    // A member who leaves sees it no more; its uploader does.
    alice.removes([&bob], &chat).await;
    assert_eq!(downloads(&bob, &file).await.status(), StatusCode::NOT_FOUND);
    alice.deletes_message(&chat, &message).await;
    let deleted = alice.get(&chat.message(&message)).await.expect(StatusCode::OK);
    assert_eq!((&deleted["files"], &deleted["attachments"]), (&json!([]), &json!([])));
    assert_eq!(downloads(&alice, &file).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn parts_of_a_file_are_downloaded_and_known_ones_are_not() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let file = uploads(&alice, "digits", b"0123456789").await;
    let path = format!("/api{}", file["url"].as_str().unwrap());
    let get = async |name: &'static str, value: &str| {
        alice.request(Method::GET, &path).header(name, value).send().await.unwrap()
    };
    let part = get("range", "bytes=2-4").await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 2-4/10");
    assert_eq!(part.text().await.unwrap(), "234");
    let beyond = get("range", "bytes=10-").await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&beyond, "content-range"), "bytes */10");
    let body: Value = beyond.json().await.unwrap();
    assert_eq!(body["type"], "range_not_satisfiable");
    let several = get("range", "bytes=0-1,3-4").await;
    assert_eq!(several.text().await.unwrap(), "0123456789");
    let head = alice.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), "10");
    let etag = header(&head, "etag").to_owned();
    let known = get("if-none-match", &etag).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(known.text().await.unwrap(), "");
    let empty = uploads(&alice, "empty", b"").await;
    let empty = downloads(&alice, &empty).await;
    assert_eq!((empty.status(), header(&empty, "content-length")), (StatusCode::OK, "0"));
}

#[tokio::test]
async fn images_are_shown_without_their_texts_and_other_types_are_attachments() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let image = uploads(&alice, "a.png", &png(640, 480, "taken at home")).await;
    assert_eq!(image["mime"], "image/png");
    assert_eq!((&image["width"], &image["height"]), (&json!(640), &json!(480)));
    let shown = downloads(&alice, &image).await;
    assert!(header(&shown, "content-disposition").starts_with("inline;"));
    let bytes = shown.bytes().await.unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"home"));
    assert_eq!(image["size"], bytes.len());
    let path = format!("/api{}?download=1", image["url"].as_str().unwrap());
    let saved = gets(&alice, &path).await;
    assert!(header(&saved, "content-disposition").starts_with("attachment;"));

    for (name, bytes) in [
        ("a.svg", &b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"[..]),
        ("a.html", b"<!doctype html><script>"),
        ("a.pdf", b"%PDF-1.7"),
        ("a.png", b"\x89PNG\r\n\x1a\nbroken"),
    ] {
        let file = uploads(&alice, name, bytes).await;
        assert_eq!(file["mime"], "application/octet-stream", "{name}");
        let saved = downloads(&alice, &file).await;
        assert!(header(&saved, "content-disposition").starts_with("attachment;"));
        assert_eq!(saved.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_form_has_several_files_and_equal_bytes_are_stored_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let urls = uploads_form(&alice, &[("a.txt", b"a"), ("b.txt", b"b")]).await;
    let urls = urls.expect(StatusCode::OK);
    assert_eq!(urls.as_array().unwrap().len(), 2);
    let same = uploads(&bob, "other.txt", b"a").await;
    assert_eq!(same["url"], urls[0]);
    let stored: i64 =
        sqlx::query_scalar("select count(*) from files").fetch_one(&app.db).await.unwrap();
    assert_eq!(stored, 2);
    // The address alone gives nobody access.
    let theirs = gets(&bob, &format!("/api{}", urls[1].as_str().unwrap())).await;
    assert_eq!(theirs.status(), StatusCode::NOT_FOUND);
    let mallory = app.user_in("mallory", "Evil").await;
    let elsewhere = gets(&mallory, &format!("/api{}", urls[0].as_str().unwrap())).await;
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    let same = uploads(&mallory, "a.txt", b"a").await;
    assert_ne!(same["url"], urls[0]);
}

#[tokio::test]
async fn bad_uploads_are_refused_and_leave_nothing() {
    let app = TestApp::with(|config| {
        config.files.max_mebibytes = 1;
        config.files.max_upload_mebibytes = 1;
    })
    .await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    for name in ["a%2Fb", "a%5Cb", "a%00b", "a%0Ab", "", "..", "%FF", &"x".repeat(256)] {
        let refused = uploads_as(&alice, name, b"x").await;
        refused.refuses(StatusCode::BAD_REQUEST, "bad_filename");
    }
    let nameless = alice.request(Method::POST, "/api/upload").body("x");
    Reply::to(nameless).await.refuses(StatusCode::BAD_REQUEST, "bad_filename");
    uploads_form(&alice, &[]).await.refuses(StatusCode::BAD_REQUEST, "no_files");
    let large = vec![0; 1024 * 1024 + 1];
    let refused = uploads_as(&alice, "large", &large).await;
    refused.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    assert_eq!(app.state().await, before);
    assert!(app.stored_files().is_empty());
    let together = uploads_form(&alice, &[("a", &large[1..]), ("b", b"x")]).await;
    together.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");

    let renamed = uploads(&alice, "a%E2%80%AEgpj.exe", b"x").await;
    assert_eq!(renamed["name"], "agpj.exe");
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;
    let mut connection = TcpStream::connect(app.anyone.address()).await.unwrap();
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nHost: acme.test\r\nAuthorization: Bearer {}\r\n\
         X-File-Name: half\r\nContent-Length: 100000\r\n\r\n",
        alice.token
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&[7; 5_000]).await.unwrap();
    let until = async |count: usize| {
        while app.stored_files().len() != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), until(1)).await.unwrap();
    drop(connection);
    timeout(Duration::from_secs(10), until(0)).await.unwrap();
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_workspace_and_a_person_have_quotas() {
    for (workspace, person) in [(1, 100), (100, 1)] {
        let app = TestApp::with(|config| {
            config.files.workspace_mebibytes = workspace;
            config.files.person_mebibytes = person;
        })
        .await;
        let alice = app.user("alice").await;
        let bytes = vec![7; 1024 * 1024];
        uploads(&alice, "a", &bytes).await;
        uploads(&alice, "the same again", &bytes).await;
        let refused = uploads_as(&alice, "b", b"x").await;
        refused.refuses(StatusCode::INSUFFICIENT_STORAGE, "quota_exceeded");
        assert_eq!(app.stored_files().len(), 1);
    }
}

#[tokio::test]
async fn only_files_that_one_may_see_can_be_sent() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let lunch = alice.creates_private_channel("lunch", [&bob]).await;
    let dinner = bob.creates_private_channel("dinner", [&carol]).await;
    let file = uploads(&alice, "menu.txt", b"noodles").await;
    let refused = sends_files(&bob, &dinner, &[&file]).await;
    refused.refuses(StatusCode::BAD_REQUEST, "file_not_found");
    sends_files(&alice, &lunch, &[&file]).await.expect(StatusCode::CREATED);
    // Bob has it from Alice, and passes it on.
    let passed = sends_files(&bob, &dinner, &[&file]).await.expect(StatusCode::CREATED);
    assert_eq!(passed["attachments"][0]["name"], "menu.txt");
    assert_eq!(downloads(&carol, &file).await.status(), StatusCode::OK);

    let before = app.state().await;
    let many: Vec<_> = std::iter::repeat_n(&file["url"], 21).collect();
    for (draft, kind) in [
        (json!({ "content": "", "files": [] }), "empty_message"),
        (json!({ "content": "x", "files": many }), "invalid_input"),
        (json!({ "content": "x", "files": ["/files/1/aaa/bbb/c.txt"] }), "file_not_found"),
        (json!({ "content": "x", "files": ["https://acme.test/a"] }), "file_not_found"),
        (json!({ "content": "x", "file_alts": { "y": "z" } }), "invalid_input"),
        (
            json!({ "content": "x", "files": [file["url"]], "file_alts": { file["url"].as_str().unwrap(): "x".repeat(501) } }),
            "invalid_input",
        ),
    ] {
        let reply = alice.post(&lunch.messages, draft).await;
        reply.refuses(StatusCode::BAD_REQUEST, kind);
    }
    assert_eq!(app.state().await["messages"], before["messages"]);
}

#[tokio::test]
async fn a_repeated_message_with_files_is_one_message() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let file = uploads(&alice, "menu.txt", b"noodles").await;
    let key = uuid::Uuid::new_v4();
    let draft = json!({ "content": "", "files": [file["url"]], "idempotency_key": key });
    let first = alice.post(&chat.messages, draft.clone()).await.expect(StatusCode::CREATED);
    // Also when the file has gone since.
    app.sql("delete from files").await;
    let again = alice.post(&chat.messages, draft).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(StatusCode::CREATED)["id"], first["id"]);
    let other = json!({ "content": "", "files": ["/files/1/a/b/c.d"], "idempotency_key": key });
    let mismatch = alice.post(&chat.messages, other).await;
    mismatch.refuses(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch");
}

#[tokio::test]
async fn the_cookie_of_a_session_and_signed_links_open_files() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let file = uploads(&alice, "menu.txt", b"noodles").await;
    let path = format!("/api{}", file["url"].as_str().unwrap());
    let signed_in = app.tries(&alice.email, crate::harness::PASSWORD).await;
    let cookies: Vec<_> = signed_in.headers.get_all(SET_COOKIE).iter().collect();
    let media = cookies.iter().filter_map(|cookie| cookie.to_str().ok());
    let media = media.filter(|cookie| cookie.starts_with("media=")).collect::<Vec<_>>();
    let [media] = media[..] else { panic!("{cookies:?}") };
    assert!(media.contains("HttpOnly") && media.contains("SameSite=Strict"), "{media}");
    let media = media.split(';').next().unwrap();
    let with_cookie = async |path: &str, cookie: &str| {
        app.anyone.request(Method::GET, path).header(COOKIE, cookie).send().await.unwrap()
    };
    assert_eq!(with_cookie(&path, media).await.status(), StatusCode::OK);
    assert_eq!(with_cookie(&path, "media=AAAA").await.status(), StatusCode::NOT_FOUND);
    let foreign = app.anyone.request(Method::GET, &path).header(COOKIE, media);
    let foreign = foreign.header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    // It opens nothing else.
    assert_eq!(with_cookie("/api/me", media).await.status(), StatusCode::UNAUTHORIZED);

    let draft = json!({ "url": file["url"] });
    let link = alice.post("/api/files/link", draft.clone()).await.expect(StatusCode::OK);
    assert_eq!(link["expires_in"], 300);
    let link = link["url"].as_str().unwrap();
    assert_eq!(gets(&app.anyone, link).await.status(), StatusCode::OK);
    for bad in [link.replace("expires=", "expires=9"), link.replace("signature=", "signature=A")] {
        assert_eq!(gets(&app.anyone, &bad).await.status(), StatusCode::NOT_FOUND, "{bad}");
    }
    bob.post("/api/files/link", draft).await.refuses(StatusCode::NOT_FOUND, "not_found");
    alice.post("/api/logout-all", NOTHING).await.expect(StatusCode::OK);
    assert_eq!(gets(&app.anyone, link).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(with_cookie(&path, media).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_is_suspended_or_gone_sees_no_file() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("lunch", [&bob, &carol]).await;
    let file = uploads(&alice, "menu.txt", b"noodles").await;
    sends_files(&alice, &chat, &[&file]).await.expect(StatusCode::CREATED);
    let draft = json!({ "url": file["url"] });
    let link = bob.post("/api/files/link", draft).await.expect(StatusCode::OK);
    let link = link["url"].as_str().unwrap();
    assert_eq!(gets(&app.anyone, link).await.status(), StatusCode::OK);
    app.suspends(&bob).await;
    assert_eq!(downloads(&bob, &file).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(gets(&app.anyone, link).await.status(), StatusCode::NOT_FOUND);
    let path = format!("/api/users/{}", carol.id);
    alice.delete(&path, NOTHING).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(downloads(&carol, &file).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(downloads(&alice, &file).await.status(), StatusCode::OK);
    alice.deletes(&chat).await;
    assert_eq!(downloads(&alice, &file).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_erased_person_keeps_no_file_that_no_message_holds() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = uploads(&bob, "bobs menu.txt", b"noodles").await;
    sends_files(&bob, &chat, &[&sent]).await.expect(StatusCode::CREATED);
    let shared = uploads(&bob, "shared.txt", b"shared").await;
    uploads(&alice, "mine.txt", b"shared").await;
    uploads(&bob, "secret.txt", b"secret").await;
    let erase = json!({ "password": crate::harness::PASSWORD, "messages": "keep" });
    bob.delete("/api/me", erase).await.expect(StatusCode::NO_CONTENT);
    let removed = async {
        while app.stored_files().len() > 2 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), removed).await.unwrap();
    for file in [&sent, &shared] {
        assert_eq!(downloads(&alice, file).await.status(), StatusCode::OK);
    }
    assert!(!format!("{:?}", app.state().await).contains("secret.txt"));
}

#[tokio::test]
async fn files_that_no_message_holds_are_removed_after_a_day() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let kept = uploads(&alice, "kept", b"kept").await;
    sends_files(&alice, &chat, &[&kept]).await.expect(StatusCode::CREATED);
    let orphan = uploads(&alice, "orphan", b"orphan").await;
    app.sql("update files set touched_at = touched_at - interval '25 hours'").await;
    let fresh = uploads(&alice, "fresh", b"fresh").await;
    assert_eq!(app.stored_files().len(), 3);

    // A deleted chat wakes the removal.
    let other = alice.creates_private_channel("other", []).await;
    alice.deletes(&other).await;
    let gone = async || downloads(&alice, &orphan).await.status() == StatusCode::NOT_FOUND;
    let removed = async {
        while !gone().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), removed).await.unwrap();
    assert_eq!(app.stored_files().len(), 2);
    for file in [&kept, &fresh] {
        assert_eq!(downloads(&alice, file).await.status(), StatusCode::OK);
    }
}
