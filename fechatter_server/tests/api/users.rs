//! The people of a workspace.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{NOTHING, Person, TestApp, ids_of};

#[tokio::test]
async fn all_people_of_the_workspace_see_the_list_of_all_people() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;

    let users = bob.get("/api/users").await.expect(StatusCode::OK);

    let expected = [
        alice.get("/api/me").await.expect(StatusCode::OK),
        bob.get("/api/me").await.expect(StatusCode::OK),
    ];
    assert_eq!(users, json!(expected));
    let theirs = mallory.get("/api/users").await.expect(StatusCode::OK);
    assert_eq!(theirs.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_cursor_and_limit_all_people_are_listed() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    app.extras(alice.workspace_id, 150).await;

    let reply = alice.get("/api/users").await;

    assert_eq!(reply.expect(StatusCode::OK).as_array().unwrap().len(), 151);
    assert_eq!(reply.header("x-next-cursor"), None);
}

#[tokio::test]
async fn the_list_can_be_read_in_pages() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mut expected = app.extras(alice.workspace_id, 6).await;
    expected.insert(0, alice.id);

    let (mut found, mut path) = (Vec::new(), "/api/users?limit=3".to_owned());
    loop {
        let reply = alice.get(&path).await;
        let page = reply.expect(StatusCode::OK);
        assert!((1..=3).contains(&page.as_array().unwrap().len()));
        found.extend(ids(&page));
        let Some(cursor) = reply.header("x-next-cursor") else { break };
        path = format!("/api/users?limit=3&cursor={cursor}");
    }
    found.sort_unstable();
    assert_eq!(found, expected);

    for query in ["limit=0", "limit=101", "limit=x", "cursor=nonsense"] {
        let refused = alice.get(&format!("/api/users?{query}")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn people_are_found_by_the_beginnings_of_the_words_of_their_name() {
    let app = TestApp::start().await;
    let [zoe, under, axb] = app.users(["Zo\u{eb}-O'Hara-Dupont", "a_b", "axb"]).await;

    for (query, found) in [
        ("q=ZO%C3%8B", vec![zoe.id]),
        ("q=Zoe%CC%88", vec![zoe.id]),
        ("q=zoe", vec![zoe.id]),
        ("q=dup+Z", vec![zoe.id]),
        ("q=har", vec![zoe.id]),
        ("q=o%27hara-du", vec![zoe.id]),
        ("q=upont", vec![]),
        ("q=zoe+x", vec![]),
        ("q=AXB@acme.test", vec![axb.id]),
        ("q=acme", vec![]),
        ("q=+-+", vec![zoe.id, under.id, axb.id]),
        ("q=a_b", vec![under.id]),
        ("q=%25", vec![]),
        ("q=%5C", vec![]),
        ("q=nobody", vec![]),
    ] {
        let users = zoe.get(&format!("/api/users?{query}")).await.expect(StatusCode::OK);
        assert_eq!(ids(&users), found, "{query}");
    }
}

#[tokio::test]
async fn people_are_filtered_by_role_status_and_id() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    app.promotes(&bob, "admin").await;
    app.suspends(&carol).await;

    for (query, found) in [
        ("role=owner".to_owned(), vec![alice.id]),
        ("role=admin".into(), vec![bob.id]),
        ("role=member".into(), vec![carol.id]),
        ("status=Suspended".into(), vec![carol.id]),
        ("status=Active".into(), vec![alice.id, bob.id]),
        ("status=Active&role=member".into(), vec![]),
        (format!("ids={},{},999", carol.id, mallory.id), vec![carol.id]),
        (format!("ids={},{}", alice.id, bob.id), vec![alice.id, bob.id]),
    ] {
        let users = alice.get(&format!("/api/users?{query}")).await.expect(StatusCode::OK);
        assert_eq!(sorted(ids(&users)), found, "{query}");
    }
    for query in ["role=boss", "role=Owner", "status=active", "ids=x", "ids=1;2"] {
        let refused = alice.get(&format!("/api/users?{query}")).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
}

#[tokio::test]
async fn people_who_left_are_returned_only_by_id() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    app.promotes(&bob, "admin").await;
    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);

    let shown = carol.get(&path(&bob)).await.expect(StatusCode::OK);
    assert_eq!((&shown["fullname"], &shown["status"]), (&json!("bob"), &json!("Left")));
    mallory.get(&path(&bob)).await.refuses(StatusCode::NOT_FOUND, "not_found");
    for (query, found) in [
        (format!("ids={},{}", bob.id, carol.id), vec![bob.id, carol.id]),
        (format!("ids={}&status=Left", bob.id), vec![bob.id]),
        (format!("ids={}&status=Active", bob.id), vec![]),
        ("status=Left".into(), vec![]),
        ("role=admin".into(), vec![]),
        ("q=bob".into(), vec![]),
        (String::new(), vec![alice.id, carol.id]),
        ("limit=50".into(), vec![alice.id, carol.id]),
    ] {
        let users = alice.get(&format!("/api/users?{query}")).await.expect(StatusCode::OK);
        assert_eq!(ids(&users), found, "{query}");
    }
    let synced = alice.get("/api/sync").await.expect(StatusCode::OK);
    assert_eq!(ids(&synced["users"]), [alice.id, carol.id]);
    let active = json!({ "status": "Active" });
    alice.patch(&path(&bob), active).await.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn a_person_is_the_same_alone_and_in_the_list() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let absent = alice.get("/api/users/999").await;
    absent.refuses(StatusCode::NOT_FOUND, "not_found");

    let shown = bob.get(&path(&alice)).await.expect(StatusCode::OK);
    assert_eq!(shown, alice.get("/api/me").await.expect(StatusCode::OK));

    for (looker, hidden) in [(&alice, &mallory), (&mallory, &alice)] {
        let reply = looker.get(&path(hidden)).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND);
        assert_eq!(reply.without_id(), absent.without_id());
    }
    app.suspends(&alice).await;
    let suspended = bob.get(&path(&alice)).await.expect(StatusCode::OK);
    assert_eq!(suspended["status"], "Suspended");
    assert_eq!(ids_of([&alice, &bob]), [1, 2]);
}

fn path(person: &Person) -> String {
    format!("/api/users/{}", person.id)
}

fn ids(users: &Value) -> Vec<i64> {
    users.as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect()
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn names_are_found_in_any_case_of_any_script() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let odos = app.user("ΟΔΟΣ").await;

    for q in ["ΟΔΟΣ", "οδος", "οδοσ", "ΟΔ", "ο"] {
        let found = alice.get(&format!("/api/users?q={q}")).await.expect(StatusCode::OK);
        assert_eq!(found[0]["id"], odos.id, "{q}");
    }
}

#[tokio::test]
async fn members_of_a_chat_come_first_and_are_marked() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let dave = app.user("dave").await;
    let chat = alice.creates_private_channel("lunch", [&dave]).await;
    let entries = async |query: &str| {
        let users = alice.get(&format!("/api/users?{query}")).await.expect(StatusCode::OK);
        let users = users.as_array().unwrap().clone().into_iter();
        users
            .map(|user| (user["id"].as_i64().unwrap(), user["in_chat"].clone()))
            .collect::<Vec<_>>()
    };
    let by_chat = [(alice.id, true), (dave.id, true), (bob.id, false), (carol.id, false)];
    let by_chat = by_chat.map(|(id, in_chat)| (id, json!(in_chat)));
    assert_eq!(entries(&format!("chat_id={}", chat.id)).await, by_chat);
    assert_eq!(entries("q=d").await, [(dave.id, Value::Null)]);
    assert_eq!(entries(&format!("q=d&chat_id={}", chat.id)).await, [(dave.id, json!(true))]);

    let (mut found, mut path) = (Vec::new(), format!("/api/users?chat_id={}&limit=1", chat.id));
    loop {
        let reply = alice.get(&path).await;
        found.extend(ids(&reply.expect(StatusCode::OK)));
        let Some(cursor) = reply.header("x-next-cursor") else { break };
        path = format!("/api/users?chat_id={}&limit=1&cursor={cursor}", chat.id);
    }
    assert_eq!(found, by_chat.map(|(id, _)| id));
    let stranger = bob.get(&format!("/api/users?chat_id={}", chat.id)).await;
    stranger.refuses(StatusCode::NOT_FOUND, "not_found");
}

#[tokio::test]
async fn searches_and_lists_by_chat_are_paged() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    let extras = app.extras(alice.workspace_id, 60).await;
    app.sql(
        "insert into member_words (workspace_id, word, user_id)
         select workspace_id, 'extra', user_id from workspace_members where fullname like 'Extra %'",
    )
    .await;
    for query in ["q=ext".to_owned(), format!("chat_id={}", chat.id)] {
        let reply = alice.get(&format!("/api/users?{query}")).await;
        assert_eq!(ids(&reply.expect(StatusCode::OK)).len(), 50, "{query}");
        let next = reply.header("x-next-cursor").unwrap();
        let rest = alice.get(&format!("/api/users?{query}&cursor={next}")).await;
        let rest = ids(&rest.expect(StatusCode::OK));
        assert_eq!(rest.last(), extras.last(), "{query}");
    }
}

#[tokio::test]
async fn people_who_left_or_came_back_under_another_name_are_found_as_they_are_now() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let found =
        async |q: &str| ids(&alice.get(&format!("/api/users?q={q}")).await.expect(StatusCode::OK));
    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(found("bob").await, Vec::<i64>::new());
    app.offboardings_end().await;
    let back = json!({
        "fullname": "Robert", "email": "bob@acme.test", "password": crate::harness::PASSWORD,
        "workspace": "Acme",
    });
    app.anyone.post("/api/signup", back).await.expect(StatusCode::CREATED);
    assert_eq!(found("robert").await, [bob.id]);
    // The address still begins so.
    assert_eq!(found("bob").await, [bob.id]);
}
