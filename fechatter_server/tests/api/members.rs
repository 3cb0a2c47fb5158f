//! Who is in a chat, with which role, and how that changes.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Log, NOTHING, TestApp, ids_of, seqs};

#[tokio::test]
async fn members_are_listed_oldest_first_with_their_roles() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = carol.creates_public_channel("news").await;
    bob.joins(&chat).await;
    alice.joins(&chat).await;
    carol.makes_admin(&alice, &chat).await;

    let members = alice.get(&chat.members).await.expect(StatusCode::OK);

    let members = members.as_array().unwrap();
    for (member, (person, role)) in
        members.iter().zip([(&carol, "owner"), (&bob, "member"), (&alice, "admin")])
    {
        assert_eq!(member["chat_id"], chat.id);
        assert_eq!(member["user_id"], person.id);
        assert_eq!(member["role"], role);
        assert!(member["joined_at"].is_string());
    }
    assert_eq!(members.len(), 3);
}

#[tokio::test]
async fn members_come_in_pages() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let extras = app.extras(alice.workspace_id, 6).await;
    let chat = alice.creates_private_channel("all", []).await;
    alice.post(&chat.members, json!(extras)).await.expect(StatusCode::CREATED);
    let everyone = alice.members_of(&chat).await;
    assert_eq!(everyone.len(), 7);

    let (mut found, mut path) = (Vec::new(), format!("{}?limit=3", chat.members));
    loop {
        let reply = alice.get(&path).await;
        let page = reply.expect(StatusCode::OK);
        found.extend(page.as_array().unwrap().iter().map(|one| one["user_id"].as_i64().unwrap()));
        let Some(cursor) = reply.header("x-next-cursor") else { break };
        path = format!("{}?limit=3&cursor={cursor}", chat.members);
    }
    assert_eq!(found, everyone);

    for query in ["limit=0", "limit=101", "limit=x", "cursor=nonsense"] {
        let refused = alice.get(&format!("{}?{query}", chat.members)).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn adding_returns_the_new_members_with_an_event_for_each() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_private_channel("Plans", [&bob]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let added = json!([carol.id, bob.id, dave.id, carol.id, alice.id]);
    let added = alice.post(&chat.members, added).await.expect(StatusCode::CREATED);

    let mut ids: Vec<_> =
        added.as_array().unwrap().iter().map(|one| one["user_id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ids_of([&carol, &dave]));
    let news = log.news().await;
    assert_eq!(news.len(), 2);
    for (event, member) in news.iter().zip(added.as_array().unwrap()) {
        assert_eq!(event.kind, "UserJoinedChat");
        assert_eq!(event.chat_id, Some(chat.id));
        let data = event.data();
        for key in ["chat_id", "user_id", "joined_at", "role"] {
            assert_eq!(data[key], member[key], "{key}");
        }
        assert_eq!(data["actor_id"], alice.id);
        assert_eq!(data["chat"]["id"], chat.id);
        assert_eq!(data["chat"]["name"], "Plans");
        assert_eq!(data["chat"]["chat_members"], json!([]));
    }
    let read = dave.get(&chat.path).await.expect(StatusCode::OK);
    assert_eq!(read["member_count"], 4);

    for nobody in [json!([]), json!([bob.id])] {
        let added = alice.post(&chat.members, nobody).await.expect(StatusCode::CREATED);
        assert_eq!(added, json!([]));
    }
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn adding_adds_all_people_or_none() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let chat = alice.creates_private_channel("Plans", []).await;
    app.suspends(&carol).await;
    let before = app.state().await;

    for stranger in [mallory.id, carol.id, 999] {
        let refused = alice.post(&chat.members, json!([bob.id, stranger])).await;
        refused.refuses(StatusCode::NOT_FOUND, "user_not_found");
    }
    for nonsense in [json!({}), json!(["2"]), json!([1.5]), json!([null]), json!(2), json!("[2]")] {
        let refused = alice.post(&chat.members, nonsense).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    let crowd: Vec<i64> = (1..=501).collect();
    alice.post(&chat.members, json!(crowd)).await.expect(StatusCode::BAD_REQUEST);

    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn owner_and_admins_add_and_members_do_not() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let [dave, erin] = app.users(["dave", "erin"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    alice.makes_admin(&bob, &chat).await;

    bob.adds([&dave], &chat).await;

    let refused = carol.post(&chat.members, json!([erin.id])).await;
    refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    erin.post(&chat.members, json!([erin.id])).await.refuses(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(erin.get("/api/chat").await.expect(StatusCode::OK), json!([]));
}

#[tokio::test]
async fn people_are_removed_by_body_or_by_query() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_group("Lunch", [&bob, &carol, &dave]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let reply = alice.delete(&chat.members, json!([carol.id, 999])).await;
    assert_eq!(reply.expect(StatusCode::NO_CONTENT), Value::Null);
    let left = Log::only(log.news().await, "UserLeftChat");
    assert_eq!((left.chat_id, left.user_id), (Some(chat.id), Some(carol.id)));
    let data = left.data();
    assert_eq!(data["chat_id"], chat.id);
    assert_eq!(data["user_id"], carol.id);
    assert_eq!(data["actor_id"], alice.id);
    assert_eq!(data["reason"], "removed");
    assert!(data["joined_at"].is_string());

    let query = format!("{}?user_ids={},{}", chat.members, bob.id, dave.id);
    alice.delete(&query, NOTHING).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(log.kinds().await, ["UserLeftChat", "UserLeftChat"]);
    assert_eq!(alice.members_of(&chat).await, [alice.id], "a Group may shrink below three");

    for nobody in [json!([carol.id]), json!([999]), json!([])] {
        let refused = alice.delete(&chat.members, nobody).await;
        refused.refuses(StatusCode::BAD_REQUEST, "no_members_matched");
    }
    for query in ["user_ids=x", "user_ids=2,,x", "user_ids=9223372036854775808"] {
        let refused = alice.delete(&format!("{}?{query}", chat.members), NOTHING).await;
        refused.expect(StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn for_a_removed_member_the_chat_does_not_exist() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("Plans", [&bob]).await;
    let sent = bob.sends(&chat, "Hello").await;
    alice.removes([&bob], &chat).await;

    assert_eq!(bob.get("/api/chat").await.expect(StatusCode::OK), json!([]));
    let message = format!("{}/{}", chat.messages, sent["id"]);
    for path in [&chat.path, &chat.members, &chat.messages, &message] {
        bob.get(path).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    for path in [&chat.join, &chat.leave] {
        bob.post(path, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
}

#[tokio::test]
async fn members_can_be_removed_only_by_higher_roles() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let [dave, erin] = app.users(["dave", "erin"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol, &dave, &erin]).await;
    alice.makes_admin(&bob, &chat).await;
    alice.makes_admin(&carol, &chat).await;
    let before = app.state().await;

    let forbidden = [(&bob, &alice), (&bob, &carol), (&dave, &erin), (&dave, &alice)];
    for (remover, removed) in forbidden {
        let refused = remover.delete(&chat.members, json!([removed.id])).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    let with_a_peer = bob.delete(&chat.members, json!([dave.id, carol.id])).await;
    with_a_peer.refuses(StatusCode::FORBIDDEN, "forbidden");
    let herself = alice.delete(&chat.members, json!([alice.id])).await;
    herself.refuses(StatusCode::CONFLICT, "owner_must_transfer");
    assert_eq!(app.state().await, before);

    bob.removes([&dave], &chat).await;
    alice.removes([&bob, &erin], &chat).await;
    assert_eq!(alice.members_of(&chat).await, ids_of([&alice, &carol]));
}

#[tokio::test]
async fn all_people_can_join_a_public_channel_but_only_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let channel = alice.creates_public_channel("news").await;
    let mut log = app.log_of(alice.workspace_id).await;

    let joined = bob.post(&channel.join, NOTHING).await.expect(StatusCode::OK);

    assert_eq!(joined["chat_id"], channel.id);
    assert_eq!(joined["user_id"], bob.id);
    assert_eq!(joined["role"], "member");
    let event = Log::only(log.news().await, "UserJoinedChat");
    assert_eq!(event.data()["user_id"], bob.id);
    assert_eq!(event.data()["actor_id"], bob.id);
    assert_eq!(event.data()["chat"]["member_count"], 2);

    let again = join_all((0..4).map(|_| bob.post(&channel.join, NOTHING))).await;
    for reply in again {
        assert_eq!(reply.expect(StatusCode::OK), joined);
    }
    let owner = alice.post(&channel.join, NOTHING).await.expect(StatusCode::OK);
    assert_eq!(owner["role"], "owner");
    assert!(log.kinds().await.is_empty());
}

#[tokio::test]
async fn only_public_channels_can_be_joined() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let group = alice.creates_group("Lunch", [&bob, &carol]).await;
    let private = alice.creates_private_channel("Plans", []).await;
    let single = alice.opens_single_with(&bob).await;
    let public = alice.creates_public_channel("news").await;

    for chat in [&group, &private, &single] {
        dave.post(&chat.join, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    mallory.post(&public.join, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn members_leave_but_the_owner_transfers_first() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("Plans", [&bob]).await;
    let refused = alice.post(&chat.leave, NOTHING).await;
    refused.refuses(StatusCode::CONFLICT, "owner_must_transfer");
    alice.patch(&chat.member(bob.id), NOTHING).await.expect(StatusCode::OK);
    let mut log = app.log_of(alice.workspace_id).await;

    alice.leaves(&chat).await;

    let left = Log::only(log.news().await, "UserLeftChat");
    assert_eq!((left.chat_id, left.user_id), (Some(chat.id), Some(alice.id)));
    assert_eq!(left.data()["reason"], "left");
    assert_eq!(left.data()["actor_id"], alice.id);
    alice.post(&chat.leave, NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let last = bob.post(&chat.leave, NOTHING).await;
    last.refuses(StatusCode::CONFLICT, "owner_must_transfer");
}

#[tokio::test]
async fn the_members_of_a_single_cannot_change() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let single = alice.opens_single_with(&bob).await;
    let before = app.state().await;

    let replies = [
        alice.post(&single.members, json!([carol.id])).await,
        alice.post(&single.leave, NOTHING).await,
        bob.post(&single.leave, NOTHING).await,
    ];
    for reply in replies {
        reply.refuses(StatusCode::BAD_REQUEST, "single_is_fixed");
    }
    let removed = alice.delete(&single.members, json!([bob.id])).await;
    assert_eq!(removed.status, StatusCode::BAD_REQUEST, "{}", removed.text);
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn ownership_is_transferred_with_a_body_or_without() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let transfers =
        [(&alice, &bob, NOTHING), (&bob, &carol, json!({ "operation": "transfer_ownership" }))];
    for (owner, heir, body) in transfers {
        let reply = owner.patch(&chat.member(heir.id), body).await;

        let said = reply.expect(StatusCode::OK);
        assert_eq!(said, "Chat ownership transferred successfully");
        let read = alice.get(&chat.path).await.expect(StatusCode::OK);
        assert_eq!(read["created_by"], heir.id);
        assert_eq!(alice.role_of(heir, &chat).await.unwrap(), "owner");
        assert_ne!(alice.role_of(owner, &chat).await.unwrap(), "owner");
        assert_eq!(heir.sidebar(&chat).await["is_creator"], true);
        assert_eq!(owner.sidebar(&chat).await["is_creator"], false);

        let news = log.news().await;
        let mut kinds: Vec<_> = news.iter().map(|event| &*event.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["ChatUpdated", "MemberUpdated", "MemberUpdated"]);
        let updated = |id: i64| {
            let mut members = news.iter().filter(|event| event.kind == "MemberUpdated");
            members.find(|event| event.data()["user_id"] == id).unwrap().data()
        };
        assert_eq!(updated(heir.id)["role"], "owner");
        assert_ne!(updated(owner.id)["role"], "owner");
        let chat_updated = news.iter().find(|event| event.kind == "ChatUpdated").unwrap();
        assert_eq!(chat_updated.data()["created_by"], heir.id);
    }
}

#[tokio::test]
async fn only_the_owner_transfers_and_only_to_members() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let chat = bob.creates_group("Lunch", [&alice, &carol]).await;
    bob.makes_admin(&carol, &chat).await;
    let before = app.state().await;

    // Alice owns the workspace, which is no say in a chat whose owner is there.
    for person in [&alice, &carol] {
        let refused = person.patch(&chat.member(person.id), NOTHING).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    for stranger in [dave.id, mallory.id, 999] {
        let refused = bob.patch(&chat.member(stranger), NOTHING).await;
        refused.refuses(StatusCode::BAD_REQUEST, "not_a_chat_member");
    }
    dave.patch(&chat.member(dave.id), NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    for nonsense in [json!({ "operation": "demote" }), json!({ "operation": 1 }), json!([])] {
        let refused = bob.patch(&chat.member(carol.id), nonsense).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn workspace_owner_and_admins_can_transfer_the_chats_of_a_suspended_owner() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let first = bob.creates_group("Lunch", [&alice, &carol]).await;
    let second = bob.creates_group("Dinner", [&alice, &carol]).await;
    app.suspends(&bob).await;

    carol.patch(&first.member(carol.id), NOTHING).await.expect(StatusCode::FORBIDDEN);
    alice.patch(&first.member(carol.id), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(carol.role_of(&carol, &first).await.unwrap(), "owner");

    app.promotes(&carol, "admin").await;
    carol.patch(&second.member(alice.id), NOTHING).await.expect(StatusCode::OK);
    assert_eq!(carol.role_of(&alice, &second).await.unwrap(), "owner");
}

#[tokio::test]
async fn the_owner_gives_roles() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    for role in ["admin", "member"] {
        let given = alice.patch(&chat.member(bob.id), json!({ "role": role })).await;
        let given = given.expect(StatusCode::OK);
        assert_eq!((&given["user_id"], &given["role"]), (&json!(bob.id), &json!(role)));
        let updated = Log::only(log.news().await, "MemberUpdated");
        assert_eq!(updated.data(), given);
        assert_eq!((updated.chat_id, updated.user_id), (Some(chat.id), None));
    }
    alice.makes_admin(&bob, &chat).await;
    let before = app.state().await;
    for person in [&bob, &carol] {
        let refused = person.patch(&chat.member(carol.id), json!({ "role": "admin" })).await;
        refused.refuses(StatusCode::FORBIDDEN, "forbidden");
    }
    let stranger = alice.patch(&chat.member(dave.id), json!({ "role": "admin" })).await;
    stranger.refuses(StatusCode::BAD_REQUEST, "not_a_chat_member");
    for nonsense in [
        json!({ "role": "owner" }),
        json!({ "role": "boss" }),
        json!({ "role": null }),
        json!({ "role": "admin", "operation": "transfer_ownership" }),
        json!({ "role": "admin", "chat_id": 2 }),
    ] {
        let refused = alice.patch(&chat.member(bob.id), nonsense).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn a_new_member_sees_the_whole_history_and_none_of_it_as_unread() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_public_channel("news").await;
    alice.counts_to(3, &chat).await;

    bob.joins(&chat).await;

    let history = bob.get(&chat.messages).await.expect(StatusCode::OK);
    // The fourth says that Bob has joined.
    assert_eq!(seqs(&history), [4, 3, 2, 1]);
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 0);
    alice.sends(&chat, "4").await;
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 1);
}

#[tokio::test]
async fn a_member_who_is_added_again_is_the_newest_member_without_a_role() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    alice.makes_admin(&bob, &chat).await;

    alice.removes([&bob], &chat).await;
    alice.adds([&bob], &chat).await;

    assert_eq!(alice.members_of(&chat).await, ids_of([&alice, &carol, &bob]));
    assert_eq!(alice.role_of(&bob, &chat).await.unwrap(), "member");
    bob.sends(&chat, "Back again").await;
}

#[tokio::test]
async fn leaving_while_being_made_owner_leaves_a_chat_with_an_owner() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;

    for number in 0..5 {
        let name = format!("Plans {number}");
        let chat = alice.creates_private_channel(&name, [&bob]).await;
        let path = chat.member(bob.id);
        let (transfer, leave) =
            tokio::join!(alice.patch(&path, NOTHING), bob.post(&chat.leave, NOTHING));
        match (transfer.status.as_u16(), leave.status.as_u16()) {
            (200, 409) => assert_eq!(alice.role_of(&bob, &chat).await.unwrap(), "owner"),
            (400, 204) => assert_eq!(alice.role_of(&alice, &chat).await.unwrap(), "owner"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_change_of_a_member_must_have_either_an_operation_or_a_role() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let path = format!("{}/{}", chat.members, bob.id);
    let before = app.state().await;

    for change in [
        json!({}),
        json!({ "operation": null }),
        json!({ "operation": null, "role": "admin" }),
        json!({ "operation": "transfer_ownership", "role": null }),
        json!({ "operation": "transfer_ownership", "role": "admin" }),
        json!({ "role": "owner" }),
    ] {
        alice.patch(&path, change).await.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn members_are_searched_and_shown_with_their_people() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "Carol-Bobson"]).await;
    let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
    app.user("bobby").await;
    let list = async |query: &str| {
        alice.get(&format!("{}?{query}", chat.members)).await.expect(StatusCode::OK)
    };
    let ids = |list: &Value| -> Vec<_> {
        list.as_array().unwrap().iter().map(|one| one["user_id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids(&list("q=bob").await), [bob.id, carol.id]);
    assert_eq!(ids(&list("q=bob+car").await), [carol.id]);
    assert_eq!(ids(&list("q=bob&limit=1").await), [bob.id]);
    assert_eq!(ids(&list("q=nobody").await), Vec::<i64>::new());
    let expanded = list("expand=user").await;
    assert_eq!(ids(&expanded), ids_of([&alice, &bob, &carol]));
    for member in expanded.as_array().unwrap() {
        let user = alice.get(&format!("/api/users/{}", member["user_id"])).await;
        assert_eq!(member["user"], user.expect(StatusCode::OK));
    }
    assert_eq!(list("").await[0].get("user"), None);
    let refused = alice.get(&format!("{}?expand=everything", chat.members)).await;
    refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}
