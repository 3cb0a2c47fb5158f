//! Roles and status in a workspace.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Log, Person, TestApp};

fn path(person: &Person) -> String {
    format!("/api/users/{}", person.id)
}

#[tokio::test]
async fn an_owner_changes_roles_with_an_event_for_all_people() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    for role in ["admin", "owner", "member"] {
        let updated = alice.patch(&path(&bob), json!({ "role": role })).await;
        let updated = updated.expect(StatusCode::OK);
        assert_eq!(updated["role"], role);
        assert_eq!(updated, bob.get("/api/me").await.expect(StatusCode::OK));
        let event = Log::only(log.news().await, "UserUpdated");
        assert_eq!((event.chat_id, event.user_id), (None, None));
        assert_eq!(event.data(), updated);
    }
    for unchanged in [json!({}), json!({ "role": "member", "status": "Active" })] {
        alice.patch(&path(&bob), unchanged).await.expect(StatusCode::OK);
        assert!(log.news().await.is_empty());
    }
}

#[tokio::test]
async fn admins_can_manage_only_members() {
    let app = TestApp::start().await;
    let [alice, bob, carol, dave] = app.users(["alice", "bob", "carol", "dave"]).await;
    app.promotes(&bob, "admin").await;
    let before = app.state().await;

    for (caller, target, change) in [
        (&bob, &alice, json!({ "status": "Suspended" })),
        (&bob, &bob, json!({ "role": "member" })),
        (&bob, &carol, json!({ "role": "owner" })),
        (&carol, &dave, json!({ "status": "Suspended" })),
        (&carol, &carol, json!({ "role": "owner" })),
    ] {
        let refused = caller.patch(&path(target), change).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    bob.delete(&path(&alice), json!(null)).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    carol.delete(&path(&dave), json!(null)).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    carol.delete(&path(&carol), json!(null)).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    assert_eq!(app.state().await, before);

    bob.patch(&path(&carol), json!({ "role": "admin" })).await.expect(StatusCode::OK);
    bob.delete(&path(&dave), json!(null)).await.expect(StatusCode::NO_CONTENT);
    bob.patch(&path(&carol), json!({ "role": "member" }))
        .await
        .refuses(StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn a_change_of_a_person_must_have_a_valid_role_or_status() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    for body in [
        json!({ "role": "boss" }),
        json!({ "role": null }),
        json!({ "status": "active" }),
        json!({ "status": "Left" }),
        json!({ "fullname": "Bobby" }),
        json!([]),
    ] {
        let refused = alice.patch(&path(&bob), body).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let both = json!({ "role": "admin", "status": "Suspended" });
    let updated = alice.patch(&path(&bob), both).await.expect(StatusCode::OK);
    assert_eq!((&updated["role"], &updated["status"]), (&json!("admin"), &json!("Suspended")));
}

#[tokio::test]
async fn a_suspended_person_is_refused_at_once_and_keeps_their_chats() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;

    alice.patch(&path(&bob), json!({ "status": "Suspended" })).await.expect(StatusCode::OK);

    bob.get("/api/me").await.refuses(StatusCode::FORBIDDEN, "suspended");
    let sent = bob.post(&chat.messages, json!({ "content": "Still here?" })).await;
    sent.refuses(StatusCode::FORBIDDEN, "suspended");
    bob.get("/api/sync").await.refuses(StatusCode::FORBIDDEN, "suspended");
    assert!(alice.members_of(&chat).await.contains(&bob.id));

    alice.patch(&path(&bob), json!({ "status": "Active" })).await.expect(StatusCode::OK);
    bob.sends(&chat, "Back again").await;
}

#[tokio::test]
async fn a_workspace_always_has_an_active_owner() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let last = [json!({ "role": "admin" }), json!({ "status": "Suspended" })];
    for change in &last {
        let refused = alice.patch(&path(&alice), change.clone()).await;
        refused.refuses(StatusCode::CONFLICT, "last_owner");
    }
    alice.patch(&path(&bob), json!({ "role": "owner" })).await.expect(StatusCode::OK);
    let suspended = json!({ "status": "Suspended" });
    alice.patch(&path(&bob), suspended.clone()).await.expect(StatusCode::OK);
    let leaving = alice.post("/api/workspace/leave", json!(null)).await;
    leaving.refuses(StatusCode::CONFLICT, "last_owner");
    let removal = alice.delete(&path(&alice), json!(null)).await;
    removal.refuses(StatusCode::CONFLICT, "last_owner");

    alice.patch(&path(&bob), json!({ "status": "Active" })).await.expect(StatusCode::OK);
    let mut log = app.log_of(alice.workspace_id).await;
    bob.patch(&path(&alice), json!({ "role": "member" })).await.expect(StatusCode::OK);

    let news = log.news().await;
    let kinds: Vec<_> = news.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["UserUpdated", "WorkspaceUpdated"]);
    let workspace = carol.get("/api/workspace").await.expect(StatusCode::OK);
    assert_eq!(workspace["owner_id"], bob.id);
    assert_eq!(news[1].data(), workspace);
}
