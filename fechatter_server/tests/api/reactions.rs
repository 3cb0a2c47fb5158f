//! Reactions to messages.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Log, NOTHING, TestApp, ids_of};

const THUMB: &str = "\u{1f44d}";
const PARTY: &str = "\u{1f389}";

#[tokio::test]
async fn people_add_and_remove_reactions() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    let mut log = app.log_of(alice.workspace_id).await;

    bob.reacts(&chat, &sent, PARTY).await;
    bob.reacts(&chat, &sent, THUMB).await;
    let reactions = alice.reacts(&chat, &sent, THUMB).await;

    // In the order of their first use.
    let seen_by_alice = json!([
        { "emoji": PARTY, "count": 1, "user_ids": [bob.id], "me": false },
        { "emoji": THUMB, "count": 2, "user_ids": [bob.id, alice.id], "me": true },
    ]);
    assert_eq!(reactions, seen_by_alice);
    for path in [chat.messages.clone(), format!("{}?ids={}", chat.messages, sent["id"])] {
        let page = alice.get(&path).await.expect(StatusCode::OK);
        assert_eq!(page[0]["reactions"], seen_by_alice);
    }
    let one = bob.get(&chat.message(&sent)).await.expect(StatusCode::OK);
    assert_eq!(one["reactions"][0]["me"], true);
    let events = log.news().await;
    assert_eq!(events.len(), 3);
    assert_eq!(
        events[2].data(),
        json!({
            "chat_id": chat.id, "message_id": sent["id"], "user_id": alice.id, "emoji": THUMB,
            "count": 2,
        })
    );

    let removed = bob.delete(&chat.reaction(&sent, THUMB), NOTHING).await;
    let left = json!([
        { "emoji": PARTY, "count": 1, "user_ids": [bob.id], "me": true },
        { "emoji": THUMB, "count": 1, "user_ids": [alice.id], "me": false },
    ]);
    assert_eq!(removed.expect(StatusCode::OK)["reactions"], left);
    assert_eq!(
        Log::only(log.news().await, "ReactionRemoved").data(),
        json!({
            "chat_id": chat.id, "message_id": sent["id"], "user_id": bob.id, "emoji": THUMB,
            "count": 1,
        })
    );
}

#[tokio::test]
async fn a_reaction_is_added_once_and_removed_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    let reactions = bob.reacts(&chat, &sent, THUMB).await;
    let before = app.state().await;

    assert_eq!(bob.reacts(&chat, &sent, THUMB).await, reactions);
    let never = alice.delete(&chat.reaction(&sent, THUMB), NOTHING).await;
    assert_eq!(never.expect(StatusCode::OK)["reactions"][0]["count"], 1);
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_reaction_is_exactly_one_emoji_and_stored_fully_qualified() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let sent = alice.sends(&chat, "one").await;
    let before = app.state().await;

    for text in [
        "x",
        "+1",
        ":thumbsup:",
        "\u{1f44d}\u{1f44d}",
        "\u{1f44d} ",
        "\u{1f44d}\u{fe0f}\u{fe0f}",
        "\u{200d}",
        "\u{fe0f}",
        "1",
        "#",
        "\u{1f1e9}",
        "\u{1f3fd}\u{1f3fd}",
        "\u{1f468}\u{200d}\u{1f35c}",
        "\u{0}",
    ] {
        let refused = alice.put(&chat.reaction(&sent, text)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_emoji");
        let refused = alice.delete(&chat.reaction(&sent, text), NOTHING).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_emoji");
    }
    assert_eq!(app.state().await, before);

    for (given, stored) in [
        // A flag, a keycap, a skin tone, a family, a flag of tags, and forms without their selectors.
        ("\u{1f1e9}\u{1f1ea}", "\u{1f1e9}\u{1f1ea}"),
        ("1\u{fe0f}\u{20e3}", "1\u{fe0f}\u{20e3}"),
        ("\u{1f44d}\u{1f3fd}", "\u{1f44d}\u{1f3fd}"),
        (
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        ),
        (
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
        ),
        ("\u{2764}", "\u{2764}\u{fe0f}"),
        ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
    ] {
        let reactions = alice.reacts(&chat, &sent, given).await;
        let emojis: Vec<_> =
            reactions.as_array().unwrap().iter().map(|r| r["emoji"].as_str().unwrap()).collect();
        assert_eq!(emojis.iter().filter(|emoji| **emoji == stored).count(), 1, "{given:?}");
    }
}

#[tokio::test]
async fn a_message_takes_twenty_kinds_of_reactions() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    let emoji = |number: u32| char::from_u32(0x1f400 + number).unwrap().to_string();
    for number in 0..20 {
        alice.reacts(&chat, &sent, &emoji(number)).await;
    }

    let refused = bob.put(&chat.reaction(&sent, &emoji(20))).await;
    refused.refuses(StatusCode::BAD_REQUEST, "too_many_reactions");
    bob.reacts(&chat, &sent, &emoji(19)).await;
    alice.delete(&chat.reaction(&sent, &emoji(0)), NOTHING).await.expect(StatusCode::OK);
    let reactions = bob.reacts(&chat, &sent, &emoji(20)).await;
    assert_eq!(reactions.as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn deleted_and_archived_messages_take_no_reaction() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("notes", []).await;
    let [deleted, sent] = [alice.sends(&chat, "a").await, alice.sends(&chat, "b").await];
    alice.reacts(&chat, &deleted, THUMB).await;
    alice.reacts(&chat, &sent, THUMB).await;
    alice.deletes_message(&chat, &deleted).await;

    let refused = alice.put(&chat.reaction(&deleted, PARTY)).await;
    refused.refuses(StatusCode::NOT_FOUND, "not_found");
    let list = alice.get(&format!("{}/reactions", chat.message(&deleted))).await;
    assert_eq!(list.expect(StatusCode::OK), json!({ "items": [], "next_cursor": null }));
    app.sql("update chats set archived_at = clock_timestamp()").await;
    for reply in [
        alice.put(&chat.reaction(&sent, PARTY)).await,
        alice.delete(&chat.reaction(&sent, THUMB), NOTHING).await,
    ] {
        reply.refuses(StatusCode::FORBIDDEN, "archived");
    }
}

#[tokio::test]
async fn all_reactions_to_a_message_are_listed_in_pages() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob, &carol]).await;
    let sent = alice.sends(&chat, "noodles?").await;
    for (person, emoji) in [(&alice, THUMB), (&bob, PARTY), (&bob, THUMB), (&carol, THUMB)] {
        person.reacts(&chat, &sent, emoji).await;
    }
    let list = format!("{}/reactions", chat.message(&sent));

    let all = bob.get(&list).await.expect(StatusCode::OK);
    let entries: Vec<_> = all["items"].as_array().unwrap().iter().collect();
    let people: Vec<_> = entries.iter().map(|entry| entry["user_id"].as_i64().unwrap()).collect();
    assert_eq!(people, ids_of([&alice, &bob, &bob, &carol]));
    assert_eq!(entries[1]["emoji"], PARTY);

    let mut cursor = String::new();
    let mut paged = Vec::new();
    loop {
        let page = bob.get(&format!("{list}?emoji=%F0%9F%91%8D&limit=1{cursor}")).await;
        let page = page.expect(StatusCode::OK);
        paged.extend(
            page["items"].as_array().unwrap().iter().map(|e| e["user_id"].as_i64().unwrap()),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, ids_of([&alice, &bob, &carol]));
    bob.get(&format!("{list}?limit=0")).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

#[tokio::test]
async fn the_caller_is_found_among_more_people_than_a_reaction_names() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let sent = alice.sends(&chat, "noodles?").await;
    let others = app.extras(alice.workspace_id, 25).await;
    sqlx::query(
        "insert into message_reactions (workspace_id, chat_id, message_id, emoji, user_id, created_at)
         select $1, $2, $3, $4, user_id, now() from unnest($5::bigint[]) as user_id",
    )
    .bind(alice.workspace_id)
    .bind(chat.id)
    .bind(sent["id"].as_i64())
    .bind(THUMB)
    .bind(&others)
    .execute(&app.db)
    .await
    .unwrap();

    let reactions = alice.reacts(&chat, &sent, THUMB).await;
    assert_eq!(reactions[0]["count"], 26);
    assert_eq!(reactions[0]["user_ids"].as_array().unwrap().len(), 20);
    assert_eq!(reactions[0]["me"], true);
    let removed = alice.delete(&chat.reaction(&sent, THUMB), NOTHING).await;
    assert_eq!(removed.expect(StatusCode::OK)["reactions"][0]["me"], false);
}
