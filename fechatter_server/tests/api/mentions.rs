//! Mentions of people in messages.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{NOTHING, Person, TestApp};

fn mentions(people: &[&Person], all: bool) -> Value {
    let ids: Vec<_> = people.iter().map(|person| person.id).collect();
    json!({ "user_ids": ids, "all": all })
}

fn at(person: &Person) -> String {
    format!("@[user:{}]", person.id)
}

#[tokio::test]
async fn members_are_mentioned_and_others_stay_text() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let text = format!("{} {} {} @[user:999] `{}`", at(&bob), at(&carol), at(&alice), at(&bob));

    let sent = alice.sends(&chat, &text).await;

    assert_eq!(sent["content"], text);
    assert_eq!(sent["mentions"], mentions(&[&alice, &bob], false));
    assert_eq!(bob.get(&chat.message(&sent)).await.expect(StatusCode::OK), sent);
    assert_eq!(bob.sidebar(&chat).await["mention_count"], 1);
    assert_eq!(alice.sidebar(&chat).await["mention_count"], 0);
    let unread = bob.get("/api/unread").await.expect(StatusCode::OK);
    assert_eq!((&unread["mentions"], &unread["total"]), (&json!(1), &json!(1)));
    // A later member was not mentioned.
    alice.post(&chat.members, json!([carol.id])).await.expect(StatusCode::CREATED);
    assert_eq!(carol.get(&chat.message(&sent)).await.expect(StatusCode::OK), sent);
}

#[tokio::test]
async fn everybody_is_mentioned_at_once_and_counts_once() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;

    let sent = alice.sends(&chat, &format!("@all, and {} above all", at(&bob))).await;

    assert_eq!(sent["mentions"], mentions(&[&bob], true));
    for (person, count) in [(&alice, 0), (&bob, 1), (&carol, 1)] {
        assert_eq!(person.sidebar(&chat).await["mention_count"], count);
    }
    let read = bob.post(&format!("{}/read", chat.path), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(read["mention_count"], 0);
    assert_eq!(bob.sidebar(&chat).await["mention_count"], 0);
    assert_eq!(
        alice.sends(&chat, "me@all.example, @allow").await["mentions"],
        mentions(&[], false)
    );
}

#[tokio::test]
async fn an_edit_changes_the_mentions_and_a_deletion_ends_them() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;
    let sent = alice.sends(&chat, &at(&bob)).await;

    let edit = json!({ "content": format!("@all {}", at(&carol)) });
    let edited = alice.patch(&chat.message(&sent), edit).await.expect(StatusCode::OK);

    assert_eq!(edited["mentions"], mentions(&[&carol], true));
    let edit = json!({ "content": at(&carol) });
    let edited = alice.patch(&chat.message(&sent), edit).await.expect(StatusCode::OK);
    assert_eq!(edited["mentions"], mentions(&[&carol], false));
    assert_eq!(bob.sidebar(&chat).await["mention_count"], 0);
    assert_eq!(carol.sidebar(&chat).await["mention_count"], 1);
    alice.deletes_message(&chat, &sent).await;
    let deleted = carol.get(&chat.message(&sent)).await.expect(StatusCode::OK);
    assert_eq!(deleted["mentions"], mentions(&[], false));
    assert_eq!(carol.sidebar(&chat).await["mention_count"], 0);
    let stored: i64 = sqlx::query_scalar("select count(*) from message_mentions")
        .fetch_one(&app.db)
        .await
        .unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn a_message_mentions_at_most_fifty_people() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let text =
        |count: i64| (1..=count).map(|id| format!("@[user:{id}]")).collect::<Vec<_>>().concat();
    let sent = alice.sends(&chat, &text(50)).await;
    let before = app.state().await;

    let too_many = alice.post(&chat.messages, json!({ "content": text(51) })).await;
    too_many.refuses(StatusCode::BAD_REQUEST, "too_many_mentions");
    let too_many = alice.patch(&chat.message(&sent), json!({ "content": text(51) })).await;
    too_many.refuses(StatusCode::BAD_REQUEST, "too_many_mentions");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_retry_is_answered_with_the_mentions() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let key = "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a";
    let draft = json!({ "content": at(&bob), "idempotency_key": key });

    let sent = alice.post(&chat.messages, draft.clone()).await.expect(StatusCode::CREATED);
    let again = alice.post(&chat.messages, draft).await;

    assert!(again.header("idempotency-replayed").is_some());
    assert_eq!(again.expect(StatusCode::CREATED), sent);
    assert_eq!(bob.sidebar(&chat).await["mention_count"], 1);
}
