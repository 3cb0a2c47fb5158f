//! Signing up and signing in.

use fechatter_core::workspace::JoinPolicy;
use fechatter_server::{Config, WorkspaceCreation};
use insta::assert_json_snapshot;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, PASSWORD, Person, Reply, TestApp};

#[tokio::test]
async fn signing_up_with_a_new_workspace_makes_the_person_its_owner() {
    let app = TestApp::start().await;

    let reply = app.anyone.post("/api/signup", alice()).await;

    let auth = reply.expect(StatusCode::CREATED);
    assert_json_snapshot!(reply.ordered(), {
        ".access_token" => "[token]",
        ".refresh_token" => "[token]",
        ".session_id" => "[uuid]",
        ".device_token" => "[token]",
        ".**.created_at" => "[time]",
    }, @r#"
    {
      "access_token": "[token]",
      "expires_in": 900,
      "refresh_token": "[token]",
      "user": {
        "id": 1,
        "fullname": "Alice",
        "email": "alice@acme.test",
        "status": "Active",
        "created_at": "[time]",
        "workspace_id": 1,
        "role": "owner",
        "title": null,
        "avatar_url": null
      },
      "workspace": {
        "id": 1,
        "name": "Acme",
        "owner_id": 1,
        "created_at": "[time]",
        "join_policy": "open",
        "member_count": 1
      },
      "session_id": "[uuid]",
      "device_token": "[token]"
    }
    "#);
    let alice = Person::signed_in(&app.anyone, &auth);
    assert_eq!(alice.get("/api/me").await.expect(StatusCode::OK), auth["user"]);
}

#[tokio::test]
async fn times_are_utc_with_milliseconds() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let me = alice.get("/api/me").await.expect(StatusCode::OK);

    let time = me["created_at"].as_str().unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

#[tokio::test]
async fn signing_up_to_an_open_workspace_joins_it_whatever_its_case() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mut log = app.log_of(alice.workspace_id).await;

    let bob = sign_up("Bob", "bob@acme.test", "  aCmE ");
    let auth = app.anyone.post("/api/signup", bob).await.expect(StatusCode::CREATED);

    assert_eq!(auth["workspace"]["id"], alice.workspace_id);
    assert_eq!(auth["workspace"]["name"], "Acme");
    assert_eq!(auth["user"]["role"], "member");
    let joined = Log::only(log.news().await, "UserJoinedWorkspace");
    assert_eq!(joined.data(), auth["user"]);
    assert_eq!((joined.chat_id, joined.user_id), (None, None));
}

#[tokio::test]
async fn an_email_address_is_taken_once_whatever_its_case() {
    let app = TestApp::start().await;
    app.anyone.post("/api/signup", alice()).await.expect(StatusCode::CREATED);
    let before = app.state().await;

    for email in ["alice@acme.test", "ALICE@Acme.Test"] {
        let again = app.anyone.post("/api/signup", sign_up("Alice", email, "Other")).await;
        again.refuses(StatusCode::CONFLICT, "email_taken");
    }

    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn only_one_of_two_simultaneous_sign_ups_gets_an_email_address() {
    let app = TestApp::start().await;

    let (one, other) = tokio::join!(
        app.anyone.post("/api/signup", alice()),
        app.anyone.post("/api/signup", alice()),
    );

    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn simultaneous_sign_ups_with_one_new_workspace_name_share_the_workspace() {
    let app = TestApp::start().await;

    let (one, other) = tokio::join!(
        app.anyone.post("/api/signup", sign_up("Alice", "alice@acme.test", "Acme")),
        app.anyone.post("/api/signup", sign_up("Bob", "bob@acme.test", "ACME")),
    );

    let (one, other) = (one.expect(StatusCode::CREATED), other.expect(StatusCode::CREATED));
    assert_eq!(one["workspace"]["id"], other["workspace"]["id"]);
    let mut roles = [&one, &other].map(|auth| auth["user"]["role"].as_str().unwrap());
    roles.sort_unstable();
    assert_eq!(roles, ["member", "owner"]);
}

#[tokio::test]
async fn names_are_trimmed_and_composed() {
    let app = TestApp::start().await;

    let zoe = sign_up("  Zoe\u{308} 李\u{3000}", "zoe@acme.test", " Cafe\u{301} ");
    let auth = app.anyone.post("/api/signup", zoe).await.expect(StatusCode::CREATED);

    assert_eq!(auth["user"]["fullname"], "Zo\u{eb} 李");
    assert_eq!(auth["workspace"]["name"], "Caf\u{e9}");
    let bob = sign_up("Bob", "bob@acme.test", "CAF\u{c9}");
    let auth = app.anyone.post("/api/signup", bob).await.expect(StatusCode::CREATED);
    assert_eq!(auth["user"]["role"], "member");
}

#[tokio::test]
async fn limits_of_length_count_characters() {
    let app = TestApp::start().await;
    let longest_email = format!("{}@{}.test", "a".repeat(64), long_host(184));
    let longest = json!({
        "fullname": "😀".repeat(50),
        "email": longest_email,
        "password": "😀".repeat(128),
        "workspace": "😀".repeat(32),
    });
    let shortest = json!({
        "fullname": "X", "email": "x@y.zz", "password": "12345678", "workspace": "W"
    });
    assert_eq!(longest_email.len(), 254);
    app.anyone.post("/api/signup", longest).await.expect(StatusCode::CREATED);
    app.anyone.post("/api/signup", shortest).await.expect(StatusCode::CREATED);
    let before = app.state().await;

    for (field, value) in [
        ("fullname", String::new()),
        ("fullname", "   ".into()),
        ("fullname", "x".repeat(51)),
        ("email", format!("{}@{}.test", "a".repeat(64), long_host(185))),
        ("workspace", String::new()),
        ("workspace", "\u{3000}".into()),
        ("workspace", "x".repeat(33)),
    ] {
        let mut draft = alice();
        draft[field] = value.into();
        let refused = app.anyone.post("/api/signup", draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for password in [String::new(), "1234567".into(), "😀".repeat(7), "x".repeat(129)] {
        let mut draft = alice();
        draft["password"] = password.into();
        app.anyone.post("/api/signup", draft).await.expect(StatusCode::BAD_REQUEST);
    }

    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn an_email_address_must_look_like_one() {
    let app = TestApp::start().await;

    for email in [
        "",
        "alice",
        "@acme.test",
        "alice@",
        "alice@@acme.test",
        "alice@acme..test",
        "alice@.test",
        "al ice@acme.test",
        "alice@ac me.test",
        "alice\u{0}@acme.test",
        "alice@acme.test, bob@acme.test",
    ] {
        let refused = app.anyone.post("/api/signup", sign_up("Alice", email, "Acme")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn control_characters_in_names_are_refused() {
    let app = TestApp::start().await;

    for control in ['\u{0}', '\u{7}', '\u{7f}', '\u{9}', '\n', '\r', '\u{85}'] {
        for field in ["fullname", "workspace"] {
            let mut draft = alice();
            draft[field] = format!("Al{control}ice").into();
            let refused = app.anyone.post("/api/signup", draft).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
    }
}

#[tokio::test]
async fn a_sign_up_with_a_missing_wrong_or_unknown_field_is_refused() {
    let app = TestApp::start().await;

    for field in ["fullname", "email", "password", "workspace"] {
        let mut missing = alice();
        missing.as_object_mut().unwrap().remove(field);
        let mut number = alice();
        number[field] = json!(7);
        let mut null = alice();
        null[field] = Value::Null;
        for draft in [missing, number, null] {
            let refused = app.anyone.post("/api/signup", draft).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
    }
    for (field, value) in [("role", json!("owner")), ("id", json!(7)), ("status", json!("Active"))]
    {
        let mut draft = alice();
        draft[field] = value;
        let refused = app.anyone.post("/api/signup", draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn the_most_common_passwords_are_refused_where_the_list_is_on() {
    let app = TestApp::with(|config| config.accounts.refuse_common_passwords = true).await;
    let before = app.state().await;

    for password in ["password", "12345678", "password123", "qwertyuiop", "PASSWORD1"] {
        let mut draft = alice();
        draft["password"] = password.into();
        let refused = app.anyone.post("/api/signup", draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "weak_password");
    }
    assert_eq!(app.state().await, before);

    let mut draft = alice();
    draft["password"] = "quartz vexing jumble".into();
    app.anyone.post("/api/signup", draft).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_password_is_neither_trimmed_nor_folded_but_normalized_to_nfc() {
    let app = TestApp::start().await;
    let mut draft = alice();
    draft["password"] = "  Cafe\u{301} at nine  ".into();
    app.anyone.post("/api/signup", draft).await.expect(StatusCode::CREATED);

    for password in ["  Cafe\u{301} at nine  ", "  Caf\u{e9} at nine  "] {
        app.tries("alice@acme.test", password).await.expect(StatusCode::OK);
    }
    for password in ["Caf\u{e9} at nine", "  CAF\u{c9} at nine  ", "  Cafe at nine  "] {
        let refused = app.tries("alice@acme.test", password).await;
        refused.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    }
}

#[tokio::test]
async fn by_default_only_the_first_sign_up_creates_a_workspace() {
    let app = TestApp::with(as_shipped).await;
    let mut request = alice();
    request["setup_code"] = app.setup_code().into();
    let first = app.anyone.post("/api/signup", request).await.expect(StatusCode::CREATED);
    assert_eq!(first["user"]["role"], "owner");
    assert_eq!(first["workspace"]["join_policy"], "invite");
    let before = app.state().await;

    let uninvited = app.anyone.post("/api/signup", sign_up("Bob", "bob@acme.test", "Acme")).await;
    uninvited.refuses(StatusCode::FORBIDDEN, "invite_required");
    let founder = app.anyone.post("/api/signup", sign_up("Bob", "bob@acme.test", "Bobs")).await;
    founder.refuses(StatusCode::FORBIDDEN, "invite_required");
    assert_eq!(founder.without_id(), uninvited.without_id());
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn the_policy_nobody_also_refuses_the_first_workspace() {
    let app = TestApp::with(|config| {
        config.accounts.workspace_creation = WorkspaceCreation::Nobody;
    })
    .await;

    let refused = app.anyone.post("/api/signup", alice()).await;

    refused.refuses(StatusCode::FORBIDDEN, "invite_required");
}

#[tokio::test]
async fn a_sign_in_opens_a_new_session_for_the_same_person_and_workspace() {
    let app = TestApp::start().await;
    let signed_up = app.anyone.post("/api/signup", alice()).await.expect(StatusCode::CREATED);

    for email in ["alice@acme.test", "Alice@ACME.test"] {
        let signed_in = app.tries(email, PASSWORD).await.expect(StatusCode::OK);

        assert_eq!(signed_in["user"], signed_up["user"]);
        assert_eq!(signed_in["workspace"], signed_up["workspace"]);
        assert_ne!(signed_in["session_id"], signed_up["session_id"]);
        assert_ne!(signed_in["refresh_token"], signed_up["refresh_token"]);
    }
}

#[tokio::test]
async fn all_wrong_credentials_get_the_same_response() {
    let app = TestApp::start().await;
    app.user("alice").await;
    app.user_in("mallory", "Evil Corp").await;
    let before = app.state().await;

    let wrong = app.tries("alice@acme.test", "not my password").await;
    wrong.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    let mut others = vec![app.tries("nobody@acme.test", PASSWORD).await];
    for workspace in ["Evil Corp", "Nowhere"] {
        let credentials = json!({
            "email": "alice@acme.test", "password": PASSWORD, "workspace": workspace
        });
        others.push(app.anyone.post("/api/signin", credentials).await);
    }

    for other in others {
        assert_eq!(other.status, StatusCode::FORBIDDEN);
        assert_eq!(other.without_id(), wrong.without_id());
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_sign_in_chooses_the_named_or_the_last_used_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let bobs = app.user_in("bob", "Bobs").await;
    let join = alice.post("/api/workspaces/join", json!({ "name": "Bobs" })).await;
    join.expect(StatusCode::CREATED);

    let named = |workspace: &'static str| {
        let credentials = json!({
            "email": "alice@acme.test", "password": PASSWORD, "workspace": workspace
        });
        app.anyone.post("/api/signin", credentials)
    };
    for (workspace, id) in [("bobs", bobs.workspace_id), (" ACME ", alice.workspace_id)] {
        let auth = named(workspace).await.expect(StatusCode::OK);
        assert_eq!(auth["workspace"]["id"], id);
        assert_eq!(auth["user"]["workspace_id"], id);
        let auth = app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
        assert_eq!(auth["workspace"]["id"], id, "the last used");
    }
}

#[tokio::test]
async fn a_suspended_person_can_sign_in_only_to_other_workspaces() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    app.suspends(&alice).await;

    let refused = app.tries("alice@acme.test", PASSWORD).await;
    refused.refuses(StatusCode::FORBIDDEN, "suspended");
    let wrong = app.tries("alice@acme.test", "not my password").await;
    wrong.refuses(StatusCode::FORBIDDEN, "invalid_credentials");

    app.user_in("bob", "Bobs").await;
    app.sql(
        "insert into workspace_members
             (workspace_id, user_id, fullname, role, last_used_at)
         values (2, 1, 'Alice', 'member', now() - interval '1 day')",
    )
    .await;
    let auth = app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
    assert_eq!(auth["workspace"]["name"], "Bobs");
}

#[tokio::test]
async fn a_sign_in_with_a_missing_wrong_or_unknown_field_is_refused() {
    let app = TestApp::start().await;
    let refused: Vec<Reply> = vec![
        app.anyone.post("/api/signin", json!({})).await,
        app.anyone.post("/api/signin", json!({ "email": "alice@acme.test" })).await,
        app.anyone.post("/api/signin", json!({ "email": 1, "password": PASSWORD })).await,
        app.anyone
            .post("/api/signin", json!({ "email": "a@b.cc", "password": PASSWORD, "admin": true }))
            .await,
    ];
    for reply in refused {
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

fn alice() -> Value {
    sign_up("Alice", "alice@acme.test", "Acme")
}

#[tokio::test]
async fn an_email_address_that_is_longer_in_lower_case_can_sign_in() {
    let app = TestApp::start().await;
    let email = format!("{}@x.io", "İ".repeat(130));

    let signed_up = app.anyone.post("/api/signup", sign_up("Alice", &email, "Acme")).await;
    signed_up.expect(StatusCode::CREATED);
    app.tries(&email, PASSWORD).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_name_without_visible_characters_is_refused() {
    let app = TestApp::start().await;

    for (fullname, workspace) in [("\u{200b}\u{feff}", "Acme"), ("Alice", "\u{2060}")] {
        let body = sign_up(fullname, "alice@acme.test", workspace);
        app.anyone
            .post("/api/signup", body)
            .await
            .refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_sign_up_to_a_closed_workspace_does_not_reveal_email_addresses() {
    let app = TestApp::with(as_shipped).await;
    app.user("alice").await;

    let mut answers = Vec::new();
    for workspace in ["Acme", "Elsewhere"] {
        for email in ["alice@acme.test", "dave@acme.test"] {
            let refused = app.anyone.post("/api/signup", sign_up("Dave", email, workspace)).await;
            refused.refuses(StatusCode::FORBIDDEN, "invite_required");
            answers.push(refused.without_id());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_password_is_checked_only_after_the_right_to_join() {
    let app = TestApp::with(|config| {
        as_shipped(config);
        config.accounts.refuse_common_passwords = true;
    })
    .await;
    let alice = app.user("alice").await;
    let weak = |email: &str, workspace: &str| {
        let mut body = sign_up("Dave", email, workspace);
        body["password"] = "password1".into();
        body
    };

    for workspace in ["Acme", "Elsewhere"] {
        let refused = app.anyone.post("/api/signup", weak("dave@acme.test", workspace)).await;
        refused.refuses(StatusCode::FORBIDDEN, "invite_required");
    }
    alice.patch("/api/workspace", json!({ "join_policy": "open" })).await.expect(StatusCode::OK);
    let taken = app.anyone.post("/api/signup", weak("alice@acme.test", "Acme")).await;
    taken.refuses(StatusCode::CONFLICT, "email_taken");
    let weak = app.anyone.post("/api/signup", weak("dave@acme.test", "Acme")).await;
    weak.refuses(StatusCode::BAD_REQUEST, "weak_password");
}

#[tokio::test]
async fn a_password_with_many_substitutions_does_not_delay_a_sign_up() {
    let app = TestApp::with(|config| config.accounts.refuse_common_passwords = true).await;
    let pattern = "4@8({[<369&#!1/|0$57+%2".repeat(6);
    for (number, start) in (0..8).enumerate() {
        let mut body = sign_up("Dave", &format!("dave{number}@acme.test"), "Acme");
        body["password"] = pattern[start..start + 128].into();
        app.anyone.post("/api/signup", body).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn the_first_workspace_of_a_shipped_server_needs_the_operators_code() {
    let app = TestApp::with(as_shipped).await;
    let before = app.state().await;
    let with = async |code: Value| {
        let mut request = alice();
        request["setup_code"] = code;
        app.anyone.post("/api/signup", request).await
    };
    let refused = async |code: Value| {
        with(code).await.refuses(StatusCode::FORBIDDEN, "setup_code_required");
    };

    app.anyone
        .post("/api/signup", alice())
        .await
        .refuses(StatusCode::FORBIDDEN, "setup_code_required");
    refused(Value::Null).await;
    refused("x".into()).await;
    assert_eq!(app.state().await, before);
    let info = app.anyone.get("/api/server").await.expect(StatusCode::OK);
    assert_eq!(info["can_create_workspace"], true);

    let older = app.setup_code();
    let newer = app.setup_code();
    refused(older.into()).await;
    app.sql("update setup_codes set expires_at = expires_at - interval '25 hours'").await;
    refused(newer.into()).await;
    let code = app.setup_code();
    assert!(!format!("{:?}", app.state().await).contains(&code));
    with(code.clone().into()).await.expect(StatusCode::CREATED);

    // Once there is a workspace, nobody else founds one with it.
    let mut request = sign_up("Bob", "bob@acme.test", "Bobs");
    request["setup_code"] = code.into();
    let refused = app.anyone.post("/api/signup", request).await;
    refused.refuses(StatusCode::FORBIDDEN, "invite_required");
    let info = app.anyone.get("/api/server").await.expect(StatusCode::OK);
    assert_eq!(info["can_create_workspace"], false);
    let complaint = String::from_utf8(app.admin(&["setup-link"]).stderr).unwrap();
    assert!(complaint.contains("there is a workspace already"), "{complaint}");
}

#[tokio::test]
async fn a_code_changes_nothing_where_everybody_or_nobody_creates_workspaces() {
    for (creation, kind) in
        [(WorkspaceCreation::Anyone, None), (WorkspaceCreation::Nobody, Some("invite_required"))]
    {
        let app = TestApp::with(|config| config.accounts.workspace_creation = creation).await;
        let mut request = alice();
        request["setup_code"] = "x".into();
        let reply = app.anyone.post("/api/signup", request).await;
        match kind {
            None => _ = reply.expect(StatusCode::CREATED),
            Some(kind) => _ = reply.refuses(StatusCode::FORBIDDEN, kind),
        }
    }
}

fn sign_up(fullname: &str, email: &str, workspace: &str) -> Value {
    json!({ "fullname": fullname, "email": email, "password": PASSWORD, "workspace": workspace })
}

/// A host's name of this length, of labels that are not too long.
fn long_host(length: usize) -> String {
    let host = format!("{}.", "b".repeat(59)).repeat(4);
    host[..length].trim_end_matches('.').to_owned()
}

fn as_shipped(config: &mut Config) {
    config.accounts.workspace_creation = WorkspaceCreation::FirstOnly;
    config.accounts.join_policy = JoinPolicy::Invite;
}
