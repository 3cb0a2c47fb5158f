//! Editing and deleting messages.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Log, NOTHING, TestApp};

#[tokio::test]
async fn an_edited_message_has_the_new_text_everywhere() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodels?").await;
    let mut log = app.log_of(alice.workspace_id).await;

    let edited = alice.edits(&chat, &sent, "noodles?").await;

    assert_eq!(edited["content"], "noodles?");
    assert!(edited["edited_at"].is_string());
    for unchanged in ["id", "seq", "sender_id", "created_at", "idempotency_key", "deleted_at"] {
        assert_eq!(edited[unchanged], sent[unchanged], "{unchanged}");
    }
    assert_eq!(bob.get(&chat.messages).await.expect(StatusCode::OK), json!([edited]));
    assert_eq!(bob.sidebar(&chat).await["last_message"]["content"], "noodles?");
    let sync = bob.get("/api/sync").await.expect(StatusCode::OK);
    assert_eq!(sync["chats"][0]["last_message"]["content"], "noodles?");
    let event = Log::only(log.news().await, "MessageUpdated");
    assert_eq!((event.chat_id, event.message_id), (Some(chat.id), sent["id"].as_i64()));
    assert_eq!(event.payload, None, "events name messages and do not copy them");
}

#[tokio::test]
async fn only_the_sender_edits_a_message() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = bob.sends(&chat, "noodles?").await;
    let before = app.state().await;

    let change = json!({ "content": "no noodles" });
    for (person, status, kind) in
        [(&alice, StatusCode::FORBIDDEN, "forbidden"), (&eve, StatusCode::NOT_FOUND, "not_found")]
    {
        person.patch(&chat.message(&sent), change.clone()).await.refuses(status, kind);
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    let before = app.state().await;

    assert_eq!(alice.edits(&chat, &sent, "noodles?").await, sent);
    for person in [&alice, &bob] {
        let nothing = person.patch(&chat.message(&sent), json!({})).await;
        assert_eq!(nothing.expect(StatusCode::OK), sent);
    }
    let stranger = eve.patch(&chat.message(&sent), json!({})).await;
    stranger.refuses(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn an_edit_keeps_the_rules_of_texts() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let sent = alice.sends(&chat, "one").await;
    let before = app.state().await;

    let long = "\u{1f35c}".repeat(10_001);
    for (change, status, kind) in [
        (json!({ "content": " \u{200b}" }), StatusCode::BAD_REQUEST, "empty_message"),
        (json!({ "content": long }), StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        (json!({ "content": null }), StatusCode::BAD_REQUEST, "invalid_input"),
        (json!({ "content": "\u{0}" }), StatusCode::BAD_REQUEST, "invalid_input"),
        (json!({ "files": [] }), StatusCode::BAD_REQUEST, "invalid_input"),
    ] {
        alice.patch(&chat.message(&sent), change).await.refuses(status, kind);
    }
    assert_eq!(app.state().await, before);
    let longest = "\u{1f35c}".repeat(10_000);
    assert_eq!(alice.edits(&chat, &sent, &longest).await["content"], longest);
    assert_eq!(alice.edits(&chat, &sent, "a\r\nb\t").await["content"], "a\nb\t");
}

#[tokio::test]
async fn a_deleted_message_is_a_tombstone_everywhere() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let key = Uuid::new_v4();
    let draft = json!({ "content": "secret", "idempotency_key": key });
    let sent = alice.post(&chat.messages, draft.clone()).await.expect(StatusCode::CREATED);
    bob.reacts(&chat, &sent, "\u{1f44d}").await;
    let mut log = app.log_of(alice.workspace_id).await;

    alice.deletes_message(&chat, &sent).await;

    let tombstone = bob.get(&chat.message(&sent)).await.expect(StatusCode::OK);
    assert!(tombstone["deleted_at"].is_string());
    assert_eq!((&tombstone["content"], &tombstone["reactions"]), (&json!(""), &json!([])));
    for kept in ["id", "seq", "sender_id", "created_at"] {
        assert_eq!(tombstone[kept], sent[kept], "{kept}");
    }
    assert_eq!(bob.get(&chat.messages).await.expect(StatusCode::OK), json!([tombstone]));
    let last = bob.sidebar(&chat).await;
    assert_eq!(last["last_message"]["content"], "");
    assert_eq!(last["last_message"]["deleted_at"], tombstone["deleted_at"]);
    assert_eq!(last["unread_count"], 0);
    assert_eq!(
        Log::only(log.news().await, "MessageDeleted").data(),
        json!({
            "chat_id": chat.id, "id": sent["id"], "seq": 1, "sender_id": alice.id,
            "actor_id": alice.id,
        })
    );
    // A retry of the send is answered with the message as it is now.
    let retried = alice.post(&chat.messages, draft).await;
    assert_eq!(retried.expect(StatusCode::CREATED), tombstone);
    let stored: i64 = sqlx::query_scalar("select count(*) from messages where content <> ''")
        .fetch_one(&app.db)
        .await
        .unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn senders_owners_and_admins_delete_messages() {
    let app = TestApp::start().await;
    let [alice, bob, carol, dave] = app.users(["alice", "bob", "carol", "dave"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol, &dave]).await;
    alice.makes_admin(&carol, &chat).await;
    let mut log = app.log_of(alice.workspace_id).await;

    for deleter in [&bob, &alice, &carol] {
        let sent = bob.sends(&chat, "noodles?").await;
        let refused = dave.delete(&chat.message(&sent), NOTHING).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
        deleter.deletes_message(&chat, &sent).await;
        let events = log.news().await;
        assert_eq!(events.last().unwrap().data()["actor_id"], deleter.id);
        // Deleting it again changes nothing.
        deleter.deletes_message(&chat, &sent).await;
        assert!(log.news().await.is_empty());
    }
}

#[tokio::test]
async fn nobody_deletes_the_messages_of_the_other_person_of_a_single() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let single = alice.opens_single_with(&bob).await;
    for (sender, other) in [(&alice, &bob), (&bob, &alice)] {
        let sent = sender.sends(&single, "hello").await;
        let refused = other.delete(&single.message(&sent), NOTHING).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
        sender.deletes_message(&single, &sent).await;
    }
}

#[tokio::test]
async fn a_deleted_message_cannot_be_edited() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    alice.deletes_message(&chat, &sent).await;
    let before = app.state().await;

    let change = json!({ "content": "back" });
    for person in [&alice, &bob] {
        let refused = person.patch(&chat.message(&sent), change.clone()).await;
        refused.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn messages_of_an_archived_chat_cannot_be_changed() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let [deleted, sent] = [alice.sends(&chat, "a").await, alice.sends(&chat, "b").await];
    alice.deletes_message(&chat, &deleted).await;
    app.sql("update chats set archived_at = clock_timestamp()").await;
    let before = app.state().await;

    let edit = alice.patch(&chat.message(&sent), json!({ "content": "c" })).await;
    edit.refuses(StatusCode::FORBIDDEN, "archived");
    let delete = alice.delete(&chat.message(&sent), NOTHING).await;
    delete.refuses(StatusCode::FORBIDDEN, "archived");
    let foreign = bob.patch(&chat.message(&sent), json!({ "content": "c" })).await;
    foreign.refuses(StatusCode::FORBIDDEN, "forbidden");
    alice.deletes_message(&chat, &deleted).await;
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn former_members_and_people_without_a_session_change_no_message() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;
    let [bobs, carols] = [bob.sends(&chat, "b").await, carol.sends(&chat, "c").await];
    alice.removes([&bob], &chat).await;
    carol.post("/api/logout", NOTHING).await.expect(StatusCode::OK);
    let before = app.state().await;

    for (person, message, status) in
        [(&bob, &bobs, StatusCode::NOT_FOUND), (&carol, &carols, StatusCode::UNAUTHORIZED)]
    {
        let path = chat.message(message);
        assert_eq!(person.patch(&path, json!({ "content": "x" })).await.status, status);
        assert_eq!(person.delete(&path, NOTHING).await.status, status);
        assert_eq!(person.put(&chat.reaction(message, "\u{1f44d}")).await.status, status);
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn edits_deletions_and_reactions_at_once_leave_a_consistent_message() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    for round in 0..5 {
        let sent = alice.sends(&chat, "before").await;
        let mut log = app.log_of(alice.workspace_id).await;
        let path = chat.message(&sent);
        let edits =
            join_all((0..8).map(|n| alice.patch(&path, json!({ "content": format!("{n}") }))));
        let reactions =
            join_all(["\u{1f44d}", "\u{1f389}", "\u{1f680}", "\u{1f440}"].map(|emoji| {
                let path = chat.reaction(&sent, emoji);
                let bob = &bob;
                async move { bob.put(&path).await }
            }));
        let deletion = alice.delete(&path, NOTHING);
        let (edits, reactions, deletion) = tokio::join!(edits, reactions, deletion);

        deletion.expect(StatusCode::NO_CONTENT);
        for reply in edits.iter().chain(&reactions) {
            assert!([200, 404].contains(&reply.status.as_u16()), "{round}: {reply:?}");
        }
        let events = log.news().await;
        let last = events.iter().position(|event| event.kind == "MessageDeleted").unwrap();
        assert_eq!(last + 1, events.len(), "nothing happens to a deleted message");
        let tombstone: Value = bob.get(&path).await.expect(StatusCode::OK);
        assert_eq!(tombstone["content"], "");
    }
}
