//! Invitations: who gets in, where to and as what.

use chrono::{DateTime, TimeDelta, Utc};
use fechatter_core::workspace::JoinPolicy;
use futures_util::future::join_all;
use insta::assert_json_snapshot;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, PASSWORD, Person, Reply, TestApp};

#[tokio::test]
async fn an_invite_is_for_one_person_and_a_week() {
    let app = closed().await;
    let alice = app.user("alice").await;

    let reply = alice.post("/api/invites", json!({})).await;

    let invite = reply.expect(StatusCode::CREATED);
    assert_json_snapshot!(reply.ordered(), {
        ".created_at" => "[time]",
        ".expires_at" => "[time]",
        ".code" => "[code]",
        ".url" => "[url]",
    }, @r#"
    {
      "id": 1,
      "email": null,
      "role": "member",
      "chat_ids": [],
      "max_uses": 1,
      "uses": 0,
      "expires_at": "[time]",
      "created_by": 1,
      "created_at": "[time]",
      "code": "[code]",
      "url": "[url]"
    }
    "#);
    let time = |key: &str| invite[key].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let lasts = time("expires_at") - time("created_at");
    assert!((lasts - TimeDelta::days(7)).abs() < TimeDelta::seconds(5), "{lasts}");
    let code = invite["code"].as_str().unwrap();
    assert!(code.len() >= 16 && invite["url"].as_str().unwrap().contains(code));
}

#[tokio::test]
async fn a_code_is_returned_once_and_never_stored() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let mut invite = invites(&alice, json!({ "max_uses": 3 })).await;
    let code = invite["code"].as_str().unwrap().to_owned();

    let list = alice.get("/api/invites").await.expect(StatusCode::OK);

    for key in ["code", "url"] {
        invite.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(list["items"], json!([invite]));
    let stored: Value = sqlx::query_scalar("select to_jsonb(i) from invites as i")
        .fetch_one(&app.db)
        .await
        .unwrap();
    assert!(!stored.to_string().contains(&code));
}

#[tokio::test]
async fn a_new_account_joins_the_workspace_and_the_chats_of_an_invite() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let private = alice.creates_private_channel("Plans", []).await;
    let draft = json!({ "role": "admin", "chat_ids": [private.id] });
    let invite = invites(&alice, draft).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let auth = signs_up(&app, "bob", &invite["code"]).await.expect(StatusCode::CREATED);

    assert_eq!(auth["workspace"]["id"], alice.workspace_id);
    assert_eq!(auth["user"]["role"], "admin");
    let bob = Person::signed_in(&app.anyone, &auth);
    assert_eq!(bob.members_of(&private).await, [alice.id, bob.id]);
    assert_eq!(bob.role_of(&bob, &private).await.unwrap(), "member");
    assert_eq!(log.kinds().await, ["UserJoinedWorkspace", "UserJoinedChat"]);
    let list = alice.get("/api/invites").await.expect(StatusCode::OK);
    assert!(list["items"].as_array().unwrap().iter().all(|invite| invite["uses"] == 1));
}

#[tokio::test]
async fn an_existing_account_joins_another_workspace_with_an_invite() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let invite = invites(&alice, json!({})).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let join = json!({ "invite_code": invite["code"] });
    let joined = mallory.post("/api/workspaces/join", join.clone()).await;

    let joined = joined.expect(StatusCode::CREATED);
    assert_eq!(joined["id"], alice.workspace_id);
    Log::only(log.news().await, "UserJoinedWorkspace");
    let already = invites(&alice, json!({})).await;
    let again = json!({ "invite_code": already["code"] });
    let again = mallory.post("/api/workspaces/join", again).await;
    assert_eq!(again.expect(StatusCode::OK), joined);
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn a_used_up_expired_or_withdrawn_invite_is_refused() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let used = invites(&alice, json!({})).await;
    signs_up(&app, "bob", &used["code"]).await.expect(StatusCode::CREATED);
    let withdrawn = invites(&alice, json!({})).await;
    let withdrawing = alice.delete(&format!("/api/invites/{}", withdrawn["id"]), NOTHING).await;
    withdrawing.expect(StatusCode::NO_CONTENT);
    let expired = invites(&alice, json!({})).await;
    app.sql(
        "update invites set expires_at = clock_timestamp() - interval '1 s'
         where id = (select max(id) from invites)",
    )
    .await;
    let before = app.state().await;

    let unknown = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    for code in [&used["code"], &withdrawn["code"], &expired["code"], &unknown, &json!("")] {
        let refused = signs_up(&app, "carol", code).await;
        refused.refuses(StatusCode::NOT_FOUND, "invite_invalid");
        let join = mallory.post("/api/workspaces/join", json!({ "invite_code": code })).await;
        join.refuses(StatusCode::NOT_FOUND, "invite_invalid");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn an_invite_with_an_address_is_for_that_address() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let invite = invites(&alice, json!({ "email": "Bob@ACME.test" })).await;
    assert_eq!(invite["email"].as_str().unwrap().to_lowercase(), "bob@acme.test");
    let before = app.state().await;

    let refused = signs_up(&app, "carol", &invite["code"]).await;
    refused.refuses(StatusCode::NOT_FOUND, "invite_invalid");
    let join = json!({ "invite_code": invite["code"] });
    let refused = mallory.post("/api/workspaces/join", join).await;
    refused.refuses(StatusCode::NOT_FOUND, "invite_invalid");
    assert_eq!(app.state().await, before);

    signs_up(&app, "bob", &invite["code"]).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn only_one_of_many_simultaneous_requests_gets_the_last_use_of_an_invite() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let trudy = app.user_in("trudy", "Evil Too").await;
    let invite = invites(&alice, json!({})).await;

    let join = json!({ "invite_code": invite["code"] });
    let joins = join_all(
        [&mallory, &trudy].map(|person| person.post("/api/workspaces/join", join.clone())),
    )
    .await;

    let mut statuses: Vec<_> = joins.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 404]);
}

#[tokio::test]
async fn a_sign_up_with_a_code_and_another_workspace_is_refused() {
    let app = closed().await;
    let alice = app.user("alice").await;
    app.user_in("mallory", "Evil Corp").await;
    let invite = invites(&alice, json!({})).await;
    let before = app.state().await;

    let mut draft = sign_up("bob", &invite["code"]);
    for other in ["Evil Corp", "Nowhere"] {
        draft["workspace"] = other.into();
        let refused = app.anyone.post("/api/signup", draft.clone()).await;
        assert!(refused.status.is_client_error(), "{}", refused.text);
    }
    assert_eq!(app.state().await, before);

    draft["workspace"] = " ACME ".into();
    app.anyone.post("/api/signup", draft).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn an_invite_cannot_have_a_higher_role_than_its_creator() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    app.promotes(&bob, "admin").await;

    for (person, role) in [(&bob, "owner"), (&carol, "owner"), (&carol, "admin")] {
        let refused = person.post("/api/invites", json!({ "role": role })).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    for (person, role) in [(&alice, "owner"), (&alice, "admin"), (&bob, "admin"), (&bob, "member")]
    {
        assert_eq!(invites(person, json!({ "role": role })).await["role"], role);
    }
}

#[tokio::test]
async fn an_invite_may_have_only_chats_to_which_its_creator_may_add_people() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let group = bob.creates_group("Lunch", [&alice, &carol]).await;
    let theirs = bob.creates_private_channel("Secret", []).await;
    let foreign = mallory.creates_public_channel("evil").await;
    let own = alice.creates_private_channel("Plans", []).await;
    let before = app.state().await;

    // Alice owns the workspace, is a plain member of the group and none of Bob's channel.
    for chat in [group.id, theirs.id, foreign.id, 999] {
        let refused = alice.post("/api/invites", json!({ "chat_ids": [own.id, chat] })).await;
        refused.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    assert_eq!(app.state().await, before);

    bob.makes_admin(&alice, &group).await;
    let invite = invites(&alice, json!({ "chat_ids": [own.id, group.id] })).await;
    assert_eq!(invite["chat_ids"], json!([own.id, group.id]));
}

#[tokio::test]
async fn an_invite_of_the_wrong_shape_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for draft in [
        json!({ "max_uses": 0 }),
        json!({ "max_uses": -1 }),
        json!({ "max_uses": "3" }),
        json!({ "role": "boss" }),
        json!({ "email": "nonsense" }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "chat_ids": 7 }),
        json!({ "chat_ids": ["7"] }),
        json!({ "code": "mine" }),
        json!({ "workspace_id": 2 }),
    ] {
        let refused = alice.post("/api/invites", draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let soon = (Utc::now() + TimeDelta::hours(1)).format("%FT%T.000Z").to_string();
    let invite = invites(&alice, json!({ "expires_at": soon, "max_uses": 25 })).await;
    assert_eq!((&invite["expires_at"], &invite["max_uses"]), (&json!(soon), &json!(25)));
}

#[tokio::test]
async fn invites_of_other_workspaces_do_not_exist() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let invite = invites(&alice, json!({})).await;

    let list = mallory.get("/api/invites").await.expect(StatusCode::OK);
    assert_eq!(list["items"], json!([]));
    for id in [&invite["id"], &json!(999)] {
        let refused = mallory.delete(&format!("/api/invites/{id}"), NOTHING).await;
        refused.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    let list = alice.get("/api/invites").await.expect(StatusCode::OK);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

/// A server whose workspaces let nobody in by name.
async fn closed() -> TestApp {
    TestApp::with(|config| config.accounts.join_policy = JoinPolicy::Invite).await
}

async fn invites(person: &Person, draft: Value) -> Value {
    person.post("/api/invites", draft).await.expect(StatusCode::CREATED)
}

async fn signs_up(app: &TestApp, name: &str, code: &Value) -> Reply {
    app.anyone.post("/api/signup", sign_up(name, code)).await
}

fn sign_up(name: &str, code: &Value) -> Value {
    json!({
        "fullname": name,
        "email": format!("{name}@acme.test"),
        "password": PASSWORD,
        "invite_code": code,
    })
}

#[tokio::test]
async fn an_invite_adds_only_to_chats_to_which_its_creator_may_still_add_people() {
    let app = closed().await;
    let [alice, bob] = app_with_bob(&app).await;
    let deleted = bob.creates_private_channel("deleted", []).await;
    let given_away = bob.creates_private_channel("given away", [&alice]).await;
    let kept = bob.creates_private_channel("kept", []).await;
    let chats = json!([deleted.id, given_away.id, kept.id]);
    let invite = invites(&bob, json!({ "chat_ids": chats })).await;
    bob.deletes(&deleted).await;
    let transfer = format!("{}/{}", given_away.members, alice.id);
    bob.patch(&transfer, NOTHING).await.expect(StatusCode::OK);

    let carol = signs_up(&app, "carol", &invite["code"]).await.expect(StatusCode::CREATED);

    let carol = carol["user"]["id"].as_i64().unwrap();
    let memberships: Vec<i64> =
        sqlx::query_scalar("select chat_id from chat_members where user_id = $1")
            .bind(carol)
            .fetch_all(&app.db)
            .await
            .unwrap();
    assert_eq!(memberships, [kept.id]);
}

#[tokio::test]
async fn an_invite_ends_with_its_creators_right_to_give_the_role() {
    let app = closed().await;
    let [_alice, bob] = app_with_bob(&app).await;
    app.promotes(&bob, "admin").await;
    let as_admin = invites(&bob, json!({ "role": "admin" })).await;
    let as_member = invites(&bob, json!({ "max_uses": 2 })).await;

    app.promotes(&bob, "member").await;
    signs_up(&app, "carol", &as_admin["code"])
        .await
        .refuses(StatusCode::NOT_FOUND, "invite_invalid");
    signs_up(&app, "carol", &as_member["code"]).await.expect(StatusCode::CREATED);
    app.suspends(&bob).await;
    signs_up(&app, "dave", &as_member["code"])
        .await
        .refuses(StatusCode::NOT_FOUND, "invite_invalid");
}

#[tokio::test]
async fn an_invite_for_another_address_does_not_reveal_accounts() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let invite = invites(&alice, json!({ "email": "carol@acme.test" })).await;

    // Alice has an account and Dave has none: both hear the same.
    for name in ["alice", "dave"] {
        let refused = signs_up(&app, name, &invite["code"]).await;
        refused.refuses(StatusCode::NOT_FOUND, "invite_invalid");
    }
}

#[tokio::test]
async fn the_holder_of_a_code_sees_where_it_leads_before_signing_up() {
    let app = closed().await;
    let alice = app.user("alice").await;
    let invite = invites(&alice, json!({ "email": "carol@acme.test" })).await;
    let path = format!("/api/invites/{}/preview", invite["code"].as_str().unwrap());

    let preview = app.anyone.get(&path).await.expect(StatusCode::OK);

    let expected = json!({
        "workspace_name": "Acme", "inviter_name": "alice", "expires_at": invite["expires_at"],
    });
    assert_eq!(preview, expected);
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK), expected);
    for absent in ["x", "%00", "1", &"x".repeat(200)] {
        let reply = app.anyone.get(&format!("/api/invites/{absent}/preview")).await;
        reply.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    signs_up(&app, "carol", &invite["code"]).await.expect(StatusCode::CREATED);
    app.anyone.get(&path).await.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn an_invite_that_cannot_be_used_shows_nothing() {
    let app = closed().await;
    let [alice, bob] = app_with_bob(&app).await;
    let expired = invites(&alice, json!({})).await;
    app.sql("update invites set expires_at = clock_timestamp() where uses = 0").await;
    let of_suspended = invites(&bob, json!({})).await;
    app.suspends(&bob).await;
    for invite in [expired, of_suspended] {
        let path = format!("/api/invites/{}/preview", invite["code"].as_str().unwrap());
        app.anyone.get(&path).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
}

/// Alice, who owns the workspace, and Bob, whom she has invited.
async fn app_with_bob(app: &TestApp) -> [Person; 2] {
    let alice = app.user("alice").await;
    let invite = invites(&alice, json!({})).await;
    let bob = signs_up(app, "bob", &invite["code"]).await.expect(StatusCode::CREATED);
    [alice, Person::signed_in(&app.anyone, &bob)]
}
