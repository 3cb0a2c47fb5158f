//! Replies, and other ways to find messages.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Chat, Log, Person, TestApp, seqs};

/// Sends a reply.
async fn replies(person: &Person, chat: &Chat, to: &Value, content: &str) -> Value {
    let draft = json!({ "content": content, "reply_to_id": to["id"] });
    person.post(&chat.messages, draft).await.expect(StatusCode::CREATED)
}

#[tokio::test]
async fn a_message_counts_its_replies() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let parent = alice.sends(&chat, "noodles?").await;
    let mut log = app.log_of(alice.workspace_id).await;

    let first = replies(&bob, &chat, &parent, "yes").await;
    let second = replies(&alice, &chat, &parent, "where?").await;

    assert_eq!(first["reply_to_id"], parent["id"]);
    assert_eq!(log.kinds().await, ["NewMessage", "NewMessage"]);
    let shown = async || bob.get(&chat.message(&parent)).await.expect(StatusCode::OK);
    let now = shown().await;
    assert_eq!((&now["reply_count"], &now["last_reply_at"]), (&json!(2), &second["created_at"]));

    alice.deletes_message(&chat, &second).await;
    let deleted = Log::only(log.news().await, "MessageDeleted").data();
    let left = json!({
        "id": parent["id"], "reply_count": 1, "last_reply_at": first["created_at"],
    });
    assert_eq!(deleted["parent"], left);
    let now = shown().await;
    assert_eq!((&now["reply_count"], &now["last_reply_at"]), (&json!(1), &first["created_at"]));

    bob.deletes_message(&chat, &first).await;
    let now = shown().await;
    assert_eq!((&now["reply_count"], &now["last_reply_at"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn a_tombstone_keeps_its_replies_and_its_place_among_replies() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let parent = alice.sends(&chat, "a").await;
    let reply = replies(&alice, &chat, &parent, "b").await;
    alice.deletes_message(&chat, &parent).await;

    let tombstone = alice.get(&chat.message(&parent)).await.expect(StatusCode::OK);
    assert_eq!((&tombstone["reply_count"], &tombstone["content"]), (&json!(1), &json!("")));
    alice.deletes_message(&chat, &reply).await;
    let list = alice.get(&format!("{}?reply_to={}", chat.messages, parent["id"])).await;
    let list = list.expect(StatusCode::OK);
    assert_eq!((&list[0]["id"], &list[0]["content"]), (&reply["id"], &json!("")));
    assert_eq!(list[0]["reply_to_id"], parent["id"]);
}

#[tokio::test]
async fn a_reply_needs_a_living_message_of_the_same_chat() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let other = alice.creates_private_channel("other", []).await;
    let elsewhere = alice.sends(&other, "x").await;
    let deleted = alice.sends(&chat, "x").await;
    alice.deletes_message(&chat, &deleted).await;
    let before = app.state().await;

    for id in [elsewhere["id"].clone(), deleted["id"].clone(), json!(9_007_199_254_740_992_i64)] {
        let draft = json!({ "content": "x", "reply_to_id": id });
        let refused = alice.post(&chat.messages, draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "reply_not_found");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_repeated_reply_needs_the_same_parent_but_no_living_one() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let [parent, other] = [alice.sends(&chat, "a").await, alice.sends(&chat, "b").await];
    let key = Uuid::new_v4();
    let draft = |parent: &Value| json!({ "content": "c", "idempotency_key": key, "reply_to_id": parent["id"] });
    let sent = alice.post(&chat.messages, draft(&parent)).await.expect(StatusCode::CREATED);

    for different in [draft(&other), json!({ "content": "c", "idempotency_key": key })] {
        let refused = alice.post(&chat.messages, different).await;
        refused.refuses(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch");
    }
    alice.deletes_message(&chat, &parent).await;
    let repeated = alice.post(&chat.messages, draft(&parent)).await;
    assert_eq!(repeated.expect(StatusCode::CREATED), sent);
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn replies_are_read_in_pages() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let parent = alice.sends(&chat, "1").await;
    for number in 2..=9 {
        // Every second message is a reply.
        if number % 2 == 0 {
            replies(&alice, &chat, &parent, "x").await;
        } else {
            alice.sends(&chat, "x").await;
        }
    }
    let list = format!("{}?reply_to={}", chat.messages, parent["id"]);

    for (query, expected, older, newer) in [
        ("", vec![8, 6, 4, 2], false, false),
        ("&limit=2", vec![8, 6], true, false),
        ("&before_seq=6&limit=1", vec![4], true, true),
        ("&before_seq=4", vec![2], false, true),
        ("&after_seq=2&limit=2", vec![6, 4], true, true),
        ("&after_seq=6", vec![8], true, false),
        ("&after_seq=8", vec![], true, false),
        ("&before_seq=2", vec![], false, true),
    ] {
        let reply = alice.get(&format!("{list}{query}")).await;
        assert_eq!(seqs(&reply.expect(StatusCode::OK)), expected, "{query}");
        let beyond = ["x-has-older", "x-has-newer"].map(|name| reply.header(name) == Some("true"));
        assert_eq!(beyond, [older, newer], "{query}");
    }
    let none = alice.get(&format!("{}?reply_to=9007199254740992", chat.messages)).await;
    none.refuses(StatusCode::NOT_FOUND, "not_found");
    for query in ["&around_seq=2", "&last_id=7", "&ids=1", "&before_seq=1&after_seq=1"] {
        let refused = alice.get(&format!("{list}{query}")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_page_around_a_time_has_the_first_message_since_then_in_the_middle() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let empty = alice.creates_private_channel("empty", []).await;
    alice.counts_to(9, &chat).await;
    app.sql(
        "update messages set created_at = timestamptz '2026-01-01 00:00:00Z' + seq * interval '1 min'",
    )
    .await;

    for (time, expected) in [
        ("2025-01-01T00:00:00Z", vec![4, 3, 2, 1]),
        ("2026-01-01T00:04:30Z", vec![7, 6, 5, 4]),
        ("2026-01-01T00:05:00.000Z", vec![7, 6, 5, 4]),
        ("2026-01-01T02:05:00%2B02:00", vec![7, 6, 5, 4]),
        ("2027-01-01T00:00:00Z", vec![9, 8, 7, 6]),
    ] {
        let page = alice.get(&format!("{}?limit=4&around_time={time}", chat.messages)).await;
        assert_eq!(seqs(&page.expect(StatusCode::OK)), expected, "{time}");
    }
    let nothing = alice.get(&format!("{}?around_time=2026-01-01T00:00:00Z", empty.messages)).await;
    assert_eq!(nothing.expect(StatusCode::OK), json!([]));
    for time in ["yesterday", "2026-01-01", ""] {
        let refused = alice.get(&format!("{}?around_time={time}", chat.messages)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_permalink_leads_members_to_the_message() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    alice.sends(&chat, "a").await;
    let sent = alice.sends(&chat, "b").await;
    let link = format!("/api/permalink/{}", sent["id"]);

    let place = json!({ "chat_id": chat.id, "id": sent["id"], "seq": 2 });
    assert_eq!(bob.get(&link).await.expect(StatusCode::OK), place);
    eve.get(&link).await.refuses(StatusCode::NOT_FOUND, "not_found");
    alice.removes([&bob], &chat).await;
    bob.get(&link).await.refuses(StatusCode::NOT_FOUND, "not_found");
    alice.deletes(&chat).await;
    alice.get(&link).await.refuses(StatusCode::NOT_FOUND, "not_found");
}
