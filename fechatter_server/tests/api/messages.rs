//! Sending and reading messages.

use std::collections::BTreeSet;
use std::time::Duration;

use fechatter_core::log::EPHEMERAL_CHANNEL;
use futures_util::future::join_all;
use insta::assert_json_snapshot;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::harness::{Log, Reply, TestApp, seqs};

#[tokio::test]
async fn all_members_read_a_sent_message() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let key = "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a";
    let message = json!({ "content": "  noodles?\n", "idempotency_key": key });
    let reply = alice.post(&chat.messages, message).await;

    let sent = reply.expect(StatusCode::CREATED);
    assert_json_snapshot!(reply.ordered(), { ".created_at" => "[time]" }, @r#"
    {
      "id": 1,
      "chat_id": 1,
      "sender_id": 1,
      "content": "  noodles?\n",
      "files": [],
      "created_at": "[time]",
      "idempotency_key": "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a",
      "seq": 1,
      "kind": "user",
      "reply_to_id": null,
      "reply_count": 0,
      "last_reply_at": null,
      "mentions": {
        "user_ids": [],
        "all": false
      },
      "reactions": [],
      "attachments": [],
      "edited_at": null,
      "deleted_at": null
    }
    "#);
    assert!(reply.header("idempotency-replayed").is_none());
    let read = bob.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(read, json!([sent]));
    let one = bob.get(&format!("{}/{}", chat.messages, sent["id"])).await;
    assert_eq!(one.expect(StatusCode::OK), sent);
    eve.get(&chat.messages).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let event = Log::only(log.news().await, "NewMessage");
    assert_eq!((event.chat_id, event.message_id), (Some(chat.id), sent["id"].as_i64()));
    assert_eq!(event.payload, None, "events name messages, they don't copy them");
}

#[tokio::test]
async fn a_retry_returns_the_message_that_was_sent() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });
    let sent = alice.post(&chat.messages, message.clone()).await.expect(StatusCode::CREATED);
    bob.sends(&chat, "soup!").await;
    let mut log = app.log_of(alice.workspace_id).await;

    // However often, in other words that mean the same, and from another session.
    let mut spelt_out = message.clone();
    spelt_out["files"] = json!([]);
    spelt_out["reply_to_id"] = Value::Null;
    let elsewhere = app.signs_in(&alice).await;
    for (client, body) in [(&alice, &message), (&alice, &spelt_out), (&elsewhere, &message)] {
        let again = client.post(&chat.messages, body.clone()).await;
        assert_eq!(again.expect(StatusCode::CREATED), sent);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert!(log.kinds().await.is_empty());
    let read = bob.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(seqs(&read), [2, 1]);
}

#[tokio::test]
async fn the_sender_gets_an_event_for_a_retry() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });
    let sent = alice.post(&chat.messages, message.clone()).await.expect(StatusCode::CREATED);
    let mut listener = PgListener::connect_with(&app.db).await.unwrap();
    listener.listen(EPHEMERAL_CHANNEL).await.unwrap();

    alice.post(&chat.messages, message).await.expect(StatusCode::CREATED);

    let heard = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await;
    let heard: Value = serde_json::from_str(heard.unwrap().unwrap().payload()).unwrap();
    let event = json!({
        "event": "DuplicateMessageAttempted",
        "idempotency_key": sent["idempotency_key"],
        "chat_id": chat.id,
        "sender_id": alice.id,
        "message_id": sent["id"],
    });
    let told = json!({
        "workspace_id": alice.workspace_id, "user_id": alice.id, "event": event, "version": 0
    });
    assert_eq!(heard, json!([told]));
}

#[tokio::test]
async fn simultaneous_retries_create_one_message() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });

    let replies = join_all((0..16).map(|_| alice.post(&chat.messages, message.clone()))).await;

    let replayed = |reply: &&Reply| reply.header("idempotency-replayed") == Some("true");
    assert_eq!(replies.iter().filter(replayed).count(), 15);
    let first = replies[0].expect(StatusCode::CREATED);
    for reply in &replies {
        assert_eq!(reply.expect(StatusCode::CREATED), first);
    }
    let read = alice.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(read, json!([first]));
}

#[tokio::test]
async fn the_same_key_with_another_content_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });
    alice.post(&chat.messages, message.clone()).await.expect(StatusCode::CREATED);
    let before = app.state().await;

    for content in ["soup?", "noodles? ", "NOODLES?"] {
        let mut other = message.clone();
        other["content"] = content.into();
        let refused = alice.post(&chat.messages, other).await;
        refused.refuses(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_key_is_unique_for_one_sender_in_one_chat() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let lunch = alice.creates_private_channel("lunch", [&bob]).await;
    let dinner = alice.creates_private_channel("dinner", []).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });

    let mut ids = BTreeSet::new();
    for (sender, chat) in [(&alice, &lunch), (&bob, &lunch), (&alice, &dinner)] {
        let reply = sender.post(&chat.messages, message.clone()).await;
        ids.insert(reply.expect(StatusCode::CREATED)["id"].as_i64().unwrap());
        assert!(reply.header("idempotency-replayed").is_none());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn without_a_key_the_server_makes_one() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;

    let one = alice.sends(&chat, "noodles?").await;
    let other = alice.sends(&chat, "noodles?").await;

    assert_ne!(one["id"], other["id"]);
    let keys = [&one, &other].map(|sent| sent["idempotency_key"].as_str().unwrap().to_owned());
    assert_ne!(keys[0], keys[1]);
    let again = json!({ "content": "noodles?", "idempotency_key": keys[0] });
    assert_eq!(alice.post(&chat.messages, again).await.expect(StatusCode::CREATED), one);
}

#[tokio::test]
async fn sixty_four_messages_sent_at_once_are_numbered_from_1_to_64() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let sent = join_all((0..64).map(|number| {
        let sender = if number % 2 == 0 { &alice } else { &bob };
        let (chat, content) = (&chat, number.to_string());
        async move { sender.sends(chat, &content).await }
    }))
    .await;

    let mut sent: Vec<_> = sent
        .iter()
        .map(|message| (message["seq"].as_i64().unwrap(), message["id"].as_i64().unwrap()))
        .collect();
    sent.sort_unstable();
    assert_eq!(sent.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
    assert!(sent.is_sorted_by_key(|(_, id)| *id), "ids run as seqs do");
    let logged: Vec<_> = log.news().await.iter().filter_map(|event| event.message_id).collect();
    assert_eq!(logged, sent.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    let newest = alice.get(&format!("{}?limit=1", chat.messages)).await;
    assert_eq!(newest.expect(StatusCode::OK)[0]["seq"], 64);
    assert_eq!(alice.get(&chat.path).await.expect(StatusCode::OK)["last_seq"], 64);
}

#[tokio::test]
async fn a_refused_message_does_not_fail_others() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let evil = mallory.creates_private_channel("evil", []).await;
    let keyed = |content: &str, key: &str| json!({ "content": content, "idempotency_key": key });
    let key = "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a";
    alice.post(&chat.messages, keyed("first", key)).await.expect(StatusCode::CREATED);

    let sends = join_all((0..8).flat_map(|number| {
        let content = number.to_string();
        [
            alice.post(&chat.messages, json!({ "content": content })),
            bob.post(&chat.messages, json!({ "content": content })),
            mallory.post(&chat.messages, json!({ "content": content })),
            mallory.post(&evil.messages, json!({ "content": content })),
            alice.post(&chat.messages, keyed("other", key)),
            alice.post(&chat.messages, keyed("first", key)),
        ]
    }))
    .await;

    for (number, reply) in sends.iter().enumerate() {
        let expected = [201, 404, 404, 201, 422, 201][number % 6];
        assert_eq!(reply.status, expected, "{}", reply.text);
    }
    let ours = alice.get(&chat.messages).await.expect(StatusCode::OK);
    assert_eq!(seqs(&ours), (1..=9).rev().collect::<Vec<_>>());
    let theirs = mallory.get(&evil.messages).await.expect(StatusCode::OK);
    assert_eq!(seqs(&theirs), (1..=8).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn history_is_read_in_pages_newest_first() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("count", []).await;
    let sent = alice.counts_to(7, &chat).await;
    let id = |seq: usize| sent[seq - 1]["id"].as_i64().unwrap();

    for (query, expected, older, newer) in [
        (String::new(), vec![7, 6, 5, 4, 3, 2, 1], false, false),
        ("?limit=3".into(), vec![7, 6, 5], true, false),
        ("?limit=7".into(), vec![7, 6, 5, 4, 3, 2, 1], false, false),
        (format!("?last_id={}&limit=2", id(5)), vec![4, 3], true, true),
        (format!("?last_id={}", id(3)), vec![2, 1], false, true),
        (format!("?last_id={}", id(1)), vec![], false, true),
        ("?before_seq=4&limit=2".into(), vec![3, 2], true, true),
        ("?before_seq=4&limit=3".into(), vec![3, 2, 1], false, true),
        ("?before_seq=99&limit=2".into(), vec![7, 6], true, false),
        ("?after_seq=4".into(), vec![7, 6, 5], true, false),
        ("?after_seq=2&limit=2".into(), vec![4, 3], true, true),
        ("?after_seq=5&limit=2".into(), vec![7, 6], true, false),
        ("?after_seq=0&limit=2".into(), vec![2, 1], false, true),
        ("?after_seq=0&limit=100".into(), vec![7, 6, 5, 4, 3, 2, 1], false, false),
    ] {
        let reply = alice.get(&format!("{}{query}", chat.messages)).await;
        assert_eq!(seqs(&reply.expect(StatusCode::OK)), expected, "{query}");
        assert_eq!(reply.header("x-has-older"), Some(text(older)), "{query}");
        assert_eq!(reply.header("x-has-newer"), Some(text(newer)), "{query}");
    }
    for query in ["?last_id=0", "?before_seq=0"] {
        let reply = alice.get(&format!("{}{query}", chat.messages)).await;
        assert_eq!(seqs(&reply.expect(StatusCode::OK)), [0; 0], "{query}");
    }
    let latest = alice.get(&format!("{}?after_seq=7", chat.messages)).await;
    assert_eq!(seqs(&latest.expect(StatusCode::OK)), [0; 0]);
    assert_eq!(latest.header("x-has-newer"), Some("false"));
}

#[tokio::test]
async fn a_page_around_a_message_has_it_in_the_middle() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("count", []).await;
    alice.counts_to(9, &chat).await;

    for (around, limit) in [(5, 3), (5, 4), (1, 3), (9, 3), (5, 100), (5, 1)] {
        let path = format!("{}?around_seq={around}&limit={limit}", chat.messages);
        let reply = alice.get(&path).await;
        let page = seqs(&reply.expect(StatusCode::OK));

        assert!(page.contains(&around), "{around} of {limit}: {page:?}");
        assert!(page.len() <= limit && page.windows(2).all(|two| two[0] == two[1] + 1), "{page:?}");
        let (newest, oldest) = (page[0], page[page.len() - 1]);
        assert!((newest - around).abs_diff(around - oldest) <= 1 || oldest == 1 || newest == 9);
        assert_eq!(reply.header("x-has-older"), Some(text(oldest > 1)), "{page:?}");
        assert_eq!(reply.header("x-has-newer"), Some(text(newest < 9)), "{page:?}");
    }
}

#[tokio::test]
async fn messages_are_read_by_their_ids() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("count", []).await;
    let other = alice.creates_private_channel("other", []).await;
    let sent = alice.counts_to(4, &chat).await;
    let elsewhere = alice.sends(&other, "elsewhere").await;

    let ids = format!("{},{},{},999", sent[0]["id"], elsewhere["id"], sent[2]["id"]);
    let page = alice.get(&format!("{}?ids={ids}", chat.messages)).await;

    assert_eq!(page.expect(StatusCode::OK), json!([sent[2], sent[0]]));
    let hidden = alice.get(&format!("{}/{}", chat.messages, elsewhere["id"])).await;
    hidden.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn invalid_or_contradictory_page_parameters_are_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("count", []).await;
    alice.sends(&chat, "1").await;

    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1.5",
        "last_id=-1",
        "last_id=x",
        "last_id=9223372036854775808",
        "before_seq=-1",
        "after_seq=x",
        "around_seq=",
        "ids=x",
        "ids=1,x",
        "last_id=1&before_seq=1",
        "before_seq=1&after_seq=1",
        "after_seq=1&around_seq=1",
        "ids=1&last_id=1",
    ] {
        let refused = alice.get(&format!("{}?{query}", chat.messages)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let far = format!("{}?before_seq=9223372036854775807", chat.messages);
    assert_eq!(seqs(&alice.get(&far).await.expect(StatusCode::OK)), [1]);
    let far = format!("{}?after_seq=9223372036854775807", chat.messages);
    assert_eq!(seqs(&alice.get(&far).await.expect(StatusCode::OK)), [0; 0]);
}

#[tokio::test]
async fn a_message_has_at_most_10000_characters() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;

    let longest = "😀".repeat(10_000);
    assert_eq!(alice.sends(&chat, &longest).await["content"], longest);
    let before = app.state().await;
    for content in ["😀".repeat(10_001), "x".repeat(10_001)] {
        let refused = alice.post(&chat.messages, json!({ "content": content })).await;
        refused.refuses(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_message_without_visible_characters_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let before = app.state().await;

    let invisible = [
        "\u{ad}",
        "\u{34f}",
        "\u{61c}",
        "\u{115f}",
        "\u{17b4}",
        "\u{180e}",
        "\u{200b}",
        "\u{200d}",
        "\u{202e}",
        "\u{2060}",
        "\u{2800}",
        "\u{3164}",
        "\u{fe0f}",
        "\u{feff}",
        "\u{ffa0}",
        "\u{fff9}",
        "\u{13441}",
        "\u{1d159}",
        "\u{1d173}",
        "\u{e0020}",
    ];
    let blank = ["", " ", "\n\t \r\n", "\u{3000}\u{a0}\u{2028}", "\u{2029}", "\u{200b}\n \u{2800}"];
    for content in blank.into_iter().chain(invisible) {
        let refused = alice.post(&chat.messages, json!({ "content": content })).await;
        refused.refuses(StatusCode::BAD_REQUEST, "empty_message");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn text_keeps_all_characters_except_windows_line_ends() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;

    for (said, kept) in [
        ("a\r\nb\r\n\r\nc", "a\nb\n\nc"),
        ("\ta\nb ", "\ta\nb "),
        ("a\u{2028}b\u{200b}", "a\u{2028}b\u{200b}"),
        ("e\u{301} \u{200b}\u{202e}x\u{202c} 👩\u{200d}👩\u{200d}👧", ""),
        ("<b>&amp;</b> '; drop table messages; --", ""),
        ("\\u0000 %00 \\", ""),
    ] {
        let sent = alice.sends(&chat, said).await;
        assert_eq!(sent["content"], if kept.is_empty() { said } else { kept });
    }
    for control in ["\u{0}", "\u{7}", "\u{1b}", "\u{7f}", "\u{85}", "a\rb"] {
        let content = format!("x{control}y");
        let refused = alice.post(&chat.messages, json!({ "content": content })).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn a_message_of_the_wrong_shape_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let before = app.state().await;

    for message in [
        json!({}),
        json!({ "content": null }),
        json!({ "content": 7 }),
        json!({ "content": ["x"] }),
        json!({ "content": "x", "idempotency_key": "" }),
        json!({ "content": "x", "idempotency_key": "no uuid" }),
        json!({ "content": "x", "idempotency_key": 7 }),
        json!({ "content": "x", "sender_id": 2 }),
        json!({ "content": "x", "seq": 2 }),
        json!({ "content": "x", "kind": "system" }),
        json!({ "content": "x", "files": "x" }),
        json!({ "content": "x", "reply_to_id": "x" }),
        json!(["x"]),
        json!(["x", null, null, null]),
        json!("x"),
    ] {
        let refused = alice.post(&chat.messages, message).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    for message in [json!({ "content": "x", "files": ["/files/1/aaa/bbb/c.txt"] })] {
        alice.post(&chat.messages, message).await.expect(StatusCode::BAD_REQUEST);
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_removed_member_can_neither_send_nor_retry() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let message = json!({ "content": "noodles?", "idempotency_key": Uuid::new_v4() });
    bob.post(&chat.messages, message.clone()).await.expect(StatusCode::CREATED);
    alice.removes([&bob], &chat).await;
    let before = app.state().await;

    for late in [message, json!({ "content": "soup?" })] {
        let refused = bob.post(&chat.messages, late).await;
        refused.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn suspended_and_signed_out_people_cannot_send() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    app.suspends(&bob).await;
    let elsewhere = app.signs_in(&alice).await;
    elsewhere.post("/api/logout", Value::Null).await.expect(StatusCode::OK);
    let before = app.state().await;

    let suspended = bob.post(&chat.messages, json!({ "content": "noodles?" })).await;
    assert!(matches!(suspended.status.as_u16(), 401 | 403), "{}", suspended.text);
    let signed_out = elsewhere.post(&chat.messages, json!({ "content": "noodles?" })).await;
    signed_out.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn sending_to_an_archived_chat_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    app.sql("update chats set archived_at = clock_timestamp()").await;

    let refused = alice.post(&chat.messages, json!({ "content": "noodles?" })).await;

    refused.refuses(StatusCode::FORBIDDEN, "archived");
}

#[tokio::test]
async fn a_message_sent_during_a_removal_precedes_it_or_is_refused() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let (sends, ()) = tokio::join!(
        join_all((0..20).map(|_| bob.post(&chat.messages, json!({ "content": "x" })))),
        alice.removes([&bob], &chat),
    );

    let sent = sends.iter().filter(|reply| reply.status == StatusCode::CREATED).count();
    assert!(sends.iter().all(|reply| matches!(reply.status.as_u16(), 201 | 404)));
    let kinds = log.kinds().await;
    assert_eq!(kinds.len(), sent + 1);
    assert_eq!(kinds.last().unwrap(), "UserLeftChat", "{kinds:?}");
}

fn text(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}
