//! The audit log of a workspace.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{NOTHING, Person, TestApp};

async fn audit(owner: &Person, query: &str) -> Value {
    owner.get(&format!("/api/audit{query}")).await.expect(StatusCode::OK)
}

fn actions(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_owners_and_admins_change_is_listed_newest_first() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let user = |person: &Person| format!("/api/users/{}", person.id);

    alice.patch(&user(&bob), json!({ "role": "admin" })).await.expect(StatusCode::OK);
    alice.patch(&user(&bob), json!({ "role": "admin" })).await.expect(StatusCode::OK);
    bob.patch(&user(&carol), json!({ "status": "Suspended" })).await.expect(StatusCode::OK);
    bob.patch(&user(&carol), json!({ "status": "Active" })).await.expect(StatusCode::OK);
    bob.post(&format!("{}/reset-link", user(&carol)), NOTHING).await.expect(StatusCode::CREATED);
    let invite = bob.post("/api/invites", json!({ "email": "dave@acme.test" })).await;
    let invite = invite.expect(StatusCode::CREATED);
    alice
        .delete(&format!("/api/invites/{}", invite["id"]), NOTHING)
        .await
        .expect(StatusCode::NO_CONTENT);
    alice
        .patch("/api/workspace", json!({ "name": "Apex", "join_policy": "invite" }))
        .await
        .expect(StatusCode::OK);
    bob.delete(&user(&carol), NOTHING).await.expect(StatusCode::NO_CONTENT);

    let page = audit(&alice, "").await;
    let expected = [
        "user.removed",
        "workspace.changed",
        "invite.deleted",
        "invite.created",
        "user.reset_link_created",
        "user.restored",
        "user.suspended",
        "user.role_changed",
    ];
    assert_eq!(actions(&page), expected);
    assert_eq!(page["next_cursor"], Value::Null);
    let items = page["items"].as_array().unwrap();
    assert_eq!(items[0]["actor"], bob.id);
    assert_eq!(items[0]["target"], json!({ "type": "user", "id": carol.id }));
    assert_eq!(items[1]["target"], Value::Null);
    assert_eq!(items[1]["details"], json!({ "name": "Apex", "join_policy": "invite" }));
    assert_eq!(items[3]["details"], json!({ "role": "member", "max_uses": 1 }));
    assert_eq!(items[7]["details"], json!({ "from": "member", "to": "admin" }));
    // Nothing is kept of people who may be erased.
    assert!(!page.to_string().contains("dave"));

    let of_bob = audit(&alice, &format!("?actor={}&limit=2", bob.id)).await;
    assert_eq!(actions(&of_bob), ["user.removed", "invite.created"]);
    let cursor = of_bob["next_cursor"].as_str().unwrap();
    let next = audit(&alice, &format!("?actor={}&cursor={cursor}", bob.id)).await;
    assert_eq!(actions(&next), ["user.reset_link_created", "user.restored", "user.suspended"]);
}

#[tokio::test]
async fn only_owners_read_the_audit_log_of_their_workspace() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil").await;
    alice
        .patch(&format!("/api/users/{}", bob.id), json!({ "role": "admin" }))
        .await
        .expect(StatusCode::OK);
    bob.get("/api/audit").await.refuses(StatusCode::FORBIDDEN, "forbidden");
    assert_eq!(actions(&audit(&mallory, "").await), [""; 0]);
    for bad in ["?actor=x", "?limit=0", "?cursor=x", "?what=1"] {
        let reply = alice.get(&format!("/api/audit{bad}")).await;
        reply.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_refused_change_is_not_listed() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let path = format!("/api/users/{}", alice.id);
    bob.delete(&path, NOTHING).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    alice.delete(&path, NOTHING).await.refuses(StatusCode::CONFLICT, "last_owner");
    assert_eq!(actions(&audit(&alice, "").await), [""; 0]);
}
