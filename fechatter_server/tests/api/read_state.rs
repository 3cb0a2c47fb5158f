//! Read marks and unread counts.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{Chat, NOTHING, Person, TestApp};

impl Person {
    /// Moves the read mark to a message, or to the end.
    async fn reads(&self, chat: &Chat, seq: Option<i64>) -> Value {
        let body = seq.map_or(json!({}), |seq| json!({ "seq": seq }));
        self.post(&format!("{}/read", chat.path), body).await.expect(StatusCode::OK)
    }

    async fn marks_unread(&self, chat: &Chat, message: &Value) -> Value {
        let body = json!({ "message_id": message["id"] });
        self.post(&format!("{}/unread", chat.path), body).await.expect(StatusCode::OK)
    }
}

fn position(last_read_seq: i64, unread_count: i64) -> Value {
    json!({ "last_read_seq": last_read_seq, "unread_count": unread_count, "mention_count": 0 })
}

#[tokio::test]
async fn reading_moves_the_mark_forward_and_never_backwards() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    alice.counts_to(5, &chat).await;
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 5);

    assert_eq!(bob.reads(&chat, Some(3)).await, position(3, 2));
    assert_eq!(bob.reads(&chat, Some(1)).await, position(3, 2));
    // Beyond the end is the end.
    assert_eq!(bob.reads(&chat, Some(99)).await, position(5, 0));
    alice.sends(&chat, "6").await;
    assert_eq!(bob.reads(&chat, None).await, position(6, 0));
    let without_body = bob.post(&format!("{}/read", chat.path), NOTHING).await;
    assert_eq!(without_body.expect(StatusCode::OK), position(6, 0));

    let sidebar = bob.sidebar(&chat).await;
    assert_eq!((&sidebar["last_read_seq"], &sidebar["unread_count"]), (&json!(6), &json!(0)));
    let before = app.state().await;
    bob.reads(&chat, Some(2)).await;
    assert_eq!(app.state().await, before, "nothing is written where nothing changes");
}

#[tokio::test]
async fn messages_marked_as_unread_stay_so_until_the_person_writes_or_reads() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let sent = alice.counts_to(3, &chat).await;
    bob.sends(&chat, "4").await;
    assert_eq!(bob.sidebar(&chat).await["last_read_seq"], 4);

    assert_eq!(bob.marks_unread(&chat, &sent[1]).await, position(1, 2));
    alice.sends(&chat, "5").await;
    assert_eq!(bob.sidebar(&chat).await["unread_count"], 3);
    assert_eq!(bob.reads(&chat, Some(2)).await, position(2, 2));
    bob.sends(&chat, "6").await;
    let sidebar = bob.sidebar(&chat).await;
    assert_eq!((&sidebar["last_read_seq"], &sidebar["unread_count"]), (&json!(6), &json!(0)));
    // The first message may be marked, too.
    assert_eq!(bob.marks_unread(&chat, &sent[0]).await["last_read_seq"], 0);
}

#[tokio::test]
async fn a_foreign_message_or_chat_marks_nothing() {
    let app = TestApp::start().await;
    let [alice, bob, eve] = app.users(["alice", "bob", "eve"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let other = alice.creates_private_channel("other", []).await;
    alice.counts_to(2, &chat).await;
    let foreign = alice.sends(&other, "x").await;
    let before = app.state().await;

    let unread = format!("{}/unread", chat.path);
    let refused = bob.post(&unread, json!({ "message_id": foreign["id"] })).await;
    refused.refuses(StatusCode::NOT_FOUND, "not_found");
    let both = json!({ "chat_ids": [chat.id, other.id] });
    bob.post("/api/read", both).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let list = bob.get(&format!("/api/unread?chat_ids={},{}", chat.id, other.id)).await;
    list.refuses(StatusCode::NOT_FOUND, "not_found");
    for (path, body) in
        [(&unread, json!({ "message_id": 1 })), (&format!("{}/read", chat.path), json!({}))]
    {
        eve.post(path, body).await.refuses(StatusCode::NOT_FOUND, "not_found");
    }
    for body in [json!({ "seq": -1 }), json!({ "seq": "1" }), json!({ "seq": null })] {
        let refused = bob.post(&format!("{}/read", chat.path), body).await;
        refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn all_chats_are_read_and_listed_at_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let [one, two, three] = [
        alice.creates_private_channel("1", [&bob]).await,
        alice.creates_private_channel("2", [&bob]).await,
        alice.creates_private_channel("3", [&bob]).await,
    ];
    alice.counts_to(2, &one).await;
    alice.counts_to(3, &two).await;
    let state = |chat: &Chat, read: i64, unread: i64| {
        json!({
            "chat_id": chat.id, "last_read_seq": read, "unread_count": unread,
            "unread_capped": false, "mention_count": 0,
        })
    };

    let unread = bob.get("/api/unread").await.expect(StatusCode::OK);
    let expected = json!([state(&one, 0, 2), state(&two, 0, 3)]);
    assert_eq!(unread, json!({ "total": 5, "mentions": 0, "chats": expected }));
    let named = bob.get(&format!("/api/unread?chat_ids={},{}", two.id, three.id)).await;
    let expected = json!([state(&two, 0, 3), state(&three, 0, 0)]);
    assert_eq!(named.expect(StatusCode::OK)["chats"], expected);

    let read = bob.post("/api/read", json!({ "chat_ids": [one.id] })).await;
    read.expect(StatusCode::NO_CONTENT);
    assert_eq!(bob.get("/api/unread").await.expect(StatusCode::OK)["total"], 3);
    bob.post("/api/read", NOTHING).await.expect(StatusCode::NO_CONTENT);
    let nothing = json!({ "total": 0, "mentions": 0, "chats": [] });
    assert_eq!(bob.get("/api/unread").await.expect(StatusCode::OK), nothing);
}

#[tokio::test]
async fn a_kept_list_of_chats_follows_the_marks_of_every_server() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    let other = app.another(|_| {}).await;
    let elsewhere = other.anyone.with_token(&bob.token);
    let sent = alice.counts_to(3, &chat).await;

    let counts = async || {
        let there = elsewhere.get("/api/chat").await.expect(StatusCode::OK);
        let here = bob.sidebar(&chat).await["unread_count"].clone();
        [here, there[0]["unread_count"].clone()]
    };
    assert_eq!(counts().await, [3, 3]);
    bob.reads(&chat, Some(2)).await;
    assert_eq!(counts().await, [1, 1]);
    bob.marks_unread(&chat, &sent[0]).await;
    assert_eq!(counts().await, [3, 3]);
}

#[tokio::test]
async fn counts_stop_at_one_hundred() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    alice.counts_to(101, &chat).await;
    let state = bob.get("/api/unread").await.expect(StatusCode::OK)["chats"][0].clone();
    assert_eq!((&state["unread_count"], &state["unread_capped"]), (&json!(100), &json!(true)));
    bob.reads(&chat, Some(1)).await;
    let state = bob.get("/api/unread").await.expect(StatusCode::OK)["chats"][0].clone();
    assert_eq!((&state["unread_count"], &state["unread_capped"]), (&json!(100), &json!(false)));
}

#[tokio::test]
async fn simultaneous_marks_in_one_chat_leave_the_furthest() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    alice.counts_to(30, &chat).await;

    let marks = join_all((1..=30).map(|seq| bob.reads(&chat, Some(seq)))).await;

    for (seq, mark) in (1..).zip(marks) {
        assert!(mark["last_read_seq"].as_i64().unwrap() >= seq, "{mark}");
    }
    assert_eq!(bob.sidebar(&chat).await["last_read_seq"], 30);
}

#[tokio::test]
async fn marks_of_many_people_share_a_batch_and_each_gets_their_own_result() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let eve = app.user("eve").await;
    let chat = alice.creates_group("lunch", [&bob, &carol]).await;
    alice.counts_to(3, &chat).await;
    let read = format!("{}/read", chat.path);
    let body = json!({ "seq": 2 });
    app.suspends(&carol).await;
    let elsewhere = app.signs_in(&bob).await;
    elsewhere.post("/api/logout", NOTHING).await.expect(StatusCode::OK);

    for _ in 0..5 {
        let people = [&bob, &carol, &eve, &elsewhere];
        let replies = join_all(people.map(|person| person.post(&read, body.clone()))).await;
        assert_eq!(replies[0].expect(StatusCode::OK), position(2, 1));
        replies[1].refuses(StatusCode::FORBIDDEN, "suspended");
        replies[2].refuses(StatusCode::NOT_FOUND, "not_found");
        replies[3].refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
}

#[tokio::test]
async fn more_than_five_hundred_chats_in_a_request_are_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let ids: Vec<_> = (1..=501).collect();
    let refused = alice.post("/api/read", json!({ "chat_ids": ids })).await;
    refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
    let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let refused = alice.get(&format!("/api/unread?chat_ids={ids}")).await;
    refused.refuses(StatusCode::BAD_REQUEST, "invalid_input");
}

/// A step of a random history; the numbers choose the person, the chat and the message.
#[derive(Debug, Clone)]
enum Step {
    Send(usize, usize, Mention),
    Edit(usize, usize, Mention),
    Delete(usize, usize),
    Read(usize, usize, i64),
    ReadAll(usize),
    MarkUnread(usize, usize, usize),
    Rename(usize),
    Leave(usize, usize),
    Join(usize, usize),
}

/// The mentions in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mention {
    Nobody,
    Person(usize),
    Everybody,
    Both(usize),
}

impl Mention {
    fn text(self, people: &[Person; 3]) -> String {
        match self {
            Self::Nobody => "x".into(),
            Self::Person(person) => format!("@[user:{}]", people[person].id),
            Self::Everybody => "hello @all".into(),
            Self::Both(person) => format!("@all, also @[user:{}]", people[person].id),
        }
    }
}

/// A message of the model, at its place in the chat.
#[derive(Debug, Clone)]
struct Entry {
    sent: Value,
    /// None for a system message.
    sender: Option<usize>,
    is_deleted: bool,
    /// Whether it mentions each of the people.
    mentions: [bool; 3],
}

/// A person in a chat, for the slow definition of unread messages: those after the last explicit mark, or
/// after the person's own last message if that is later.
#[derive(Debug, Clone, Default)]
struct Reader {
    is_member: bool,
    read: i64,
}

#[derive(Debug, Default)]
struct Model {
    chats: Vec<Vec<Entry>>,
    readers: BTreeMap<(usize, usize), Reader>,
}

impl Model {
    fn end(&self, chat: usize) -> i64 {
        i64::try_from(self.chats[chat].len()).unwrap()
    }

    fn is_member(&self, person: usize, chat: usize) -> bool {
        self.readers[&(person, chat)].is_member
    }

    fn reader(&mut self, person: usize, chat: usize) -> &mut Reader {
        self.readers.get_mut(&(person, chat)).unwrap()
    }

    /// The people whom a text mentions if it is written now.
    fn mentions(&self, chat: usize, mention: Mention) -> [bool; 3] {
        [0, 1, 2].map(|person| match mention {
            Mention::Nobody => false,
            Mention::Person(named) => named == person && self.is_member(person, chat),
            Mention::Everybody | Mention::Both(_) => true,
        })
    }

    fn add(&mut self, chat: usize, sender: Option<usize>, sent: Value, mentions: [bool; 3]) {
        self.chats[chat].push(Entry { sent, sender, is_deleted: false, mentions });
    }

    fn add_system_message(&mut self, chat: usize) {
        self.add(chat, None, Value::Null, [false; 3]);
    }

    /// The number of messages that the person has not read, and of those that mention them.
    fn unread(&self, person: usize, chat: usize) -> (usize, usize) {
        let read = usize::try_from(self.readers[&(person, chat)].read).unwrap();
        let later = self.chats[chat].iter().skip(read);
        let others = |entry: &&Entry| {
            !entry.is_deleted && entry.sender.is_some_and(|sender| sender != person)
        };
        let unread: Vec<_> = later.filter(others).collect();
        (unread.len(), unread.iter().filter(|entry| entry.mentions[person]).count())
    }
}

#[test]
fn all_counts_equal_a_slow_definition_over_random_histories() {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let (app, people) = RUNTIME.block_on(async {
        let app = TestApp::start().await;
        let people = app.users(["alice", "bob", "carol"]).await;
        (app, people)
    });
    let (person, chat, message) = (0..3_usize, 0..2_usize, 0..12_usize);
    let mention = prop_oneof![
        3 => Just(Mention::Nobody),
        3 => person.clone().prop_map(Mention::Person),
        1 => Just(Mention::Everybody),
        1 => person.clone().prop_map(Mention::Both),
    ];
    let step = prop_oneof![
        6 => (person.clone(), chat.clone(), mention.clone())
            .prop_map(|(p, c, m)| Step::Send(p, c, m)),
        2 => (chat.clone(), message.clone(), mention).prop_map(|(c, m, to)| Step::Edit(c, m, to)),
        2 => (chat.clone(), message.clone()).prop_map(|(c, m)| Step::Delete(c, m)),
        3 => (person.clone(), chat.clone(), 0..14_i64).prop_map(|(p, c, seq)| Step::Read(p, c, seq)),
        1 => person.clone().prop_map(Step::ReadAll),
        2 => (person, chat.clone(), message).prop_map(|(p, c, m)| Step::MarkUnread(p, c, m)),
        1 => chat.clone().prop_map(Step::Rename),
        1 => (1..3_usize, chat.clone()).prop_map(|(p, c)| Step::Leave(p, c)),
        2 => (1..3_usize, chat).prop_map(|(p, c)| Step::Join(p, c)),
    ];
    let config =
        ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&vec(step, 1..40), |steps| {
            RUNTIME.block_on(play(&app, &people, &steps));
            Ok(())
        })
        .unwrap();
}

async fn play(app: &TestApp, people: &[Person; 3], steps: &[Step]) {
    let alice = &people[0];
    app.sql("update workspace_members set role = 'owner'").await;
    let mut chats = Vec::new();
    let new_name = || uuid::Uuid::new_v4().simple().to_string();
    for _ in 0..2 {
        chats.push(alice.creates_public_channel(&new_name()).await);
    }
    let mut model = Model { chats: vec![Vec::new(); 2], ..Model::default() };
    for chat in 0..2 {
        for person in 0..3 {
            let is_member = person == 0;
            model.readers.insert((person, chat), Reader { is_member, read: 0 });
        }
    }
    for step in steps {
        match *step {
            Step::Send(p, c, mention) if model.is_member(p, c) => {
                let sent = people[p].sends(&chats[c], &mention.text(people)).await;
                let mentions = model.mentions(c, mention);
                model.add(c, Some(p), sent, mentions);
                let end = model.end(c);
                model.reader(p, c).read = end;
            }
            Step::Edit(c, m, mention) if m < model.chats[c].len() => {
                let entry = model.chats[c][m].clone();
                let Some(p) = entry.sender.filter(|_| !entry.is_deleted) else { continue };
                if model.is_member(p, c) && entry.sent["content"] != mention.text(people) {
                    let changes = json!({ "content": mention.text(people) });
                    let edited = people[p].patch(&chats[c].message(&entry.sent), changes).await;
                    let sent = edited.expect(StatusCode::OK);
                    let mentions = model.mentions(c, mention);
                    model.chats[c][m] = Entry { sent, mentions, ..entry };
                }
            }
            Step::Delete(c, m) if m < model.chats[c].len() => {
                let entry = &mut model.chats[c][m];
                if entry.sender.is_some() {
                    alice.deletes_message(&chats[c], &entry.sent).await;
                    entry.is_deleted = true;
                }
            }
            Step::Read(p, c, seq) if model.is_member(p, c) => {
                people[p].reads(&chats[c], Some(seq)).await;
                let end = model.end(c);
                let reader = model.reader(p, c);
                reader.read = reader.read.max(seq.min(end));
            }
            Step::ReadAll(p) => {
                people[p].post("/api/read", NOTHING).await.expect(StatusCode::NO_CONTENT);
                for c in (0..2).filter(|c| model.is_member(p, *c)).collect::<Vec<_>>() {
                    let end = model.end(c);
                    model.reader(p, c).read = end;
                }
            }
            Step::MarkUnread(p, c, m) if model.is_member(p, c) && m < model.chats[c].len() => {
                let entry = model.chats[c][m].clone();
                if entry.sender.is_some() {
                    people[p].marks_unread(&chats[c], &entry.sent).await;
                    model.reader(p, c).read = i64::try_from(m).unwrap();
                }
            }
            Step::Rename(c) => {
                let renamed = alice.patch(&chats[c].path, json!({ "name": new_name() })).await;
                renamed.expect(StatusCode::OK);
                model.add_system_message(c);
            }
            Step::Leave(p, c) if model.is_member(p, c) => {
                people[p].leaves(&chats[c]).await;
                model.add_system_message(c);
                model.reader(p, c).is_member = false;
            }
            Step::Join(p, c) if !model.is_member(p, c) => {
                people[p].joins(&chats[c]).await;
                let end = model.end(c);
                model.readers.insert((p, c), Reader { is_member: true, read: end });
                model.add_system_message(c);
            }
            _ => {}
        }
        check(people, &chats, &model).await;
    }
}

/// Compares the list of chats and the list of what is unread with the model.
async fn check(people: &[Person; 3], chats: &[Chat], model: &Model) {
    for (p, person) in people.iter().enumerate() {
        let listed = person.get("/api/chat").await.expect(StatusCode::OK);
        let unread = person.get("/api/unread").await.expect(StatusCode::OK);
        for (c, chat) in chats.iter().enumerate() {
            let find = |list: &Value, field: &str| {
                list.as_array().unwrap().iter().find(|entry| entry[field] == chat.id).cloned()
            };
            let (entry, state) = (find(&listed, "id"), find(&unread["chats"], "chat_id"));
            let reader = &model.readers[&(p, c)];
            if !reader.is_member {
                assert_eq!((entry, state), (None, None));
                continue;
            }
            let (entry, (count, mentions)) = (entry.unwrap(), model.unread(p, c));
            assert_eq!(entry["last_read_seq"], reader.read, "{model:?}");
            assert_eq!(entry["unread_count"], count, "{model:?}");
            assert_eq!(entry["mention_count"], mentions, "{model:?}");
            let state = state.unwrap_or_else(|| json!({ "unread_count": 0, "mention_count": 0 }));
            assert_eq!(state["unread_count"], count, "{model:?}");
            assert_eq!(state["mention_count"], mentions, "{model:?}");
        }
    }
}
