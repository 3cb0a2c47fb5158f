//! Random histories of a workspace.

use proptest::collection::vec;
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fechatter::Person;

/// Something that one of four people tries; whether they may is for the server to say.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    actor: usize,
    deed: Deed,
}

/// People and chats are numbers, which stand for whoever and whatever is there by then.
#[derive(Debug, Clone)]
enum Deed {
    Create(&'static str, Vec<usize>),
    Send(usize),
    Rename(usize),
    Add(usize, usize),
    Remove(usize, usize),
    Join(usize),
    Leave(usize),
    Transfer(usize, usize),
    Delete(usize),
    GiveRole(usize, &'static str),
    Suspend,
    Readmit,
    RemoveFromWorkspace,
    ComeBack,
    RenameWorkspace,
}

/// The chats that a history has made.
#[derive(Default)]
pub(crate) struct Chats(Vec<i64>);

pub(crate) fn history(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let (person, chat) = (0..4_usize, 0..8_usize);
    let deed = prop_oneof![
        4 => (select(&["Single", "Group", "PrivateChannel", "PublicChannel"]), vec(0..4_usize, 1..4))
            .prop_map(|(kind, members)| Deed::Create(kind, members)),
        8 => chat.clone().prop_map(Deed::Send),
        2 => chat.clone().prop_map(Deed::Rename),
        3 => (chat.clone(), person.clone()).prop_map(|(chat, who)| Deed::Add(chat, who)),
        2 => (chat.clone(), person.clone()).prop_map(|(chat, who)| Deed::Remove(chat, who)),
        3 => chat.clone().prop_map(Deed::Join),
        2 => chat.clone().prop_map(Deed::Leave),
        1 => (chat.clone(), person.clone()).prop_map(|(chat, who)| Deed::Transfer(chat, who)),
        1 => chat.prop_map(Deed::Delete),
        1 => (person, select(&["admin", "member"]))
            .prop_map(|(who, role)| Deed::GiveRole(who, role)),
        1 => Just(Deed::Suspend),
        2 => Just(Deed::Readmit),
        1 => Just(Deed::RemoveFromWorkspace),
        1 => Just(Deed::ComeBack),
        1 => Just(Deed::RenameWorkspace),
    ];
    vec((0..4_usize, deed).prop_map(|(actor, deed)| Step { actor, deed }), steps)
}

fn select<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(values)
}

impl Step {
    pub(crate) async fn play(&self, people: &[Person<'_>], chats: &mut Chats) {
        let who = |number: &usize| &people[*number];
        let chat =
            |number: &usize| chats.0.get(number % chats.0.len().max(1)).copied().unwrap_or(1);
        let (method, path, body) = match &self.deed {
            Deed::Create(kind, members) => {
                let members: Vec<_> = members.iter().map(|number| who(number).id).collect();
                let name = format!("chat {}", chats.0.len());
                let draft = json!({ "name": name, "chat_type": kind, "members": members });
                (Method::POST, "/api/chat".into(), draft)
            }
            Deed::Send(number) => {
                let path = format!("/api/chat/{}/messages", chat(number));
                (Method::POST, path, json!({ "content": "Hello" }))
            }
            Deed::Rename(number) => {
                let path = format!("/api/chat/{}", chat(number));
                (Method::PATCH, path, json!({ "name": format!("another {number}") }))
            }
            Deed::Add(number, person) => {
                let path = format!("/api/chat/{}/members", chat(number));
                (Method::POST, path, json!([who(person).id]))
            }
            Deed::Remove(number, person) => {
                let path = format!("/api/chat/{}/members", chat(number));
                (Method::DELETE, path, json!([who(person).id]))
            }
            Deed::Join(number) => {
                (Method::POST, format!("/api/chat/{}/join", chat(number)), Value::Null)
            }
            Deed::Leave(number) => {
                (Method::POST, format!("/api/chat/{}/leave", chat(number)), Value::Null)
            }
            Deed::Transfer(number, person) => {
                let path = format!("/api/chat/{}/members/{}", chat(number), who(person).id);
                (Method::PATCH, path, Value::Null)
            }
            Deed::Delete(number) => {
                (Method::DELETE, format!("/api/chat/{}", chat(number)), Value::Null)
            }
            // Those who follow stay: somebody suspended could not sync.
            Deed::GiveRole(person, role) => {
                (Method::PATCH, format!("/api/users/{}", who(person).id), json!({ "role": role }))
            }
            Deed::Suspend => (
                Method::PATCH,
                format!("/api/users/{}", people[3].id),
                json!({ "status": "Suspended" }),
            ),
            Deed::Readmit => (
                Method::PATCH,
                format!("/api/users/{}", people[3].id),
                json!({ "status": "Active" }),
            ),
            Deed::RemoveFromWorkspace => {
                (Method::DELETE, format!("/api/users/{}", people[3].id), Value::Null)
            }
            Deed::ComeBack => {
                let workspace = people[0].call(Method::GET, "/api/workspace", &Value::Null).await;
                let workspace = workspace.json();
                let request = people[3].signs_up_again(&workspace["name"]);
                (Method::POST, "/api/signup".into(), request)
            }
            Deed::RenameWorkspace => {
                let name = format!("Acme of {}", people[0].id);
                (Method::PATCH, "/api/workspace".into(), json!({ "name": name }))
            }
        };
        let answer = people[self.actor].call(method, &path, &body).await;
        // A person who comes back before their offboarding is over has to wait.
        let is_early = matches!(self.deed, Deed::ComeBack) && answer.status == 503;
        let is_error = answer.status.is_server_error() && !is_early;
        assert!(!is_error, "{self:?}: {}", answer.status);
        if let (Deed::Create(..), 201) = (&self.deed, answer.status.as_u16()) {
            chats.0.push(answer.json()["id"].as_i64().unwrap());
        }
    }
}
