//! Every documented route met by every kind of stranger: what one may not see does not exist, and
//! nothing is written.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Chat, Client, NOTHING, Person, Reply, TestApp};
use crate::tokens;

/// Routes that need no access token.
const PUBLIC: [(&str, &str); 10] = [
    ("POST", "/api/signup"),
    ("POST", "/api/signin"),
    ("POST", "/api/refresh"),
    ("POST", "/api/logout"),
    ("POST", "/api/password-reset/confirm"),
    ("GET", "/api/invites/{code}/preview"),
    ("GET", "/api/server"),
    // A cookie opens them, too: `files.rs` and `avatars.rs` have their strangers.
    ("GET", "/api/files/{ws}/{a}/{b}/{rest}"),
    ("GET", "/api/users/{id}/avatar"),
    ("GET", "/api-docs/openapi.json"),
];

/// What no path has: absent ids and texts that are no ids at all.
const ABSENT: &str = "9007199254740992";
const BAD: [&str; 5] = ["0", "-1", "9223372036854775807", "9223372036854775808", "text"];

/// A body that each route takes, where it takes one; with nobody in particular in it.
fn sample(method: &str, path: &str, bob: i64) -> Option<Value> {
    let sample = match (method, path) {
        (
            "GET",
            "/api-docs/openapi.json"
            | "/api/server"
            | "/api/me"
            | "/api/sessions"
            | "/api/sync"
            | "/api/workspaces"
            | "/api/workspace"
            | "/api/unread"
            | "/api/users"
            | "/api/users/{id}"
            | "/api/users/{id}/avatar"
            | "/api/audit"
            | "/api/invites"
            | "/api/invites/{id}/preview"
            | "/api/chat"
            | "/api/chat/directory"
            | "/api/chat/{id}"
            | "/api/chat/{id}/members"
            | "/api/chat/{id}/messages"
            | "/api/chat/{id}/messages/{mid}"
            | "/api/chat/{id}/messages/{mid}/reactions"
            | "/api/me/preferences"
            | "/api/permalink/{id}"
            | "/api/files/{id}/{mid}/{emoji}/{rest}",
        )
        | ("PUT", "/api/chat/{id}/messages/{mid}/reactions/{emoji}" | "/api/me/avatar")
        | (
            "POST",
            "/api/refresh"
            | "/api/logout"
            | "/api/logout-all"
            | "/api/logout_all"
            | "/api/workspace/leave"
            | "/api/workspaces/{id}/switch"
            | "/api/users/{id}/reset-link"
            | "/api/read"
            | "/api/chat/{id}/read"
            | "/api/chat/{id}/typing"
            | "/api/chat/{id}/archive"
            | "/api/chat/{id}/unarchive"
            | "/api/chat/{id}/join"
            | "/api/chat/{id}/leave",
        )
        | (
            "DELETE",
            "/api/invites/{id}"
            | "/api/chat/{id}"
            | "/api/chat/{id}/messages/{mid}"
            | "/api/chat/{id}/messages/{mid}/reactions/{emoji}"
            | "/api/sessions/{id}"
            | "/api/users/{id}"
            | "/api/me/avatar",
        ) => NOTHING,
        // Both are refused: the address is taken, and the password wrong.
        ("POST", "/api/signup") => json!({
            "fullname": "Alice", "email": "alice@acme.test", "password": "12345678",
            "workspace": "Acme",
        }),
        ("POST", "/api/signin") => json!({ "email": "alice@acme.test", "password": "12345678" }),
        ("POST", "/api/files/link") => json!({ "url": "/files/1/aaa/bbb/c.txt" }),
        ("POST", "/api/upload") => json!({ "not": "a form" }),
        ("POST", "/api/password-reset/confirm") => {
            json!({ "token": "absent", "new_password": "correct horse battery" })
        }
        ("PATCH", "/api/me") => json!({ "title": "Cook" }),
        ("DELETE", "/api/me") => json!({ "password": "not my password", "messages": "keep" }),
        ("POST", "/api/me/password") => json!({
            "current_password": "not my password", "new_password": "correct horse battery",
        }),
        ("POST", "/api/me/email") => {
            json!({ "email": "new@acme.test", "password": "not my password" })
        }
        ("PATCH", "/api/chat/{id}/me") => json!({ "pinned": true }),
        ("PATCH", "/api/me/preferences") => json!({ "theme": "dark" }),
        ("POST", "/api/workspaces") | ("PATCH", "/api/workspace" | "/api/chat/{id}") => {
            json!({ "name": "Mine" })
        }
        ("POST", "/api/chat/{id}/unread") => json!({ "message_id": 1 }),
        ("POST", "/api/workspaces/join") => json!({ "name": "Acme" }),
        ("POST", "/api/invites") => json!({}),
        ("POST", "/api/chat") => json!({ "name": "mine", "chat_type": "PublicChannel" }),
        ("POST" | "DELETE", "/api/chat/{id}/members") => json!([bob]),
        ("PATCH", "/api/users/{id}" | "/api/chat/{id}/members/{member_id}") => {
            json!({ "role": "admin" })
        }
        ("POST", "/api/chat/{id}/messages") | ("PATCH", "/api/chat/{id}/messages/{mid}") => {
            json!({ "content": "Hello?" })
        }
        _ => return None,
    };
    Some(sample)
}

/// A documented route.
struct Route {
    method: Method,
    path: String,
    /// For each parameter, what it is an id of: the segment before it.
    parameters: Vec<String>,
}

impl Route {
    fn all() -> Vec<Self> {
        let document = serde_json::to_value(fechatter_server::openapi()).unwrap();
        let mut routes = Vec::new();
        for (path, method, _) in contract::operations(&document) {
            let segments: Vec<_> = path.split('/').collect();
            let named = segments.windows(2).filter(|pair| pair[1].starts_with('{'));
            let parameters = named.map(|pair| pair[0].to_owned()).collect();
            let method = method.to_uppercase().parse().unwrap();
            routes.push(Self { method, path: path.to_owned(), parameters });
        }
        routes
    }

    fn is_public(&self) -> bool {
        PUBLIC.contains(&(self.method.as_str(), &self.path))
    }

    /// The sample of the same route in the table, whatever its parameters are called.
    fn sample(&self, bob: i64) -> Option<Value> {
        let mut names = if self.parameters == ["chat", "members"] {
            vec!["{id}", "{member_id}"]
        } else {
            vec!["{id}", "{mid}", "{emoji}", "{rest}"]
        }
        .into_iter();
        let segments = self.path.split('/').map(|segment| {
            if segment.starts_with('{') { names.next().unwrap_or("{}") } else { segment }
        });
        sample(self.method.as_str(), &segments.collect::<Vec<_>>().join("/"), bob)
    }

    /// The path with these values for its parameters.
    fn at(&self, values: &[String]) -> String {
        let mut values = values.iter();
        let segments = self
            .path
            .split('/')
            .map(|segment| if segment.starts_with('{') { values.next().unwrap() } else { segment });
        segments.collect::<Vec<_>>().join("/")
    }
}

/// The ids of one kind of thing.
struct Ids {
    own: String,
    /// Ids that stand for nothing the caller may see.
    hidden: Vec<String>,
}

/// Two workspaces with something of everything in each.
struct World {
    app: TestApp,
    alice: Person,
    bob: Person,
    mallory: Person,
    ids: BTreeMap<&'static str, Ids>,
}

impl World {
    async fn build() -> Self {
        let app = TestApp::start().await;
        let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
        let mallory = app.user_in("mallory", "Evil Corp").await;
        let chat = alice.creates_group("Lunch", [&bob, &carol]).await;
        let deleted = alice.creates_group("Gone", [&bob, &carol]).await;
        alice.deletes(&deleted).await;
        let foreign = mallory.creates_public_channel("evil").await;
        let message = alice.sends(&chat, "Hello").await;
        let foreign_message = mallory.sends(&foreign, "Muahaha").await;
        let invite = alice.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
        let foreign_invite =
            mallory.post("/api/invites", json!({})).await.expect(StatusCode::CREATED);
        // Bob was a member once.
        alice.removes([&bob], &chat).await;

        let mut ids = BTreeMap::new();
        for (kind, own, hidden) in [
            ("chat", chat.id.to_string(), vec![foreign.id.to_string(), deleted.id.to_string()]),
            ("messages", message["id"].to_string(), vec![foreign_message["id"].to_string()]),
            ("permalink", message["id"].to_string(), vec![foreign_message["id"].to_string()]),
            ("members", carol.id.to_string(), vec![mallory.id.to_string()]),
            ("users", carol.id.to_string(), vec![mallory.id.to_string()]),
            ("workspaces", alice.workspace_id.to_string(), vec![mallory.workspace_id.to_string()]),
            (
                "sessions",
                alice.session_id.clone(),
                vec![mallory.session_id.clone(), uuid::Uuid::nil().to_string()],
            ),
            // An emoji is an id of nothing.
            ("reactions", "%F0%9F%91%8D".into(), vec![]),
            ("invites", invite["id"].to_string(), vec![foreign_invite["id"].to_string()]),
        ] {
            ids.insert(kind, Ids { own, hidden });
        }
        Self { app, alice, bob, mallory, ids }
    }

    fn ids(&self, kind: &str) -> &Ids {
        self.ids.get(kind).unwrap_or_else(|| panic!("the matrix has no ids for {kind}/{{id}}"))
    }

    fn own_ids(&self, route: &Route) -> Vec<String> {
        route.parameters.iter().map(|kind| self.ids(kind).own.clone()).collect()
    }

    async fn call(&self, client: &Client, route: &Route, values: &[String]) -> Reply {
        let body = route.sample(self.bob.id).unwrap();
        let reply = client.call(route.method.clone(), &route.at(values), body).await;
        assert!(!reply.status.is_server_error(), "{} {}: {}", route.method, route.path, reply.text);
        reply
    }
}

#[test]
fn every_documented_route_is_in_the_matrix() {
    let missing: Vec<_> = Route::all()
        .into_iter()
        .filter(|route| route.sample(1).is_none())
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert!(missing.is_empty(), "give these a body in the matrix: {missing:#?}");
}

#[tokio::test]
async fn routes_that_need_a_token_refuse_missing_invalid_and_expired_tokens() {
    let world = World::build().await;
    let anyone = &world.app.anyone;
    let expired = expired(&world);
    let before = world.app.state().await;

    for route in Route::all().iter().filter(|route| !route.is_public()) {
        let mut places = vec![world.own_ids(route)];
        if !route.parameters.is_empty() {
            places.push(vec![ABSENT.into(); route.parameters.len()]);
            places.push(vec!["text".into(); route.parameters.len()]);
        }
        for place in places {
            for (client, kind) in [
                (anyone, "unauthenticated"),
                (&anyone.with_token("nonsense"), "unauthenticated"),
                (&anyone.with("authorization", "Basic YWxpY2U6cGFzcw=="), "unauthenticated"),
                (&expired, "token_expired"),
            ] {
                let reply = world.call(client, route, &place).await;
                let body = reply.expect(StatusCode::UNAUTHORIZED);
                assert_eq!(body["type"], kind, "{} {}", route.method, route.path);
            }
        }
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn public_routes_answer_strangers_without_writing() {
    let world = World::build().await;
    let before = world.app.state().await;

    for route in Route::all().iter().filter(|route| route.is_public()) {
        for client in [
            &world.app.anyone,
            &world.app.anyone.with_token("nonsense"),
            &world.app.anyone.with_cookie("nonsense"),
        ] {
            let absent = vec!["absent".to_owned(); route.parameters.len()];
            world.call(client, route, &absent).await;
        }
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn hidden_ids_get_the_same_response_as_absent_ids() {
    let world = World::build().await;
    let before = world.app.state().await;

    for route in Route::all().into_iter().filter(|route| !route.is_public()) {
        let ids = route.parameters.iter().enumerate().filter(|(_, kind)| *kind != "reactions");
        for (place, kind) in ids {
            let mut at = world.own_ids(&route);
            at[place] = ABSENT.into();
            let absent = world.call(&world.alice, &route, &at).await;
            let status = if kind == "members" { 400 } else { 404 };
            assert_eq!(absent.status, status, "{} {}: {}", route.method, route.path, absent.text);

            for hidden in &world.ids(kind).hidden {
                at[place].clone_from(hidden);
                let reply = world.call(&world.alice, &route, &at).await;
                assert_same(&reply, &absent);
            }
            for bad in BAD {
                at[place] = bad.into();
                let reply = world.call(&world.alice, &route, &at).await;
                if kind == "members" {
                    // The largest id is an id: of nobody in the chat.
                    let status = if bad == "9223372036854775807" { 400 } else { 404 };
                    assert_eq!(reply.status, status, "{}", reply.text);
                } else {
                    assert_same(&reply, &absent);
                }
            }
        }
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn people_of_other_workspaces_see_nothing_of_this_workspace() {
    let world = World::build().await;
    let before = world.app.state().await;

    for route in Route::all().into_iter().filter(|route| !route.is_public()) {
        if route.parameters.is_empty() {
            continue;
        }
        let own = world.own_ids(&route);
        let mut absent = own.clone();
        absent[0] = ABSENT.into();
        let absent = world.call(&world.mallory, &route, &absent).await;
        assert_eq!(absent.status, StatusCode::NOT_FOUND, "{}", absent.text);

        let reply = world.call(&world.mallory, &route, &own).await;
        assert_same(&reply, &absent);
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn former_members_see_nothing_of_the_chat() {
    let world = World::build().await;
    let before = world.app.state().await;

    let of_chats = |route: &&Route| route.parameters.first().is_some_and(|kind| kind == "chat");
    for route in Route::all().iter().filter(of_chats) {
        let own = world.own_ids(route);
        let mut absent = own.clone();
        absent[0] = ABSENT.into();
        let absent = world.call(&world.bob, route, &absent).await;

        let reply = world.call(&world.bob, route, &own).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{}", reply.text);
        assert_same(&reply, &absent);
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn a_suspended_person_can_call_no_route_that_needs_a_token() {
    let world = World::build().await;
    world.app.suspends(&world.alice).await;
    let before = world.app.state().await;

    for route in Route::all().iter().filter(|route| !route.is_public()) {
        // Signing out is no privilege.
        if route.path.starts_with("/api/logout") {
            continue;
        }
        let reply = world.call(&world.alice, route, &world.own_ids(route)).await;
        assert!(
            matches!(reply.status.as_u16(), 401 | 403),
            "{} {}: {} {}",
            route.method,
            route.path,
            reply.status,
            reply.text
        );
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn people_who_left_can_do_nothing_before_their_memberships_end() {
    let world = World::build().await;
    world
        .app
        .sql("update workspace_members set status = 'Left', left_at = now() where user_id = 1")
        .await;
    assert_eq!(world.alice.id, 1);
    let before = world.app.state().await;

    for route in Route::all().iter().filter(|route| !route.is_public()) {
        // Signing out is no privilege.
        if route.path.starts_with("/api/logout") {
            continue;
        }
        let reply = world.call(&world.alice, route, &world.own_ids(route)).await;
        reply.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    assert_eq!(world.app.state().await, before);
}

#[tokio::test]
async fn a_query_or_a_header_cannot_choose_the_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let mallory = app.user_in("mallory", "Evil Corp").await;
    let chat = alice.creates_public_channel("news").await;

    let query = format!("{}?workspace_id={}", chat.path, alice.workspace_id);
    assert_eq!(mallory.get(&query).await.status, StatusCode::BAD_REQUEST);
    let header = mallory.with("x-workspace-id", &alice.workspace_id.to_string());
    assert_eq!(header.get(&chat.path).await.status, StatusCode::NOT_FOUND);
    let theirs = Chat::of(mallory.creates_public_channel("evil").await.body);
    assert_eq!(theirs.body["workspace_id"], mallory.workspace_id);
}

#[track_caller]
fn assert_same(reply: &Reply, absent: &Reply) {
    assert_eq!(reply.status, absent.status, "{reply:?}");
    assert_eq!(reply.without_id(), absent.without_id(), "{reply:?}");
}

/// Alice, whose token was good until a minute ago.
fn expired(world: &World) -> Client {
    let mut claims = tokens::payload(&world.alice.token);
    claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 60);
    claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 960);
    let header = tokens::header(&world.alice.token);
    assert_eq!(header.alg, Algorithm::EdDSA);
    let key = EncodingKey::from_ed_der(&tokens::der(&world.app.private_key));
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    world.app.anyone.with_token(&token)
}
