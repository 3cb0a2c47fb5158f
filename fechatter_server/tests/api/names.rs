//! Names that cannot be seen, and names that look the same.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{PASSWORD, Person, TestApp};

/// Fillers, marks of direction, joiners, selectors, tags, blanks: none leaves a trace.
const INVISIBLE: &str = "\u{ad}\u{34f}\u{61c}\u{115f}\u{17b4}\u{180b}\u{180e}\u{200b}\u{200c}\
    \u{200d}\u{200e}\u{200f}\u{202e}\u{2060}\u{2066}\u{2800}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\
    \u{fff9}\u{13441}\u{13442}\u{16fe4}\u{1bca0}\u{1d159}\u{1d173}\u{e0001}\u{e0020}\u{e0100}";

/// Spellings of "general" that nobody can tell from it.
const LIKE_GENERAL: [&str; 9] = [
    "gener\u{430}l",
    "ｇｅｎｅｒａｌ",
    "𝐆𝐄𝐍𝐄𝐑𝐀𝐋",
    "genera\u{2113}",
    "\u{a0}general\u{2003}",
    "g\u{435}n\u{435}ral",
    "General\u{fe0f}",
    "GE\u{39d}ERAL",
    "genera\u{406}",
];

#[tokio::test]
async fn a_name_of_invisible_characters_is_refused() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let before = app.state().await;

    for c in INVISIBLE.chars() {
        for name in [c.to_string(), format!("{c} \u{3000}{c}")] {
            let mut replies = Vec::new();
            for chat_type in ["PublicChannel", "PrivateChannel", "Single"] {
                let draft = json!({ "name": name, "chat_type": chat_type, "members": [bob.id] });
                replies.push(alice.post("/api/chat", draft).await);
            }
            let draft = json!({ "name": "x", "chat_type": "PublicChannel", "description": name });
            replies.push(alice.post("/api/chat", draft).await);
            replies.push(alice.patch(&chat.path, json!({ "name": name })).await);
            replies.push(alice.patch(&chat.path, json!({ "description": name })).await);
            replies.push(alice.post("/api/workspaces", json!({ "name": name })).await);
            replies.push(alice.patch("/api/workspace", json!({ "name": name })).await);
            for (fullname, workspace) in [(name.as_str(), "Acme"), ("Dave", name.as_str())] {
                let body = sign_up(fullname, "dave@acme.test", workspace);
                replies.push(app.anyone.post("/api/signup", body).await);
            }
            for refused in replies {
                refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
            }
        }
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_name_with_line_separators_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;

    for separator in ['\u{2028}', '\u{2029}', '\n', '\u{85}'] {
        let name = format!("gen{separator}eral");
        for draft in [
            json!({ "name": name, "chat_type": "PublicChannel" }),
            json!({ "name": "x", "chat_type": "PublicChannel", "description": name }),
        ] {
            let refused = alice.post("/api/chat", draft).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
        let refused = alice.post("/api/workspaces", json!({ "name": name })).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        let body = sign_up(&name, "dave@acme.test", "Acme");
        let refused = app.anyone.post("/api/signup", body).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn invisible_characters_do_not_make_a_channel_name_different() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    alice.creates_public_channel("general").await;
    let before = app.state().await;

    for c in INVISIBLE.chars() {
        for name in [format!("gen{c}eral"), format!("{c}General"), format!("general{c}")] {
            let draft = json!({ "name": name, "chat_type": "PublicChannel" });
            let refused = alice.post("/api/chat", draft).await;
            refused.refuses(StatusCode::CONFLICT, "chat_name_taken");
        }
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn look_alikes_do_not_make_a_channel_name_different() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    alice.creates_public_channel("general").await;
    alice.creates_public_channel("team  chat").await;
    alice.creates_public_channel("новости").await;
    let public = alice.creates_public_channel("other").await;
    let before = app.state().await;

    for name in LIKE_GENERAL.into_iter().chain([
        "Team chat",
        "team\u{a0}ch\u{430}t",
        "team\u{2800}chat",
        "team\u{3164}chat",
        "\u{29c}овости",
    ]) {
        let draft = json!({ "name": name, "chat_type": "PublicChannel" });
        let refused = alice.post("/api/chat", draft).await;
        refused.refuses(StatusCode::CONFLICT, "chat_name_taken");
        let refused = alice.patch(&public.path, json!({ "name": name })).await;
        refused.refuses(StatusCode::CONFLICT, "chat_name_taken");
    }
    assert_eq!(app.state().await, before);

    let private = alice.creates_private_channel(LIKE_GENERAL[0], []).await;
    let refused = alice.patch(&private.path, json!({ "chat_type": "PublicChannel" })).await;
    refused.refuses(StatusCode::CONFLICT, "chat_name_taken");
    let both = json!({ "chat_type": "PublicChannel", "name": "Gener\u{430}l 2" });
    alice.patch(&private.path, both).await.expect(StatusCode::OK);
    let draft = json!({ "name": "general 2", "chat_type": "PublicChannel" });
    alice.post("/api/chat", draft).await.refuses(StatusCode::CONFLICT, "chat_name_taken");
}

#[tokio::test]
async fn names_of_different_ascii_characters_are_different_names() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for name in ["modem", "modern", "10", "lo", "IO", "l0", "team chat", "teamchat"] {
        alice.creates_public_channel(name).await;
    }
}

#[tokio::test]
async fn a_name_keeps_its_joiners_selectors_and_tags() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for name in [
        "👩\u{200d}👩\u{200d}👧 family",
        "❤\u{fe0f} letters",
        "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f} fans",
        "نامه\u{200c}ای",
        "\u{200e}news\u{200f}!",
    ] {
        assert_eq!(alice.creates_public_channel(name).await.body["name"], name);
    }
}

#[tokio::test]
async fn look_alikes_do_not_make_a_workspace_name_different() {
    let app = TestApp::start().await;
    let alice = app.user_in("alice", "general").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let before = app.state().await;

    let invisible = INVISIBLE.chars().map(|c| format!("gen{c}eral"));
    let spellings: Vec<_> =
        LIKE_GENERAL.into_iter().map(ToOwned::to_owned).chain(invisible).collect();
    for name in &spellings {
        let refused = mallory.post("/api/workspaces", json!({ "name": name })).await;
        refused.refuses(StatusCode::CONFLICT, "workspace_taken");
        let refused = mallory.patch("/api/workspace", json!({ "name": name })).await;
        refused.refuses(StatusCode::CONFLICT, "workspace_taken");
    }
    assert_eq!(app.state().await, before);

    let evil = mallory.patch("/api/workspace", json!({ "name": "Ev\u{456}l  C\u{43e}rp" })).await;
    evil.expect(StatusCode::OK);
    let refused = alice.post("/api/workspaces", json!({ "name": "evil corp" })).await;
    refused.refuses(StatusCode::CONFLICT, "workspace_taken");
}

#[tokio::test]
async fn a_workspace_is_found_by_a_look_alike_of_its_name() {
    let app = TestApp::start().await;
    let alice = app.user_in("alice", "general").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;

    let invisible = ["gen\u{2800}eral", "gen\u{34f}eral", "\u{61c}general"];
    for (n, name) in LIKE_GENERAL.into_iter().chain(invisible).enumerate() {
        let body = sign_up("Bob", &format!("bob{n}@general.test"), name);
        let auth = app.anyone.post("/api/signup", body).await.expect(StatusCode::CREATED);
        assert_eq!(auth["workspace"]["id"], alice.workspace_id, "{name}");
        let credentials = json!({ "email": alice.email, "password": PASSWORD, "workspace": name });
        let auth = app.anyone.post("/api/signin", credentials).await.expect(StatusCode::OK);
        assert_eq!(auth["workspace"]["id"], alice.workspace_id, "{name}");
        let joined = mallory.post("/api/workspaces/join", json!({ "name": name })).await;
        assert!(joined.status.is_success(), "{name}");
    }
}

#[tokio::test]
async fn an_email_address_has_no_invisible_characters() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = app.state().await;

    for c in INVISIBLE.chars().chain(['\u{2028}', '\u{2029}', '\u{a0}', '\u{3000}']) {
        for email in [
            format!("al{c}ice@acme.test"),
            format!("{c}@acme.test"),
            format!("bob@ac{c}me.test"),
            format!("bob@{c}.test"),
        ] {
            let refused = app.anyone.post("/api/signup", sign_up("Bob", &email, "Acme")).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
            let refused = alice.post("/api/invites", json!({ "email": email })).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn searches_ignore_invisible_characters() {
    let app = TestApp::start().await;
    let body = sign_up("zo\u{115f}e", "alice@acme.test", "Acme");
    let auth = app.anyone.post("/api/signup", body).await.expect(StatusCode::CREATED);
    let alice = Person::signed_in(&app.anyone, &auth);
    let news = alice.creates_public_channel("Ne\u{61c}ws").await;

    for q in ["news", "n%E2%A0%80ews", "%EF%B8%8F"] {
        let found = alice.get(&format!("/api/chat/directory?q={q}")).await.expect(StatusCode::OK);
        assert_eq!(found["items"][0]["id"], news.id, "{q}");
    }
    for q in ["zoe", "zo%E1%85%9Fe"] {
        let found = alice.get(&format!("/api/users?q={q}")).await.expect(StatusCode::OK);
        assert_eq!(found[0]["id"], alice.id, "{q}");
    }
}

fn sign_up(fullname: &str, email: &str, workspace: &str) -> Value {
    json!({ "fullname": fullname, "email": email, "password": PASSWORD, "workspace": workspace })
}
