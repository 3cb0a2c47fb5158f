//! Leaving the workspace, by one's own wish or another's.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{NOTHING, Person, TestApp};

fn path(person: &Person) -> String {
    format!("/api/users/{}", person.id)
}

#[tokio::test]
async fn a_person_who_leaves_is_removed_from_all_chats_and_their_messages_stay() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let group = alice.creates_group("Lunch", [&bob, &carol]).await;
    let single = bob.opens_single_with(&alice).await;
    let own = bob.creates_public_channel("news").await;
    let other = carol.creates_private_channel("secret", []).await;
    bob.sends(&group, "So long").await;
    let mut log = app.log_of(alice.workspace_id).await;

    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;

    let news = log.news().await;
    let told: Vec<_> =
        news.iter().map(|event| (event.kind.as_str(), event.chat_id, event.user_id)).collect();
    let left = |chat: i64| ("UserLeftChat", Some(chat), Some(bob.id));
    let (first, last) = (("UserUpdated", None, None), ("UserLeftWorkspace", None, None));
    assert_eq!(told, [first, left(group.id), left(single.id), left(own.id), last]);
    assert_eq!(news[0].data()["status"], "Left");
    assert_eq!(news[4].data(), json!({ "user_id": bob.id, "reason": "left" }));
    for event in &news[1..4] {
        assert_eq!(event.data()["reason"], "left");
        assert_eq!(event.data()["actor_id"], bob.id);
        assert_eq!(ended_at(&app, event.chat_id.unwrap(), bob.id).await, event.position);
    }

    assert_eq!(alice.members_of(&group).await, [alice.id, carol.id]);
    let sidebar = alice.sidebar(&group).await;
    assert_eq!(sidebar["member_count"], 2);
    assert_eq!(sidebar["last_message"]["sender_name"], "bob");
    assert_eq!(alice.sidebar(&single).await["name"], "bob");
    assert_eq!(carol.sidebar(&other).await["member_count"], 1);
    let gone = alice.get(&path(&bob)).await.expect(StatusCode::OK);
    assert_eq!((&gone["fullname"], &gone["status"]), (&json!("bob"), &json!("Left")));
    assert_eq!(gone, news[0].data());
    let users = alice.get("/api/users").await.expect(StatusCode::OK);
    assert_eq!(users.as_array().unwrap().len(), 2);
    // A chat whose owner has gone is for the workspace's owner to give away.
    carol.joins(&own).await;
    alice.patch(&own.member(carol.id), NOTHING).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_person_who_has_left_has_no_access_to_the_workspace() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;

    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);

    let sent = bob.post(&chat.messages, json!({ "content": "Hello?" })).await;
    sent.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    for read in ["/api/me", "/api/sync", "/api/chat", &chat.path, "/api/users"] {
        bob.get(read).await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    alice.delete(&path(&bob), NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let adding = alice.post(&chat.members, json!([bob.id])).await;
    adding.refuses(StatusCode::NOT_FOUND, "user_not_found");
    let named = json!({ "email": bob.email, "password": crate::harness::PASSWORD,
        "workspace": "Acme" });
    let signing_in = app.anyone.post("/api/signin", named).await;
    signing_in.refuses(StatusCode::FORBIDDEN, "invalid_credentials");
    app.tries(&bob.email, crate::harness::PASSWORD)
        .await
        .refuses(StatusCode::FORBIDDEN, "suspended");
}

#[tokio::test]
async fn other_workspaces_of_the_account_stay() {
    let app = TestApp::start().await;
    let [_alice, bob] = app.users(["alice", "bob"]).await;
    let other = bob.post("/api/workspaces", json!({ "name": "Mine" })).await;
    let other = other.expect(StatusCode::CREATED);

    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);

    let refreshed = app.anyone.with_cookie(&bob.refresh_token).post("/api/refresh", NOTHING).await;
    let bob = Person::signed_in(&app.anyone, &refreshed.expect(StatusCode::OK));
    assert_eq!(bob.workspace_id, other["id"]);
    let workspaces = bob.get("/api/workspaces").await.expect(StatusCode::OK);
    assert_eq!(workspaces["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_person_who_returns_is_a_new_member_and_can_reopen_their_singles() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    bob.post("/api/workspaces", json!({ "name": "Mine" })).await.expect(StatusCode::CREATED);
    let single = bob.opens_single_with(&alice).await;
    let channel = bob.creates_public_channel("news").await;
    bob.sends(&single, "Hello").await;
    alice.patch(&path(&bob), json!({ "role": "admin" })).await.expect(StatusCode::OK);
    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);
    let refreshed = app.anyone.with_cookie(&bob.refresh_token).post("/api/refresh", NOTHING).await;
    let elsewhere = Person::signed_in(&app.anyone, &refreshed.expect(StatusCode::OK));
    app.offboardings_end().await;

    let joined = elsewhere.post("/api/workspaces/join", json!({ "name": "Acme" })).await;
    joined.expect(StatusCode::CREATED);
    let me = bob.get("/api/me").await.expect(StatusCode::OK);
    assert_eq!((&me["role"], &me["status"]), (&json!("member"), &json!("Active")));
    assert_eq!(bob.get("/api/chat").await.expect(StatusCode::OK), json!([]));

    let mut log = app.log_of(alice.workspace_id).await;
    for person in [&bob, &alice] {
        let other = if person.id == bob.id { &alice } else { &bob };
        let draft = json!({ "chat_type": "Single", "members": [other.id] });
        let found = person.post("/api/chat", draft).await.expect(StatusCode::OK);
        assert_eq!(found["id"], single.id);
        assert_eq!(found["member_count"], 2);
    }
    assert_eq!(log.kinds().await, ["UserJoinedChat"]);
    let history = bob.get(&single.messages).await.expect(StatusCode::OK);
    assert_eq!(history[0]["content"], "Hello");
    // It belongs to whoever owns it still, and they may come back to it.
    let joined = bob.post(&channel.join, NOTHING).await.expect(StatusCode::OK);
    assert_eq!(joined["role"], "owner");
    assert_eq!(bob.role_of(&bob, &channel).await.unwrap(), "owner");
}

#[tokio::test]
async fn a_person_who_has_left_all_workspaces_can_return_by_signing_up() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let signing_up = |password: &str, workspace: &str| {
        let request = json!({ "fullname": "Bobby", "email": bob.email, "password": password,
            "workspace": workspace });
        app.anyone.post("/api/signup", request)
    };
    signing_up(crate::harness::PASSWORD, "Mine").await.refuses(StatusCode::CONFLICT, "email_taken");
    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;

    signing_up("not the password", "Acme").await.refuses(StatusCode::CONFLICT, "email_taken");
    let back = signing_up(crate::harness::PASSWORD, "Acme").await.expect(StatusCode::CREATED);

    let back = Person::signed_in(&app.anyone, &back);
    assert_eq!((back.id, back.name.as_str()), (bob.id, "Bobby"));
    let users = alice.get("/api/users").await.expect(StatusCode::OK);
    assert_eq!(users.as_array().unwrap().len(), 2);
    signing_up(crate::harness::PASSWORD, "Mine").await.refuses(StatusCode::CONFLICT, "email_taken");
}

#[tokio::test]
async fn outsiders_do_not_learn_that_a_person_has_left() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    alice.patch("/api/workspace", json!({ "join_policy": "invite" })).await.expect(StatusCode::OK);
    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);

    for email in [bob.email.as_str(), "nobody@acme.test"] {
        for (field, value, status, kind) in [
            ("workspace", "Acme", StatusCode::FORBIDDEN, "invite_required"),
            ("invite_code", "nonsense", StatusCode::NOT_FOUND, "invite_invalid"),
        ] {
            let mut request = json!({ "fullname": "Mallory", "email": email,
                "password": "not the password" });
            request[field] = value.into();
            app.anyone.post("/api/signup", request).await.refuses(status, kind);
        }
    }
}

#[tokio::test]
async fn a_person_suspended_everywhere_can_sign_up_only_to_other_workspaces() {
    let app = TestApp::start().await;
    let [_alice, bob] = app.users(["alice", "bob"]).await;
    app.suspends(&bob).await;
    let signing_up = |workspace: &str| {
        let request = json!({ "fullname": "Bob", "email": bob.email,
            "password": crate::harness::PASSWORD, "workspace": workspace });
        app.anyone.post("/api/signup", request)
    };

    signing_up("Acme").await.refuses(StatusCode::FORBIDDEN, "suspended");

    let mine = signing_up("Mine").await.expect(StatusCode::CREATED);
    assert_eq!(mine["user"]["id"], bob.id);
    assert_eq!(mine["workspace"]["name"], "Mine");
}

#[tokio::test]
async fn leaving_at_the_same_time_leaves_an_owner() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    app.promotes(&bob, "owner").await;
    app.promotes(&carol, "owner").await;

    let leaving = [&alice, &bob, &carol].map(|person| person.post("/api/workspace/leave", NOTHING));
    let left = join_all(leaving).await;

    let statuses = left.iter().filter(|reply| reply.status == StatusCode::NO_CONTENT).count();
    assert_eq!(statuses, 2);
    let owners: Vec<Value> = sqlx::query_scalar(
        "select to_jsonb(w.owner_id = m.user_id)
         from workspace_members as m
         join workspaces as w on w.id = m.workspace_id
         where m.role = 'owner' and m.left_at is null",
    )
    .fetch_all(&app.db)
    .await
    .unwrap();
    assert_eq!(owners, [json!(true)]);
}

async fn ended_at(app: &TestApp, chat_id: i64, user_id: i64) -> i64 {
    sqlx::query_scalar("select left_position from chat_members where chat_id = $1 and user_id = $2")
        .bind(chat_id)
        .bind(user_id)
        .fetch_one(&app.db)
        .await
        .unwrap()
}
