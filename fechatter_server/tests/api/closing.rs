//! Workspaces that the operator suspends or deletes.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::files::{png, uploads};
use crate::harness::{Chat, Log, NOTHING, PASSWORD, Person, TestApp};

const SUSPENDED: (StatusCode, &str) = (StatusCode::FORBIDDEN, "workspace_suspended");

/// A workspace in which everything has happened that leaves a row.
async fn live(app: &TestApp) -> ([Person; 3], Chat, Value) {
    let people = app.users(["alice", "bob", "carol"]).await;
    let [alice, bob, carol] = &people;
    let chat = alice.creates_group("lunch", [bob, carol]).await;
    let file = uploads(alice, "menu.txt", b"noodles").await;
    uploads(bob, "unsent.txt", b"unsent").await;
    let draft = json!({ "content": format!("@[user:{}]", bob.id), "files": [file["url"]] });
    let message = alice.post(&chat.messages, draft).await.expect(StatusCode::CREATED);
    let reply = json!({ "content": "yes", "reply_to_id": message["id"] });
    bob.post(&chat.messages, reply).await.expect(StatusCode::CREATED);
    bob.reacts(&chat, &message, "👍").await;
    let read = json!({ "seq": 1 });
    carol.post(&format!("{}/read", chat.path), read).await.expect(StatusCode::OK);
    bob.patch(&format!("{}/me", chat.path), json!({ "pinned": true })).await.expect(StatusCode::OK);
    bob.patch("/api/me/preferences", json!({ "theme": "dark" })).await.expect(StatusCode::OK);
    let avatar = bob.request(Method::PUT, "/api/me/avatar").header(CONTENT_TYPE, "image/png");
    let avatar = avatar.body(png(8, 8, "")).send().await.unwrap();
    assert!(avatar.status().is_success());
    alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
    (people, chat, file)
}

#[tokio::test]
async fn a_suspended_workspace_refuses_everybody_until_it_is_restored() {
    let app = TestApp::start().await;
    let ([alice, bob, _], chat, file) = live(&app).await;
    let invite = alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
    let message = alice.sends(&chat, "before").await;
    let mut log = app.log_of(alice.workspace_id).await;
    let before = app.state().await["messages"].clone();

    assert_eq!(app.administers(&["workspace", "suspend", "acme"]), "Acme: Suspended\n");
    let event = Log::only(log.news().await, "WorkspaceUpdated").data();
    assert_eq!(event["status"], "Suspended");
    let (status, kind) = SUSPENDED;
    alice.get("/api/chat").await.refuses(status, kind);
    alice.post(&chat.messages, json!({ "content": "alone" })).await.refuses(status, kind);
    let answer = json!({ "content": "alone", "reply_to_id": message["id"] });
    alice.post(&chat.messages, answer).await.refuses(status, kind);
    bob.put(&chat.reaction(&message, "👍")).await.refuses(status, kind);
    bob.post(&format!("{}/read", chat.path), json!({})).await.refuses(status, kind);
    bob.patch("/api/me/preferences", json!({ "theme": null })).await.refuses(status, kind);
    bob.get(&format!("/api{}", file["url"].as_str().unwrap())).await.refuses(status, kind);
    app.tries("bob@acme.test", PASSWORD).await.refuses(status, kind);
    app.tries("bob@acme.test", "wrong horse").await.refuses(status, "invalid_credentials");
    let refresh = app.anyone.with_cookie(&bob.refresh_token);
    refresh.post("/api/refresh", NOTHING).await.refuses(status, kind);
    let preview = format!("/api/invites/{}/preview", invite["code"].as_str().unwrap());
    app.anyone.get(&preview).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let dave = json!({
        "fullname": "dave", "email": "dave@acme.test", "password": PASSWORD, "workspace": "Acme",
    });
    let signed_up = app.anyone.post("/api/signup", dave).await;
    signed_up.refuses(StatusCode::FORBIDDEN, "invite_required");
    assert_eq!(app.state().await["messages"], before);
    assert!(app.administers(&["workspace", "suspend", "Acme"]).contains("nothing changed"));

    app.administers(&["workspace", "restore", "Acme"]);
    alice.sends(&chat, "after").await;
    app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::OK);
    let audit = alice.get("/api/audit").await.expect(StatusCode::OK);
    assert_eq!(audit["items"][0]["action"], "workspace.restored");
    assert_eq!(audit["items"][1]["action"], "workspace.suspended");
}

#[tokio::test]
async fn people_of_a_suspended_workspace_go_on_in_their_others() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let side = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    let side = side.expect(StatusCode::CREATED)["id"].clone();
    app.administers(&["workspace", "suspend", "Acme"]);
    let signed_in = app.tries("alice@acme.test", PASSWORD).await.expect(StatusCode::OK);
    assert_eq!(signed_in["user"]["workspace_id"], side);
    let now = Person::signed_in(&app.anyone, &signed_in);
    let listed = now.get("/api/workspaces").await.expect(StatusCode::OK);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let (status, kind) = SUSPENDED;
    let back = format!("/api/workspaces/{}/switch", alice.workspace_id);
    now.post(&back, NOTHING).await.refuses(status, kind);
    let named = json!({
        "email": "alice@acme.test", "password": PASSWORD, "workspace": "Acme",
    });
    app.anyone.post("/api/signin", named).await.refuses(status, kind);
    let by_name = json!({ "name": "Acme" });
    now.post("/api/workspaces/join", by_name).await.refuses(status, kind);
}

/// The tables that have rows of a workspace.
async fn tables_with_rows(app: &TestApp, workspace_id: i64) -> Vec<String> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text
         from information_schema.columns
         join pg_tables on tablename = table_name and schemaname = 'public'
         where column_name = 'workspace_id' or (table_name = 'workspaces' and column_name = 'id')
         order by 1",
    )
    .fetch_all(&app.db)
    .await
    .unwrap();
    assert!(columns.len() > 15);
    let mut tables = Vec::new();
    for (table, column) in columns {
        let query = format!("select exists (select from {table} where {column} = $1)");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(workspace_id);
        if query.fetch_one(&app.db).await.unwrap() {
            tables.push(table);
        }
    }
    tables
}

/// Waits until the servers have removed everything but the audit log.
async fn everything_goes(app: &TestApp, workspace_id: i64) {
    let going = async {
        while tables_with_rows(app, workspace_id).await != ["audit_log"] {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let is_gone = timeout(Duration::from_secs(20), going).await.is_ok();
    assert!(is_gone, "rows stay in {:?}", tables_with_rows(app, workspace_id).await);
}

#[tokio::test]
async fn a_deleted_workspace_is_gone_at_once_and_its_data_soon() {
    let app = TestApp::start().await;
    let other = app.user_in("olga", "Other").await;
    let others_chat = other.creates_private_channel("other", []).await;
    other.sends(&others_chat, "stays").await;
    let kept = uploads(&other, "kept.txt", b"noodles").await;
    let ([alice, bob, _], chat, _) = live(&app).await;
    bob.post("/api/workspaces/join", json!({ "name": "Other" })).await.expect(StatusCode::CREATED);
    let mut log = app.log_of(alice.workspace_id).await;

    let refused = app.refuses_to(&["workspace", "delete", "Acme", "--yes-really", "Acme?"]);
    assert!(refused.contains("nothing was deleted"), "{refused}");
    assert!(log.news().await.is_empty());
    app.administers(&["workspace", "delete", "Acme", "--yes-really", "Acme"]);
    let event = Log::only(log.news().await, "WorkspaceUpdated").data();
    assert_eq!(event["status"], "Deleted");
    alice.get("/api/chat").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    let sent = alice.post(&chat.messages, json!({ "content": "alone" })).await;
    sent.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    app.tries("alice@acme.test", PASSWORD).await.refuses(StatusCode::FORBIDDEN, "suspended");
    let left = ["audit_log", "events", "workspace_logs", "workspaces"];
    assert_eq!(tables_with_rows(&app, alice.workspace_id).await, left);
    assert_eq!(app.stored_files().len(), 1);

    // Bob's session goes on in his other workspace, and the name is free.
    let refreshed = app.anyone.with_cookie(&bob.refresh_token).post("/api/refresh", NOTHING).await;
    assert_eq!(refreshed.expect(StatusCode::OK)["user"]["workspace_id"], other.workspace_id);
    let bob = Person::signed_in(&app.anyone, &refreshed.expect(StatusCode::OK));
    let named = bob.post("/api/workspaces", json!({ "name": "Acme" })).await;
    named.expect(StatusCode::CREATED);

    app.sql(
        "update workspace_logs set changed_at = changed_at - interval '61 seconds'
             where status = 'Deleted'",
    )
    .await;
    other.deletes(&other.creates_private_channel("wakes the removal", []).await).await;
    everything_goes(&app, alice.workspace_id).await;
    assert_eq!(
        other.get(&others_chat.messages).await.expect(StatusCode::OK)[0]["content"],
        "stays"
    );
    let kept = format!("/api{}", kept["url"].as_str().unwrap());
    let kept = other.request(Method::GET, &kept).send().await.unwrap();
    assert_eq!(kept.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_servers_finish_an_interrupted_deletion() {
    let app = TestApp::start().await;
    let other = app.user_in("olga", "Other").await;
    let ([alice, ..], chat, _) = live(&app).await;
    alice.counts_to(30, &chat).await;
    // As its first commit leaves it.
    for statement in [
        "update workspace_logs set status = 'Deleted', changed_at = now() - interval '2 minutes'
         where workspace_id = $1",
        "update workspace_members set status = 'Left', left_at = now() where workspace_id = $1",
        "update chats set deleted_at = now() where workspace_id = $1",
    ] {
        sqlx::query(statement).bind(alice.workspace_id).execute(&app.db).await.unwrap();
    }
    other.deletes(&other.creates_private_channel("wakes the removal", []).await).await;
    everything_goes(&app, alice.workspace_id).await;
    assert!(app.stored_files().is_empty());
}
