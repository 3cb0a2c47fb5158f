//! Random stories of four people in four kinds of chat, compared with a small model of the rules.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Chat, NOTHING, Person, Reply, TestApp};

const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
const STORIES: u32 = 24;
const STEPS: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Group,
    PrivateChannel,
    PublicChannel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Member,
    Admin,
    Owner,
}

/// What somebody tries; people and chats are picked by number, others by a bit each.
#[derive(Debug, Clone)]
enum Step {
    Create { kind: Kind, others: u8 },
    Add { chat: usize, others: u8 },
    Remove { chat: usize, others: u8 },
    Join { chat: usize },
    Leave { chat: usize },
    Transfer { chat: usize, to: usize },
    Promote { chat: usize, whom: usize, admin: bool },
    Delete { chat: usize },
}

/// A chat as it should be.
struct Model {
    kind: Kind,
    deleted: bool,
    members: BTreeMap<usize, Role>,
}

#[test]
fn memberships_follow_the_model_after_random_actions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app, people) = runtime.block_on(async {
        let app = TestApp::start().await;
        let people = app.users(PEOPLE).await;
        (app, people)
    });
    let config = Config { cases: STORIES, failure_persistence: None, ..Config::default() };
    let steps = vec((0..PEOPLE.len(), step()), STEPS);

    let result = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            // Singles are one a pair: each story begins without any.
            sqlx::query("update chats set deleted_at = now() where deleted_at is null")
                .execute(&app.db)
                .await
                .unwrap();
            let mut story = Story { people: &people, chats: Vec::new(), number: 0 };
            for (actor, step) in steps {
                story.play(actor, &step).await?;
            }
            Ok(())
        })
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
}

fn step() -> impl Strategy<Value = Step> {
    let chat = || 0..8_usize;
    let person = || 0..PEOPLE.len();
    let others = || 1..16_u8;
    let kind = prop_oneof![
        Just(Kind::Single),
        Just(Kind::Group),
        Just(Kind::PrivateChannel),
        Just(Kind::PublicChannel)
    ];
    prop_oneof![
        3 => (kind, 0..16_u8).prop_map(|(kind, others)| Step::Create { kind, others }),
        3 => (chat(), others()).prop_map(|(chat, others)| Step::Add { chat, others }),
        2 => (chat(), others()).prop_map(|(chat, others)| Step::Remove { chat, others }),
        2 => chat().prop_map(|chat| Step::Join { chat }),
        2 => chat().prop_map(|chat| Step::Leave { chat }),
        2 => (chat(), person()).prop_map(|(chat, to)| Step::Transfer { chat, to }),
        2 => (chat(), person(), any::<bool>())
            .prop_map(|(chat, whom, admin)| Step::Promote { chat, whom, admin }),
        1 => chat().prop_map(|chat| Step::Delete { chat }),
    ]
}

/// Which people the bits stand for.
fn picked(bits: u8) -> Vec<usize> {
    (0..PEOPLE.len()).filter(|person| bits & (1 << person) != 0).collect()
}

struct Story<'a> {
    people: &'a [Person; 4],
    chats: Vec<(Chat, Model)>,
    /// For names that nobody has used.
    number: usize,
}

impl Story<'_> {
    async fn play(&mut self, actor: usize, step: &Step) -> Result<(), TestCaseError> {
        let chat = match *step {
            Step::Create { kind, others } => {
                return self.create(actor, kind, &picked(others)).await;
            }
            Step::Add { chat, .. }
            | Step::Remove { chat, .. }
            | Step::Join { chat }
            | Step::Leave { chat }
            | Step::Transfer { chat, .. }
            | Step::Promote { chat, .. }
            | Step::Delete { chat } => chat,
        };
        if self.chats.is_empty() {
            return Ok(());
        }
        let index = chat % self.chats.len();
        let (chat, model) = &mut self.chats[index];
        let people = self.people;
        let ids = |others: u8| {
            json!(picked(others).iter().map(|one| people[*one].id).collect::<Vec<_>>())
        };
        let (method, path, body) = match *step {
            Step::Add { others, .. } => (Method::POST, chat.members.clone(), ids(others)),
            Step::Remove { others, .. } => (Method::DELETE, chat.members.clone(), ids(others)),
            Step::Join { .. } => (Method::POST, chat.join.clone(), NOTHING),
            Step::Leave { .. } => (Method::POST, chat.leave.clone(), NOTHING),
            Step::Transfer { to, .. } => (Method::PATCH, chat.member(self.people[to].id), NOTHING),
            Step::Promote { whom, admin, .. } => {
                let role = if admin { "admin" } else { "member" };
                (Method::PATCH, chat.member(self.people[whom].id), json!({ "role": role }))
            }
            Step::Create { .. } | Step::Delete { .. } => {
                (Method::DELETE, chat.path.clone(), NOTHING)
            }
        };
        let Some(allowed) = model.try_step(actor, step) else { return Ok(()) };
        let reply = self.people[actor].call(method, &path, body).await;
        expects(&reply, allowed, &format!("{} tries {step:?}", PEOPLE[actor]))?;
        self.compare(index).await
    }

    async fn create(
        &mut self,
        actor: usize,
        kind: Kind,
        others: &[usize],
    ) -> Result<(), TestCaseError> {
        self.number += 1;
        let creator = &self.people[actor];
        let members: Vec<_> = others.iter().map(|one| self.people[*one].id).collect();
        let name = format!("chat {} {}", self.number, uuid::Uuid::new_v4());
        let draft = json!({ "name": name, "chat_type": format!("{kind:?}"), "members": members });
        let reply = creator.post("/api/chat", draft).await;

        let others: Vec<_> = others.iter().copied().filter(|one| *one != actor).collect();
        let mut in_it: BTreeMap<_, _> = others.iter().map(|one| (*one, Role::Member)).collect();
        in_it.insert(actor, Role::Owner);
        let existing = self.chats.iter().position(|(_, model)| {
            let same = model.members.keys().eq(in_it.keys());
            kind == Kind::Single && model.kind == kind && !model.deleted && same
        });
        let status = match kind {
            Kind::Single if others.len() != 1 => 400,
            Kind::Group if others.len() < 2 => 400,
            Kind::Single if existing.is_some() => 200,
            _ => 201,
        };
        expects(&reply, &[status], &format!("{} creates {kind:?} with {others:?}", creator.name))?;
        match (status, existing) {
            (200, Some(index)) => {
                let found = reply.expect(StatusCode::OK);
                prop_assert_eq!(&found["id"], self.chats[index].0.id);
            }
            (201, _) => {
                if kind == Kind::PublicChannel {
                    in_it.retain(|person, _| *person == actor);
                }
                let chat = Chat::of(reply.expect(StatusCode::CREATED));
                self.chats.push((chat, Model { kind, deleted: false, members: in_it }));
                self.compare(self.chats.len() - 1).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Everyone sees the members that the model has, or nothing.
    async fn compare(&self, index: usize) -> Result<(), TestCaseError> {
        let (chat, model) = &self.chats[index];
        for (number, person) in self.people.iter().enumerate() {
            let reply = person.get(&chat.members).await;
            if model.deleted || !model.members.contains_key(&number) {
                prop_assert_eq!(reply.status, StatusCode::NOT_FOUND, "{}", reply.text);
                continue;
            }
            let members = reply.expect(StatusCode::OK);
            for (member, role) in &model.members {
                let shown = shown_role(&members, self.people[*member].id);
                prop_assert_eq!(shown, Some(name(*role)), "{} in {}", PEOPLE[*member], members);
            }
            let count = members.as_array().map(Vec::len);
            prop_assert_eq!(count, Some(model.members.len()), "{}", members);
        }
        Ok(())
    }
}

fn shown_role(members: &Value, id: i64) -> Option<&str> {
    let mut members = members.as_array()?.iter();
    members.find(|member| member["user_id"] == id)?["role"].as_str()
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

fn expects(reply: &Reply, allowed: &[u16], what: &str) -> Result<(), TestCaseError> {
    let status = reply.status.as_u16();
    prop_assert!(
        allowed.contains(&status),
        "{what}: {status} instead of {allowed:?}: {}",
        reply.text
    );
    Ok(())
}

impl Model {
    /// Does what the actor tries where they may; the statuses that answer it, or none where the
    /// contract leaves the case open.
    fn try_step(&mut self, actor: usize, step: &Step) -> Option<&'static [u16]> {
        let role = self.members.get(&actor).copied().filter(|_| !self.deleted);
        if let Step::Join { .. } = step {
            return self.join(actor, role);
        }
        let Some(role) = role else { return Some(&[404]) };
        match *step {
            Step::Add { others, .. } => Some(self.add(role, &picked(others))),
            Step::Remove { others, .. } => self.remove(actor, role, &picked(others)),
            Step::Leave { .. } => Some(self.leave(actor, role)),
            Step::Transfer { to, .. } => self.transfer(actor, role, to),
            Step::Promote { whom, admin, .. } => self.promote(actor, role, whom, admin),
            Step::Delete { .. } if role == Role::Owner => {
                self.deleted = true;
                Some(&[204])
            }
            Step::Delete { .. } => Some(&[403]),
            Step::Create { .. } | Step::Join { .. } => None,
        }
    }

    fn join(&mut self, actor: usize, role: Option<Role>) -> Option<&'static [u16]> {
        match (self.kind, role) {
            _ if self.deleted => Some(&[404]),
            (Kind::PublicChannel, Some(_)) => Some(&[200]),
            (Kind::PublicChannel, None) => {
                self.members.insert(actor, Role::Member);
                Some(&[200])
            }
            (_, None) => Some(&[404]),
            (_, Some(_)) => None,
        }
    }

    fn add(&mut self, role: Role, others: &[usize]) -> &'static [u16] {
        match (self.kind, role) {
            (Kind::Single, _) => &[400, 403],
            (_, Role::Member) => &[403],
            _ => {
                for person in others {
                    self.members.entry(*person).or_insert(Role::Member);
                }
                &[201]
            }
        }
    }

    fn remove(&mut self, actor: usize, role: Role, others: &[usize]) -> Option<&'static [u16]> {
        let ranks: Vec<_> = others.iter().filter_map(|one| self.members.get(one)).collect();
        match role {
            _ if self.kind == Kind::Single => Some(&[400, 403, 409]),
            // Whether that is leaving is nowhere said.
            Role::Member | Role::Admin if others.contains(&actor) => None,
            Role::Member => Some(&[400, 403]),
            _ if ranks.is_empty() => Some(&[400]),
            Role::Owner if others.contains(&actor) => Some(&[409]),
            Role::Admin if ranks.iter().any(|rank| **rank > Role::Member) => Some(&[403]),
            _ => {
                self.members.retain(|person, _| !others.contains(person));
                Some(&[204])
            }
        }
    }

    fn leave(&mut self, actor: usize, role: Role) -> &'static [u16] {
        match (self.kind, role) {
            (Kind::Single, _) => &[400],
            (_, Role::Owner) => &[409],
            _ => {
                self.members.remove(&actor);
                &[204]
            }
        }
    }

    fn transfer(&mut self, actor: usize, role: Role, to: usize) -> Option<&'static [u16]> {
        if self.kind == Kind::Single || actor == to {
            return None;
        }
        match (role, self.members.contains_key(&to)) {
            (Role::Owner, true) => {
                // Whoever gives a chat away gives all of it.
                self.members.insert(actor, Role::Member);
                self.members.insert(to, Role::Owner);
                Some(&[200])
            }
            (Role::Owner, false) => Some(&[400]),
            (_, true) => Some(&[403]),
            (_, false) => Some(&[400, 403]),
        }
    }

    fn promote(
        &mut self,
        actor: usize,
        role: Role,
        whom: usize,
        admin: bool,
    ) -> Option<&'static [u16]> {
        if self.kind == Kind::Single || actor == whom {
            return None;
        }
        match (role, self.members.get_mut(&whom)) {
            (Role::Owner, Some(rank)) => {
                *rank = if admin { Role::Admin } else { Role::Member };
                Some(&[200])
            }
            (Role::Owner, None) => Some(&[400]),
            (_, Some(_)) => Some(&[403]),
            (_, None) => Some(&[400, 403]),
        }
    }
}
