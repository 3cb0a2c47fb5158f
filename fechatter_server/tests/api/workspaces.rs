//! Workspaces: founding them, joining them, going from one to another.

use fechatter_server::WorkspaceCreation;
use insta::assert_json_snapshot;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, Person, TestApp};

#[tokio::test]
async fn one_account_can_be_in_several_workspaces() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let reply = alice.post("/api/workspaces", json!({ "name": "  Side Project " })).await;

    let founded = reply.expect(StatusCode::CREATED);
    assert_json_snapshot!(reply.ordered(), { ".created_at" => "[time]" }, @r#"
    {
      "id": 2,
      "name": "Side Project",
      "owner_id": 1,
      "created_at": "[time]",
      "join_policy": "open",
      "member_count": 1
    }
    "#);
    let list = alice.get("/api/workspaces").await.expect(StatusCode::OK);
    let mut mine = vec![alice.get("/api/workspace").await.expect(StatusCode::OK), founded];
    for workspace in &mut mine {
        workspace["role"] = "owner".into();
        for count in ["unread_count", "mention_count"] {
            workspace[count] = 0.into();
        }
        workspace["unread_capped"] = false.into();
    }
    let mut listed = list["items"].as_array().unwrap().clone();
    listed.sort_by_key(|workspace| workspace["id"].as_i64());
    assert_eq!(listed, mine);
}

#[tokio::test]
async fn the_creator_of_a_workspace_joins_it_with_their_name() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let founded = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    let id = founded.expect(StatusCode::CREATED)["id"].as_i64().unwrap();

    let kinds: Vec<String> =
        sqlx::query_scalar("select kind from events where workspace_id = $1 order by position")
            .bind(id)
            .fetch_all(&app.db)
            .await
            .unwrap();
    assert_eq!(kinds, ["UserJoinedWorkspace"]);
    let there = switches(&app, &alice, id).await;
    let me = there.get("/api/me").await.expect(StatusCode::OK);
    assert_eq!((&me["fullname"], &me["role"]), (&json!("alice"), &json!("owner")));
    assert_eq!(there.get("/api/users").await.expect(StatusCode::OK), json!([me]));
}

#[tokio::test]
async fn a_workspaces_name_is_taken_once() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let before = app.state().await;

    for name in ["Acme", " acme ", "ACME"] {
        let refused = mallory.post("/api/workspaces", json!({ "name": name })).await;
        refused.refuses(StatusCode::CONFLICT, "workspace_taken");
        let renamed = mallory.patch("/api/workspace", json!({ "name": name })).await;
        renamed.expect(StatusCode::CONFLICT);
    }
    assert_eq!(app.state().await, before);
    let same = alice.patch("/api/workspace", json!({ "name": "ACME" })).await;
    assert_eq!(same.expect(StatusCode::OK)["name"], "ACME");
}

#[tokio::test]
async fn workspaces_can_be_created_only_if_the_configuration_allows() {
    let first_only = WorkspaceCreation::FirstOnly;
    let app = TestApp::with(|config| config.accounts.workspace_creation = first_only).await;
    let alice = app.user("alice").await;

    let refused = alice.post("/api/workspaces", json!({ "name": "Side" })).await;

    refused.refuses(StatusCode::FORBIDDEN, "workspace_creation_closed");
}

#[tokio::test]
async fn open_workspaces_can_be_joined_by_name_only_once() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let mut log = app.log_of(alice.workspace_id).await;

    let join = json!({ "name": " aCme " });
    let joined = mallory.post("/api/workspaces/join", join.clone()).await;
    let joined = joined.expect(StatusCode::CREATED);

    assert_eq!(joined, alice.get("/api/workspace").await.expect(StatusCode::OK));
    let event = Log::only(log.news().await, "UserJoinedWorkspace");
    let there = switches(&app, &mallory, alice.workspace_id).await;
    let me = there.get("/api/me").await.expect(StatusCode::OK);
    assert_eq!(event.data(), me);
    assert_eq!(me["role"], "member");

    let again = mallory.post("/api/workspaces/join", join).await.expect(StatusCode::OK);
    assert_eq!(again, joined);
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn closed_workspaces_can_be_joined_only_with_an_invite() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let closed = alice.patch("/api/workspace", json!({ "join_policy": "invite" })).await;
    closed.expect(StatusCode::OK);
    let before = app.state().await;

    let refused = mallory.post("/api/workspaces/join", json!({ "name": "Acme" })).await;
    refused.refuses(StatusCode::FORBIDDEN, "invite_required");
    let unknown = mallory.post("/api/workspaces/join", json!({ "invite_code": "x" })).await;
    unknown.refuses(StatusCode::NOT_FOUND, "invite_invalid");
    for unclear in [
        json!({}),
        json!({ "name": "Acme", "invite_code": "x" }),
        json!({ "name": 7 }),
        json!({ "name": "Acme", "role": "owner" }),
    ] {
        let refused = mallory.post("/api/workspaces/join", unclear).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn switching_returns_a_token_for_another_workspace_in_the_same_session() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let bob = app.user_in("bob", "Bobs").await;
    alice.post("/api/workspaces/join", json!({ "name": "Bobs" })).await.expect(StatusCode::CREATED);

    let path = format!("/api/workspaces/{}/switch", bob.workspace_id);
    let auth = alice.post(&path, NOTHING).await.expect(StatusCode::OK);

    assert_eq!(auth["refresh_token"], Value::Null);
    assert_eq!(auth["session_id"], alice.session_id);
    assert_eq!(auth["workspace"]["id"], bob.workspace_id);
    assert_eq!(auth["user"]["workspace_id"], bob.workspace_id);
    let there = Person::signed_in(&app.anyone, &auth);
    let workspace = there.get("/api/workspace").await.expect(StatusCode::OK);
    assert_eq!(workspace["name"], "Bobs");
    let here = alice.get("/api/workspace").await.expect(StatusCode::OK);
    assert_eq!(here["name"], "Acme", "the old token still speaks for the old one");

    let refreshing = app.anyone.with_token(&alice.refresh_token);
    let refreshed = refreshing.post("/api/refresh", NOTHING).await.expect(StatusCode::OK);
    assert_eq!(refreshed["workspace"]["id"], bob.workspace_id, "the last used");
}

#[tokio::test]
async fn switching_to_a_workspace_of_others_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let before = app.state().await;

    for id in [alice.workspace_id, 999] {
        let refused = mallory.post(&format!("/api/workspaces/{id}/switch"), NOTHING).await;
        refused.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn owner_and_admins_change_the_workspace_with_an_event_for_all_people() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    app.promotes(&bob, "admin").await;
    let mut log = app.log_of(alice.workspace_id).await;

    for (person, changes) in
        [(&alice, json!({ "name": "  Acme Ltd " })), (&bob, json!({ "join_policy": "invite" }))]
    {
        let changed = person.patch("/api/workspace", changes).await.expect(StatusCode::OK);
        assert_eq!(changed["name"], "Acme Ltd");
        let updated = Log::only(log.news().await, "WorkspaceUpdated");
        assert_eq!(updated.data(), changed);
        assert_eq!((updated.chat_id, updated.user_id), (None, None));
        assert_eq!(carol.get("/api/workspace").await.expect(StatusCode::OK), changed);
    }
    let refused = carol.patch("/api/workspace", json!({ "name": "Mine" })).await;
    refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn a_workspace_changes_within_limits() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let before = alice.get("/api/workspace").await.expect(StatusCode::OK);

    for changes in [
        json!({ "name": "" }),
        json!({ "name": " " }),
        json!({ "name": "x".repeat(33) }),
        json!({ "name": null }),
        json!({ "name": "a\u{0}b" }),
        json!({ "join_policy": null }),
        json!({ "join_policy": "Open" }),
        json!({ "owner_id": 2 }),
        json!({ "id": 2 }),
    ] {
        let refused = alice.patch("/api/workspace", changes).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let mut log = app.log_of(alice.workspace_id).await;
    for changes in [json!({}), json!({ "name": "Acme", "join_policy": "open" })] {
        let unchanged = alice.patch("/api/workspace", changes).await.expect(StatusCode::OK);
        assert_eq!(unchanged, before);
    }
    assert!(log.news().await.is_empty());
    let longest = json!({ "name": "😀".repeat(32) });
    alice.patch("/api/workspace", longest).await.expect(StatusCode::OK);
}

async fn switches(app: &TestApp, person: &Person, workspace_id: i64) -> Person {
    let path = format!("/api/workspaces/{workspace_id}/switch");
    let auth = person.post(&path, NOTHING).await.expect(StatusCode::OK);
    Person::signed_in(&app.anyone, &auth)
}

#[tokio::test]
async fn each_workspace_of_an_account_has_its_badges_and_its_number_of_people() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let other = alice.creates_private_channel("other", [&bob]).await;
    let badges = async |person: &Person| {
        let list = person.get("/api/workspaces").await.expect(StatusCode::OK);
        let entry = list["items"][0].clone();
        ["member_count", "unread_count", "unread_capped", "mention_count"]
            .map(|key| entry[key].clone())
    };
    assert_eq!(badges(&bob).await, [json!(2), json!(0), json!(false), json!(0)]);
    alice.sends(&chat, "one @all").await;
    alice.counts_to(2, &other).await;
    assert_eq!(badges(&bob).await, [json!(2), json!(3), json!(false), json!(1)]);
    assert_eq!(badges(&alice).await, [json!(2), json!(0), json!(false), json!(0)]);
    alice.counts_to(98, &other).await;
    assert_eq!(badges(&bob).await, [json!(2), json!(100), json!(true), json!(1)]);
    app.suspends(&bob).await;
    assert_eq!(badges(&alice).await[0], 2);
    alice.delete(&format!("/api/users/{}", bob.id), NOTHING).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(badges(&alice).await[0], 1);
}
