//! Lists of chats are kept by each server, and never stale.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Chat, Client, NOTHING, PASSWORD, Person, Server, TestApp};

const STORIES: u32 = 8;
const STEPS: usize = 30;
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const KINDS: [&str; 4] = ["Single", "Group", "PrivateChannel", "PublicChannel"];

#[tokio::test]
async fn a_list_is_cached_until_an_event_for_the_caller() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;
    let elsewhere = carol.creates_private_channel("y", [&bob]).await;
    let first = alice.get("/api/chat").await;
    // Nothing but an event tells the server of a change.
    app.sql("update chats set name = 'unheard of' where name = 'x'").await;

    carol.sends(&elsewhere, "Not for alice").await;
    assert_eq!(alice.get("/api/chat").await.text, first.text);
    assert_eq!(alice.sidebar(&chat).await["name"], "x");

    bob.sends(&chat, "Hello").await;
    assert_eq!(alice.sidebar(&chat).await["name"], "unheard of");
    let metrics = app.operator.get("/metrics").await.text;
    for outcome in ["hit", "miss"] {
        let counted = format!("fechatter_chat_lists_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
}

#[tokio::test]
async fn a_cache_of_size_zero_keeps_no_list() {
    let app = TestApp::with(|config| config.chat_list_cache_mebibytes = 0).await;
    let alice = app.user("alice").await;
    let chat = alice.creates_private_channel("x", []).await;
    assert_eq!(alice.sidebar(&chat).await["name"], "x");

    app.sql("update chats set name = 'y'").await;

    assert_eq!(alice.sidebar(&chat).await["name"], "y");
}

#[tokio::test]
async fn lists_of_archived_and_of_other_chats_are_cached_separately() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    alice.creates_private_channel("old", []).await;
    app.sql("update chats set archived_at = now()").await;
    alice.creates_private_channel("new", []).await;

    for _ in 0..2 {
        for (query, names) in [
            ("", json!(["new"])),
            ("?archived=true", json!(["old"])),
            ("?archived=false", json!(["new"])),
        ] {
            let chats = alice.get(&format!("/api/chat{query}")).await.expect(StatusCode::OK);
            let listed = chats.as_array().unwrap().iter().map(|chat| chat["name"].clone());
            assert_eq!(listed.collect::<Value>(), names, "{query}");
        }
    }
}

#[tokio::test]
async fn a_log_that_has_lost_its_end_invalidates_cached_lists() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;
    bob.sends(&chat, "Lost").await;
    assert_eq!(alice.sidebar(&chat).await["last_message"]["content"], "Lost");

    // As on a standby that did not get the last commit, and then went on by itself.
    app.sql("delete from events where position = (select max(position) from events)").await;
    app.sql("delete from messages where content = 'Lost'").await;
    assert_eq!(alice.sidebar(&chat).await["last_message"], Value::Null);
    bob.sends(&chat, "Lost").await;
    assert_eq!(alice.sidebar(&chat).await["last_message"]["content"], "Lost");
    app.sql("delete from events where position = (select max(position) from events)").await;
    app.sql("delete from messages where content = 'Lost'").await;
    bob.sends(&chat, "Said instead").await;

    assert_eq!(alice.sidebar(&chat).await["last_message"]["content"], "Said instead");
}

#[tokio::test]
async fn a_matching_etag_gets_304_without_the_list() {
    let origin = "https://chat.example";
    let app = TestApp::with(|config| config.http.allowed_origins = vec![origin.into()]).await;
    let alice = app.user("alice").await;
    alice.creates_private_channel("x", []).await;
    let other = app.another(|_| {}).await;
    let elsewhere = other.anyone.with_token(&alice.token);
    let fresh = alice.get("/api/chat").await;
    let etag = fresh.header("etag").unwrap();

    for known in [etag, "*", &format!("W/{etag}"), &format!("\"a,b\", W/\"c\",{etag}")] {
        for client in [&*alice, &elsewhere] {
            let asking = client.with("if-none-match", known).with("origin", origin);
            let unchanged = asking.get("/api/chat").await;
            assert_eq!(unchanged.expect(StatusCode::NOT_MODIFIED), Value::Null, "{known}");
            assert_eq!(unchanged.header("etag"), Some(etag));
            assert_eq!(unchanged.header("cache-control"), Some("private, no-cache"));
            assert_eq!(unchanged.header("content-type"), None);
            assert_eq!(unchanged.header("access-control-allow-origin"), Some(origin));
        }
    }
    for other in ["\"other\"", "\"a b\"", &etag[..9], "", "nonsense", &etag.replace('"', "")] {
        let sent = alice.with("if-none-match", other).get("/api/chat").await;
        assert_eq!((sent.status, &sent.text), (StatusCode::OK, &fresh.text), "{other:?}");
    }
}

#[tokio::test]
async fn a_sent_message_is_at_once_in_all_lists_on_all_servers() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("x", [&bob]).await;
    let other = app.another(|_| {}).await;
    let servers = [&app.anyone, &other.anyone];
    let everybody: Vec<_> = [&alice, &bob]
        .iter()
        .flat_map(|who| servers.map(|server| server.with_token(&who.token)))
        .collect();
    // While one reads a list anew, others write.
    let mut talking = JoinSet::new();
    for sender in everybody.clone() {
        let (everybody, messages) = (everybody.clone(), chat.messages.clone());
        talking.spawn(async move {
            for _ in 0..30 {
                let message = json!({ "content": "Hello" });
                let sent = sender.post(&messages, message).await.expect(StatusCode::CREATED);
                for reader in &everybody {
                    let chats = reader.get("/api/chat").await.expect(StatusCode::OK);
                    let (listed, sent) = (&chats[0]["last_seq"], &sent["seq"]);
                    assert!(listed.as_i64() >= sent.as_i64(), "{listed} after {sent}");
                }
            }
        });
    }
    while let Some(ended) = talking.join_next().await {
        ended.unwrap();
    }
}

/// What somebody tries; people and chats are picked by number, others by a bit each. Whether they
/// may is for other tests.
#[derive(Debug, Clone)]
enum Deed {
    Create { kind: usize, others: u8 },
    Send { chat: usize },
    Add { chat: usize, others: u8 },
    Remove { chat: usize, others: u8 },
    Join { chat: usize },
    Leave { chat: usize },
    Transfer { chat: usize, to: usize },
    Promote { chat: usize, whom: usize },
    Rename { chat: usize },
    Convert { chat: usize, kind: usize },
    Delete { chat: usize },
    Suspend { whom: usize, back: bool },
    LeaveWorkspace,
    Return { name: u8 },
    Prune,
}

/// Who does what at which server, and which of the people look afterwards, at which.
#[derive(Debug, Clone)]
struct Step {
    actor: usize,
    at: usize,
    deed: Deed,
    looks: u8,
}

#[test]
fn lists_are_never_stale_on_any_server_after_random_actions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = runtime.block_on(World::start());
    let config = Config { cases: STORIES, failure_persistence: None, ..Config::default() };
    let world = std::cell::RefCell::new(&mut world);

    let result = TestRunner::new(config).run(&vec(step(), STEPS), |steps| {
        let mut world = world.borrow_mut();
        runtime.block_on(world.play(&steps))
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    let chat = || 0..6_usize;
    let others = || 1..16_u8;
    let deed = prop_oneof![
        3 => (0..4_usize, others()).prop_map(|(kind, others)| Deed::Create { kind, others }),
        4 => chat().prop_map(|chat| Deed::Send { chat }),
        3 => (chat(), others()).prop_map(|(chat, others)| Deed::Add { chat, others }),
        2 => (chat(), others()).prop_map(|(chat, others)| Deed::Remove { chat, others }),
        2 => chat().prop_map(|chat| Deed::Join { chat }),
        1 => chat().prop_map(|chat| Deed::Leave { chat }),
        2 => (chat(), who()).prop_map(|(chat, to)| Deed::Transfer { chat, to }),
        1 => (chat(), who()).prop_map(|(chat, whom)| Deed::Promote { chat, whom }),
        1 => chat().prop_map(|chat| Deed::Rename { chat }),
        1 => (chat(), 1..4_usize).prop_map(|(chat, kind)| Deed::Convert { chat, kind }),
        1 => chat().prop_map(|chat| Deed::Delete { chat }),
        1 => (who(), any::<bool>()).prop_map(|(whom, back)| Deed::Suspend { whom, back }),
        1 => Just(Deed::LeaveWorkspace),
        2 => any::<u8>().prop_map(|name| Deed::Return { name }),
        1 => Just(Deed::Prune),
    ];
    (who(), 0..2_usize, deed, any::<u8>()).prop_map(|(actor, at, deed, looks)| Step {
        actor,
        at,
        deed,
        looks,
    })
}

/// Two servers that keep lists, one that does not, and four people.
struct World {
    app: TestApp,
    other: Server,
    keeps_nothing: Server,
    people: [Person; 4],
    chats: Vec<Chat>,
    number: usize,
}

impl World {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let other = app.another(|_| {}).await;
        let keeps_nothing = app.another(|config| config.chat_list_cache_mebibytes = 0).await;
        let people = app.users(NAMES).await;
        Self { app, other, keeps_nothing, people, chats: Vec::new(), number: 0 }
    }

    async fn play(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        self.chats.clear();
        for step in steps {
            self.act(step).await?;
            self.compare(step.looks, &format!("after {step:?}")).await?;
        }
        self.compare(u8::MAX, "in the end").await
    }

    async fn act(&mut self, Step { actor, at, deed, .. }: &Step) -> Result<(), TestCaseError> {
        self.number += 1;
        let ids = |others: u8| {
            let people = self.people.iter().enumerate();
            let picked = people.filter(|(number, _)| others & (1 << number) != 0);
            json!(picked.map(|(_, person)| person.id).collect::<Vec<_>>())
        };
        let name = format!("chat {}", self.number);
        let (method, path, body) = match *deed {
            Deed::Create { kind, others } => {
                let draft =
                    json!({ "name": name, "chat_type": KINDS[kind], "members": ids(others) });
                (Method::POST, "/api/chat".to_owned(), draft)
            }
            Deed::Suspend { whom, back } => {
                let status = if back { "Active" } else { "Suspended" };
                let path = format!("/api/users/{}", self.people[whom].id);
                (Method::PATCH, path, json!({ "status": status }))
            }
            Deed::LeaveWorkspace => (Method::POST, "/api/workspace/leave".into(), NOTHING),
            Deed::Return { name } => return self.returns(*actor, name).await,
            Deed::Prune => return self.prune().await,
            Deed::Send { chat }
            | Deed::Add { chat, .. }
            | Deed::Remove { chat, .. }
            | Deed::Join { chat }
            | Deed::Leave { chat }
            | Deed::Transfer { chat, .. }
            | Deed::Promote { chat, .. }
            | Deed::Rename { chat }
            | Deed::Convert { chat, .. }
            | Deed::Delete { chat } => {
                let Some(chat) = self.chats.get(chat % self.chats.len().max(1)) else {
                    return Ok(());
                };
                let (chat, member) = (chat, |whom: usize| chat.member(self.people[whom].id));
                match *deed {
                    Deed::Send { .. } => {
                        (Method::POST, chat.messages.clone(), json!({ "content": name }))
                    }
                    Deed::Add { others, .. } => (Method::POST, chat.members.clone(), ids(others)),
                    Deed::Remove { others, .. } => {
                        (Method::DELETE, chat.members.clone(), ids(others))
                    }
                    Deed::Join { .. } => (Method::POST, chat.join.clone(), NOTHING),
                    Deed::Leave { .. } => (Method::POST, chat.leave.clone(), NOTHING),
                    Deed::Transfer { to, .. } => (Method::PATCH, member(to), NOTHING),
                    Deed::Promote { whom, .. } => {
                        (Method::PATCH, member(whom), json!({ "role": "admin" }))
                    }
                    Deed::Rename { .. } => {
                        (Method::PATCH, chat.path.clone(), json!({ "name": name }))
                    }
                    Deed::Convert { kind, .. } => {
                        (Method::PATCH, chat.path.clone(), json!({ "chat_type": KINDS[kind] }))
                    }
                    _ => (Method::DELETE, chat.path.clone(), NOTHING),
                }
            }
        };
        let server = self.servers()[*at].with_token(&self.people[*actor].token);
        let reply = server.call(method, &path, body).await;
        prop_assert!(!reply.status.is_server_error(), "{deed:?}: {}", reply.text);
        if matches!(deed, Deed::LeaveWorkspace) {
            // Two answers are compared later: nothing may happen between them.
            self.app.offboardings_end().await;
        }
        if matches!(deed, Deed::Create { .. }) && reply.status.is_success() {
            self.chats.push(Chat::of(serde_json::from_str(&reply.text).unwrap()));
        }
        Ok(())
    }

    fn servers(&self) -> [&Client; 2] {
        [&self.app.anyone, &self.other.anyone]
    }

    /// Whoever has left comes back under another name; nobody else can.
    async fn returns(&mut self, actor: usize, name: u8) -> Result<(), TestCaseError> {
        let here: Option<bool> =
            sqlx::query_scalar("select left_at is null from workspace_members where user_id = $1")
                .bind(self.people[actor].id)
                .fetch_one(&self.app.db)
                .await
                .unwrap();
        if here == Some(true) {
            return Ok(());
        }
        let request = json!({ "fullname": format!("{} {name}", NAMES[actor]),
            "email": self.people[actor].email, "password": PASSWORD, "workspace": "Acme" });
        let reply = self.app.anyone.post("/api/signup", request).await;
        self.people[actor] =
            Person::signed_in(&self.app.anyone, &reply.expect(StatusCode::CREATED));
        Ok(())
    }

    /// The log begins later.
    async fn prune(&self) -> Result<(), TestCaseError> {
        sqlx::query("delete from events where position < (select max(position) - 2 from events)")
            .execute(&self.app.db)
            .await
            .unwrap();
        Ok(())
    }

    /// Each of those who look sees what a server answers that keeps nothing.
    async fn compare(&self, looks: u8, when: &str) -> Result<(), TestCaseError> {
        for (number, person) in self.people.iter().enumerate() {
            for (at, server) in self.servers().into_iter().enumerate() {
                if looks & (1 << (2 * number + at)) == 0 {
                    continue;
                }
                let truth = &self.keeps_nothing.anyone;
                let [shown, true_one] = [server, truth].map(|at| at.with_token(&person.token));
                let (shown, true_one) =
                    (shown.get("/api/chat").await, true_one.get("/api/chat").await);
                let what = format!("{}'s list at server {at} {when}", NAMES[number]);
                prop_assert_eq!(shown.status, true_one.status, "{}", &what);
                if shown.status == StatusCode::OK {
                    prop_assert_eq!(&shown.text, &true_one.text, "{}", &what);
                    prop_assert_eq!(shown.header("etag"), true_one.header("etag"), "{}", &what);
                }
            }
        }
        Ok(())
    }
}
