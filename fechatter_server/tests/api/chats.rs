//! Chats of the four kinds, the list of one's own and the directory.

use futures_util::future::join_all;
use insta::assert_json_snapshot;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Chat, Log, NOTHING, Person, TestApp, ids_of};

#[tokio::test]
async fn the_creator_of_a_group_is_its_owner() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let draft = json!({
        "name": "  Lunch ", "chat_type": "Group", "members": [bob.id, carol.id], "description": "?"
    });
    let reply = alice.post("/api/chat", draft).await;

    let chat = reply.expect(StatusCode::CREATED);
    assert_json_snapshot!(reply.ordered(), {
        ".created_at" => "[time]",
        ".updated_at" => "[time]",
    }, @r#"
    {
      "id": 1,
      "workspace_id": 1,
      "name": "Lunch",
      "chat_type": "Group",
      "chat_members": [
        1,
        2,
        3
      ],
      "description": "?",
      "created_by": 1,
      "created_at": "[time]",
      "updated_at": "[time]",
      "member_count": 3,
      "last_seq": 0,
      "archived_at": null
    }
    "#);
    let created = Log::only(log.news().await, "NewChat");
    assert_eq!(created.data(), chat);
    assert_eq!((created.chat_id, created.user_id), (chat["id"].as_i64(), None));
}

#[tokio::test]
async fn a_group_begins_with_three_people_not_counting_repetitions() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;

    let members = json!([carol.id, bob.id, alice.id, bob.id, carol.id]);
    let chat = json!({ "name": "Three", "chat_type": "Group", "members": members });
    let chat = alice.post("/api/chat", chat).await.expect(StatusCode::CREATED);
    assert_eq!(sorted(&chat["chat_members"]), ids_of([&alice, &bob, &carol]));
    assert_eq!(chat["member_count"], 3);

    let before = app.state().await;
    let too_few = [json!([]), json!([bob.id]), json!([alice.id, bob.id, bob.id, alice.id])];
    for members in too_few {
        let chat = json!({ "name": "Two", "chat_type": "Group", "members": members });
        let refused = alice.post("/api/chat", chat).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_members");
    }
    let nobody = alice.post("/api/chat", json!({ "name": "One", "chat_type": "Group" })).await;
    nobody.refuses(StatusCode::BAD_REQUEST, "invalid_members");
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_private_channel_begins_with_its_creator_and_the_given_members() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    let alone = alice.creates_private_channel("Notes", []).await;
    assert_eq!(alone.body["chat_members"], json!([alice.id]));

    let both = alice.creates_private_channel("Notes", [&bob]).await;
    assert_eq!(sorted(&both.body["chat_members"]), ids_of([&alice, &bob]));
}

#[tokio::test]
async fn a_public_channel_begins_with_its_creator_alone() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    let draft = json!({ "name": "news", "chat_type": "PublicChannel", "members": [bob.id] });
    let chat = alice.post("/api/chat", draft).await.expect(StatusCode::CREATED);

    assert_eq!(chat["chat_members"], json!([alice.id]));
    assert_eq!(chat["member_count"], 1);
}

#[tokio::test]
async fn two_people_have_one_single() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mut log = app.log_of(alice.workspace_id).await;
    let single = alice.opens_single_with(&bob).await;
    assert_eq!(sorted(&single.body["chat_members"]), ids_of([&alice, &bob]));

    for (person, members) in [
        (&alice, json!([bob.id])),
        (&alice, json!([alice.id, bob.id])),
        (&bob, json!([alice.id])),
        (&bob, json!([alice.id, bob.id, alice.id])),
    ] {
        let draft = json!({ "name": "", "chat_type": "Single", "members": members });
        let again = person.post("/api/chat", draft).await.expect(StatusCode::OK);
        assert_eq!(again, single.body);
    }
    assert_eq!(log.kinds().await, ["NewChat"]);
    assert_ne!(alice.opens_single_with(&carol).await.id, single.id);

    for members in [json!([]), json!([alice.id]), json!([bob.id, carol.id])] {
        let draft = json!({ "chat_type": "Single", "members": members });
        let refused = alice.post("/api/chat", draft).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_members");
    }
}

#[tokio::test]
async fn a_single_opened_from_both_sides_at_once_is_one() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    let open = |person: &Person, other: i64| {
        let person = person.with("x-request-id", "at-once");
        async move {
            let draft = json!({ "chat_type": "Single", "members": [other] });
            person.post("/api/chat", draft).await
        }
    };
    let replies = join_all((0..4).flat_map(|_| [open(&alice, bob.id), open(&bob, alice.id)])).await;

    let created = replies.iter().filter(|reply| reply.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    let ids = replies.iter().map(|reply| reply.expect(reply.status)["id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), vec![json!(1); 8]);
}

#[tokio::test]
async fn a_public_channels_name_is_taken_once_a_workspace() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let channel = alice.creates_public_channel("Caf\u{e9}").await;

    for name in ["Caf\u{e9}", " CAFE\u{301} "] {
        let draft = json!({ "name": name, "chat_type": "PublicChannel" });
        let refused = bob.post("/api/chat", draft).await;
        refused.refuses(StatusCode::CONFLICT, "chat_name_taken");
    }
    bob.creates_private_channel("Caf\u{e9}", []).await;
    mallory.creates_public_channel("Caf\u{e9}").await;

    let other = bob.creates_public_channel("Tea").await;
    let renamed = bob.patch(&other.path, json!({ "name": "caf\u{e9}" })).await;
    renamed.refuses(StatusCode::CONFLICT, "chat_name_taken");
    let same = alice.patch(&channel.path, json!({ "name": "CAF\u{c9}" })).await;
    same.expect(StatusCode::OK);

    alice.deletes(&channel).await;
    bob.creates_public_channel("Caf\u{e9}").await;
}

#[tokio::test]
async fn only_one_of_many_simultaneous_requests_gets_a_channel_name() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let draft = json!({ "name": "news", "chat_type": "PublicChannel" });
    let replies = join_all((0..8).map(|_| alice.post("/api/chat", draft.clone()))).await;

    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn only_active_people_of_the_workspace_can_be_in_a_chat() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    app.suspends(&carol).await;
    let before = app.state().await;

    for stranger in [mallory.id, carol.id, 999, 0, -1] {
        for (chat_type, members) in [
            ("Single", json!([stranger])),
            ("Group", json!([bob.id, stranger])),
            ("PrivateChannel", json!([bob.id, stranger])),
        ] {
            let draft = json!({ "name": "x", "chat_type": chat_type, "members": members });
            let refused = alice.post("/api/chat", draft).await;
            if stranger > 0 {
                refused.refuses(StatusCode::NOT_FOUND, "user_not_found");
            } else {
                assert!(matches!(refused.status.as_u16(), 400 | 404), "{}", refused.text);
            }
        }
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn names_and_descriptions_have_limits() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let draft = |name: &str, description: &str| json!({ "name": name, "description": description, "chat_type": "PrivateChannel" });
    let longest = draft(&format!(" {} ", "😀".repeat(128)), &"😀".repeat(1000));
    let chat = alice.post("/api/chat", longest).await.expect(StatusCode::CREATED);
    assert_eq!(chat["name"], "😀".repeat(128));
    assert_eq!(chat["description"], "😀".repeat(1000));

    let too_much = "x".repeat(129);
    for (name, description) in [
        ("", ""),
        (" \u{3000}", ""),
        (too_much.as_str(), ""),
        ("x", &"x".repeat(1001)),
        ("a\u{7}b", ""),
        ("a\nb", ""),
        ("a\u{0}b", ""),
        ("x", "a\u{0}b"),
        ("x", "a\u{7}b"),
    ] {
        let refused = alice.post("/api/chat", draft(name, description)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        if description.is_empty() {
            let path = format!("/api/chat/{}", chat["id"]);
            let refused = alice.patch(&path, json!({ "name": name })).await;
            refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
        }
    }
}

#[tokio::test]
async fn a_draft_of_the_wrong_shape_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    for draft in [
        json!({ "name": "x" }),
        json!({ "chat_type": "PublicChannel" }),
        json!({ "name": "x", "chat_type": "public_channel" }),
        json!({ "name": "x", "chat_type": "Channel" }),
        json!({ "name": 1, "chat_type": "PublicChannel" }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "members": "2" }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "members": ["2"] }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "members": [1.5] }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "created_by": 2 }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "workspace_id": 2 }),
        json!({ "name": "x", "chat_type": "PrivateChannel", "idempotency_key": "no uuid" }),
        json!([]),
        json!(["x", "PrivateChannel", null, null, null]),
        json!("x"),
    ] {
        let refused = alice.post("/api/chat", draft.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{draft}: {}", refused.text);
    }
    let crowd: Vec<i64> = (1..=501).collect();
    let draft = json!({ "name": "x", "chat_type": "PrivateChannel", "members": crowd });
    alice.post("/api/chat", draft).await.expect(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn five_hundred_people_fit_into_a_new_chat() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let extras = app.extras(alice.workspace_id, 501).await;

    let draft = json!({ "name": "all", "chat_type": "PrivateChannel", "members": extras[..500] });
    let chat = alice.post("/api/chat", draft).await.expect(StatusCode::CREATED);

    assert_eq!(chat["member_count"], 501);
    assert_eq!(chat["chat_members"].as_array().unwrap().len(), 500, "no more are listed");
    let chat = Chat::of(chat);
    alice.post(&chat.members, json!([extras[500]])).await.expect(StatusCode::CREATED);
    let read = alice.get(&chat.path).await.expect(StatusCode::OK);
    assert_eq!(read["member_count"], 502);
    assert_eq!(read["chat_members"].as_array().unwrap().len(), 500);
}

#[tokio::test]
async fn creating_with_the_same_key_creates_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let draft = json!({
        "name": "x",
        "chat_type": "PrivateChannel",
        "idempotency_key": "0190c5a4-7e2c-7b6a-9d3a-1f2e3d4c5b6a",
    });
    let mut log = app.log_of(alice.workspace_id).await;

    let first = alice.post("/api/chat", draft.clone()).await.expect(StatusCode::CREATED);
    let again = alice.post("/api/chat", draft.clone()).await;
    let at_once = join_all((0..4).map(|_| alice.post("/api/chat", draft.clone()))).await;

    for reply in at_once.iter().chain([&again]) {
        assert!(reply.status.is_success(), "{}", reply.text);
        assert_eq!(reply.expect(reply.status)["id"], first["id"]);
    }
    assert_eq!(log.kinds().await, ["NewChat"]);

    let mut other = draft.clone();
    other["name"] = "y".into();
    let refused = alice.post("/api/chat", other).await;
    refused.refuses(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch");
    let bobs = bob.post("/api/chat", draft).await.expect(StatusCode::CREATED);
    assert_ne!(bobs["id"], first["id"]);
}

#[tokio::test]
async fn only_members_see_a_chat() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let dave = app.user("dave").await;
    let group = alice.creates_group("Lunch", [&bob, &carol]).await;
    let private = alice.creates_private_channel("Plans", []).await;
    let single = alice.opens_single_with(&bob).await;
    let absent = dave.get("/api/chat/999").await;
    absent.refuses(StatusCode::NOT_FOUND, "not_found");

    for chat in [&group, &private, &single] {
        let read = alice.get(&chat.path).await.expect(StatusCode::OK);
        for (key, value) in chat.body.as_object().unwrap() {
            assert_eq!(read[key], *value, "{key}");
        }
        assert_eq!(read["me"], alice.sidebar(chat).await);
        for stranger in [&dave, &mallory] {
            let hidden = stranger.get(&chat.path).await;
            assert_eq!(hidden.status, StatusCode::NOT_FOUND);
            assert_eq!(hidden.without_id(), absent.without_id());
        }
    }
}

#[tokio::test]
async fn all_people_of_the_workspace_see_a_public_channel_but_not_its_messages() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let channel = alice.creates_public_channel("news").await;
    let sent = alice.sends(&channel, "Hello").await;

    let seen = bob.get(&channel.path).await.expect(StatusCode::OK);
    assert_eq!(seen["name"], "news");
    assert_eq!(seen["me"], Value::Null);
    mallory.get(&channel.path).await.refuses(StatusCode::NOT_FOUND, "not_found");

    let message = format!("{}/{}", channel.messages, sent["id"]);
    for path in [&channel.messages, &message, &channel.members] {
        bob.get(path).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    let replies = [
        bob.post(&channel.messages, json!({ "content": "Hi" })).await,
        bob.post(&channel.members, json!([bob.id])).await,
        bob.delete(&channel.members, json!([alice.id])).await,
        bob.patch(&channel.path, json!({ "name": "mine" })).await,
        bob.patch(&channel.member(bob.id), NOTHING).await,
        bob.delete(&channel.path, NOTHING).await,
        bob.post(&channel.leave, NOTHING).await,
    ];
    for reply in replies {
        reply.refuses(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn owner_and_admins_rename_and_members_do_not() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    alice.makes_admin(&bob, &chat).await;
    let mut log = app.log_of(alice.workspace_id).await;

    for (person, name) in [(&alice, " Dinner "), (&bob, "Supper")] {
        let renamed = person.patch(&chat.path, json!({ "name": name })).await;
        let renamed = renamed.expect(StatusCode::OK);
        assert_eq!(renamed["name"], name.trim());
        let updated = Log::only(log.news().await, "ChatUpdated");
        assert_eq!(updated.data()["name"], renamed["name"]);
        assert_eq!((updated.chat_id, updated.user_id), (Some(chat.id), None));
    }
    let refused = carol.patch(&chat.path, json!({ "name": "Mine" })).await;
    refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    assert!(log.kinds().await.is_empty());
    assert_eq!(carol.get(&chat.path).await.expect(StatusCode::OK)["name"], "Supper");
}

#[tokio::test]
async fn a_patch_changes_only_its_fields_and_null_clears_a_field() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let draft = json!({ "name": "x", "description": "y", "chat_type": "PrivateChannel" });
    let chat = Chat::of(alice.post("/api/chat", draft).await.expect(StatusCode::CREATED));

    for (changes, name, description) in [
        (json!({}), "x", json!("y")),
        (json!({ "name": "z" }), "z", json!("y")),
        (json!({ "description": "w" }), "z", json!("w")),
        (json!({ "description": null }), "z", Value::Null),
    ] {
        let changed = alice.patch(&chat.path, changes).await.expect(StatusCode::OK);
        assert_eq!((&changed["name"], &changed["description"]), (&json!(name), &description));
    }
    for changes in [
        json!({ "name": null }),
        json!({ "chat_type": null }),
        json!({ "created_by": 2 }),
        json!({ "members": [1] }),
        json!({ "archived_at": null }),
        json!([]),
    ] {
        let refused = alice.patch(&chat.path, changes.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{changes}");
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn groups_become_private_and_private_channels_public_and_back() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_group("news", [&bob, &carol]).await;
    let into =
        async |chat_type: &str| alice.patch(&chat.path, json!({ "chat_type": chat_type })).await;
    let mut log = app.log_of(alice.workspace_id).await;

    for unheard_of in ["PublicChannel", "Single"] {
        assert_eq!(into(unheard_of).await.status, StatusCode::BAD_REQUEST);
    }
    for (chat_type, seen_by_dave) in [
        ("PrivateChannel", StatusCode::NOT_FOUND),
        ("PublicChannel", StatusCode::OK),
        ("PrivateChannel", StatusCode::NOT_FOUND),
    ] {
        let converted = into(chat_type).await.expect(StatusCode::OK);
        assert_eq!(converted["chat_type"], chat_type);
        assert_eq!(converted["member_count"], 3);
        assert_eq!(log.kinds().await, ["ChatUpdated"]);
        dave.get(&chat.path).await.expect(seen_by_dave);
    }
    for unheard_of in ["Group", "Single"] {
        assert_eq!(into(unheard_of).await.status, StatusCode::BAD_REQUEST);
    }
    dave.creates_public_channel("NEWS").await;
    into("PublicChannel").await.refuses(StatusCode::CONFLICT, "chat_name_taken");
    assert_eq!(log.kinds().await, ["NewChat"]);
}

#[tokio::test]
async fn nothing_about_a_single_can_be_changed() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let single = alice.opens_single_with(&bob).await;
    let before = app.state().await;

    for person in [&alice, &bob] {
        for changes in [json!({ "name": "Us" }), json!({ "chat_type": "PrivateChannel" })] {
            let refused = person.patch(&single.path, changes).await;
            if person.id == alice.id {
                refused.refuses(StatusCode::BAD_REQUEST, "single_is_fixed");
            } else {
                assert!(matches!(refused.status.as_u16(), 400 | 403), "{}", refused.text);
            }
        }
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_deleted_chat_is_at_once_invisible_to_all_people() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    let sent = alice.sends(&chat, "Hello").await;
    alice.makes_admin(&bob, &chat).await;
    for person in [&bob, &carol] {
        person.delete(&chat.path, NOTHING).await.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    let mut log = app.log_of(alice.workspace_id).await;

    alice.deletes(&chat).await;

    let deleted = Log::only(log.news().await, "ChatDeleted");
    assert_eq!(deleted.data(), json!({ "id": chat.id }));
    assert_eq!((deleted.chat_id, deleted.user_id), (Some(chat.id), None));
    let message = format!("{}/{}", chat.messages, sent["id"]);
    for person in [&alice, &bob] {
        assert_eq!(person.get("/api/chat").await.expect(StatusCode::OK), json!([]));
        for path in [&chat.path, &chat.messages, &chat.members, &message] {
            person.get(path).await.refuses(StatusCode::NOT_FOUND, "not_found");
        }
        let late = person.post(&chat.messages, json!({ "content": "Hello?" })).await;
        late.refuses(StatusCode::NOT_FOUND, "not_found");
        person.delete(&chat.path, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
        person.post(&chat.leave, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn a_single_that_was_deleted_can_be_opened_anew() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let old = alice.opens_single_with(&bob).await;
    alice.deletes(&old).await;

    let new = bob.opens_single_with(&alice).await;

    assert_ne!(new.id, old.id);
    assert_eq!(new.body["created_by"], bob.id);
}

#[tokio::test]
async fn the_list_describes_a_chat_from_the_view_of_the_caller() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.opens_single_with(&bob).await;
    assert_eq!(bob.sidebar(&chat).await["last_message"], Value::Null);
    assert_eq!(bob.sidebar(&chat).await["updated_at"], chat.body["created_at"]);
    let sent = alice.sends(&chat, "Hello").await;

    let reply = bob.get("/api/chat").await;

    let sidebar = &reply.expect(StatusCode::OK)[0];
    assert_eq!(sidebar["updated_at"], sent["created_at"]);
    assert_json_snapshot!(reply.ordered(), {
        ".**.created_at" => "[time]",
        ".**.updated_at" => "[time]",
    }, @r#"
    [
      {
        "id": 1,
        "name": "alice",
        "chat_type": "Single",
        "last_message": {
          "id": 1,
          "content": "Hello",
          "sender_name": "alice",
          "created_at": "[time]",
          "has_files": false,
          "sender_id": 1,
          "seq": 1,
          "kind": "user",
          "deleted_at": null
        },
        "is_creator": false,
        "peer_id": 1,
        "member_count": 2,
        "last_seq": 1,
        "last_read_seq": 0,
        "unread_count": 1,
        "unread_capped": false,
        "mention_count": 0,
        "notify_level": "all",
        "muted_until": null,
        "pinned_at": null,
        "archived_at": null,
        "updated_at": "[time]"
      }
    ]
    "#);
    assert_eq!(alice.sidebar(&chat).await["name"], "bob");
    assert_eq!(alice.sidebar(&chat).await["peer_id"], bob.id);
    assert_eq!(alice.sidebar(&chat).await["is_creator"], true);
}

#[tokio::test]
async fn messages_of_others_are_unread_until_the_caller_reads_or_sends() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;

    bob.counts_to(3, &chat).await;
    assert_eq!(alice.sidebar(&chat).await["unread_count"], 3);
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 0);

    alice.sends(&chat, "4").await;
    assert_eq!(alice.sidebar(&chat).await["unread_count"], 0);
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 1);
}

#[tokio::test]
async fn unread_counts_stop_at_100() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;

    bob.counts_to(100, &chat).await;
    let sidebar = alice.sidebar(&chat).await;
    assert_eq!((&sidebar["unread_count"], &sidebar["unread_capped"]), (&json!(100), &json!(false)));

    bob.sends(&chat, "101").await;
    let sidebar = alice.sidebar(&chat).await;
    assert_eq!((&sidebar["unread_count"], &sidebar["unread_capped"]), (&json!(100), &json!(true)));
}

#[tokio::test]
async fn the_chat_with_the_latest_activity_comes_first() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let old = alice.creates_private_channel("old", [&bob]).await;
    let new = alice.creates_private_channel("new", []).await;
    let listed = async || {
        let chats = alice.get("/api/chat").await.expect(StatusCode::OK);
        let chats = chats.as_array().unwrap().iter();
        chats.map(|chat| chat["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };

    assert_eq!(listed().await, [new.id, old.id]);
    bob.sends(&old, "Hello").await;
    assert_eq!(listed().await, [old.id, new.id]);
}

#[tokio::test]
async fn the_list_is_sent_again_only_if_it_has_changed() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;
    let first = alice.get("/api/chat").await;
    first.expect(StatusCode::OK);
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let etag = first.header("etag").unwrap().to_owned();

    let known = alice.with("if-none-match", &etag);
    for client in [&known, &alice.with("if-none-match", &format!("\"other\", {etag}"))] {
        let unchanged = client.get("/api/chat").await;
        assert_eq!(unchanged.expect(StatusCode::NOT_MODIFIED), Value::Null);
        assert_eq!(unchanged.header("etag"), Some(&*etag));
    }

    bob.sends(&chat, "Hello").await;
    let changed = known.get("/api/chat").await;
    changed.expect(StatusCode::OK);
    assert_ne!(changed.header("etag"), Some(&*etag));
}

#[tokio::test]
async fn the_list_can_be_filtered_by_archived_chats() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    alice.creates_private_channel("x", []).await;

    assert_eq!(alice.get("/api/chat?archived=true").await.expect(StatusCode::OK), json!([]));
    let present = alice.get("/api/chat?archived=false").await.expect(StatusCode::OK);
    assert_eq!(present.as_array().unwrap().len(), 1);
    let unclear = alice.get("/api/chat?archived=maybe").await;
    unclear.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

#[tokio::test]
async fn the_directory_lists_the_workspaces_public_channels() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    mallory.creates_public_channel("evil").await;
    alice.creates_private_channel("secret", [&bob]).await;
    let news = alice.creates_public_channel("Caf\u{e9} news").await;
    let tea = bob.creates_public_channel("tea_time").await;
    let gone = bob.creates_public_channel("gone").await;
    bob.deletes(&gone).await;

    let directory = bob.get("/api/chat/directory").await.expect(StatusCode::OK);
    assert_eq!(directory["next_cursor"], Value::Null);
    let mut expected = [news.body.clone(), tea.body.clone()];
    expected[0]["joined"] = false.into();
    expected[1]["joined"] = true.into();
    assert_eq!(directory["items"], json!(expected));

    for (query, found) in [
        ("news", vec![news.id]),
        ("CAFE%CC%81", vec![news.id]),
        ("e", vec![news.id, tea.id]),
        ("_", vec![tea.id]),
        ("%25", vec![]),
        ("%5C", vec![]),
        ("secret", vec![]),
    ] {
        let path = format!("/api/chat/directory?q={query}");
        let directory = bob.get(&path).await.expect(StatusCode::OK);
        let items = directory["items"].as_array().unwrap().iter();
        assert_eq!(items.map(|chat| chat["id"].as_i64().unwrap()).collect::<Vec<_>>(), found);
    }
}

#[tokio::test]
async fn the_directory_comes_in_pages() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mut expected = Vec::new();
    for number in 1..=5 {
        expected.push(alice.creates_public_channel(&format!("channel {number}")).await.id);
    }

    let (mut found, mut path) = (Vec::new(), "/api/chat/directory?limit=2".to_owned());
    loop {
        let page = alice.get(&path).await.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        assert!((1..=2).contains(&items.len()));
        found.extend(items.iter().map(|chat| chat["id"].as_i64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/chat/directory?limit=2&cursor={cursor}");
    }
    assert_eq!(found, expected);

    for query in ["limit=0", "limit=101", "limit=x", "limit=-1", "cursor=%00", "cursor=nonsense"] {
        let refused = alice.get(&format!("/api/chat/directory?{query}")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

fn sorted(ids: &Value) -> Vec<i64> {
    let mut ids: Vec<_> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}
