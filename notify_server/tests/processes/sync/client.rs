//! What a client makes of a sync and the events after it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::history::Step;
use crate::fechatter::Stream;

/// A client's copy of the state.
pub(crate) struct Client {
    pub(crate) cursor: String,
    me: Value,
    workspace: Value,
    chats: BTreeMap<i64, Value>,
    users: BTreeMap<i64, Value>,
    waiting: Option<(String, Value)>,
}

impl Client {
    pub(crate) fn of(sync: &Value) -> Self {
        let by_id = |list: &Value| {
            let items = list.as_array().unwrap().iter();
            items.map(|item| (item["id"].as_i64().unwrap(), item.clone())).collect()
        };
        Self {
            cursor: sync["cursor"].as_str().unwrap().to_owned(),
            me: sync["me"].clone(),
            workspace: sync["workspace"].clone(),
            chats: by_id(&sync["chats"]),
            users: by_id(&sync["users"]),
            waiting: None,
        }
    }

    /// Applies events up to a cursor; the one behind it waits for the next time.
    pub(crate) async fn follow(&mut self, stream: &mut Stream, upto: &Value) {
        let upto = position(upto.as_str().unwrap());
        loop {
            let (cursor, event) = if let Some(waiting) = self.waiting.take() {
                waiting
            } else {
                let event = stream.next().await.expect("the stream ended");
                // Read states are not in the log, and the history has no marks but those of new members.
                if event["event"] == "ReadStateUpdated" {
                    continue;
                }
                (stream.cursor.clone().unwrap(), event)
            };
            assert!(position(&cursor) > position(&self.cursor), "{event} comes twice");
            if position(&cursor) > upto {
                self.waiting = Some((cursor, event));
                return;
            }
            self.apply(&event);
            self.cursor = cursor;
        }
    }

    fn apply(&mut self, event: &Value) {
        let id = |field: &str| event[field].as_i64().unwrap();
        let mine = |field: &str| event[field] == self.me["id"];
        match event["event"].as_str().unwrap() {
            "NewChat" => self.add_chat(event, 0),
            "ChatUpdated" => {
                let is_creator = mine("created_by");
                let chat = self.chats.get_mut(&id("id")).unwrap();
                for field in ["name", "chat_type", "member_count", "archived_at"] {
                    chat[field] = event[field].clone();
                }
                chat["is_creator"] = json!(is_creator);
            }
            "ChatDeleted" => _ = self.chats.remove(&id("id")).unwrap(),
            "UserJoinedChat" if mine("user_id") => {
                let read = event["chat"]["last_seq"].as_i64().unwrap();
                self.add_chat(&event["chat"], read);
            }
            "UserJoinedChat" => {
                let chat = self.chats.get_mut(&id("chat_id")).unwrap();
                chat["member_count"] = event["chat"]["member_count"].clone();
            }
            "UserLeftChat" if mine("user_id") => _ = self.chats.remove(&id("chat_id")).unwrap(),
            "UserLeftChat" => {
                let chat = self.chats.get_mut(&id("chat_id")).unwrap();
                chat["member_count"] = json!(chat["member_count"].as_i64().unwrap() - 1);
            }
            "NewMessage" => self.add_message(event),
            // Each shows the person as they are when it is read: they may have left since.
            "UserJoinedWorkspace" | "UserUpdated" if event["status"] == "Left" => {
                self.users.remove(&id("id"));
            }
            "UserJoinedWorkspace" | "UserUpdated" => {
                let mut user = event.clone();
                user.as_object_mut().unwrap().remove("event");
                if mine("id") {
                    self.me = user.clone();
                }
                // A Single has the name of the other person.
                for chat in self.chats.values_mut().filter(|chat| chat["peer_id"] == user["id"]) {
                    chat["name"] = user["fullname"].clone();
                }
                self.users.insert(id("id"), user);
            }
            // A person who came back since was shown as active by the update before it.
            "UserLeftWorkspace" => {
                self.users.remove(&id("user_id"));
            }
            "WorkspaceUpdated" => {
                self.workspace = event.clone();
                self.workspace.as_object_mut().unwrap().remove("event");
            }
            _ => {}
        }
        self.workspace["member_count"] = json!(self.users.len());
    }

    fn add_chat(&mut self, chat: &Value, last_read_seq: i64) {
        let members = chat["chat_members"].as_array().unwrap();
        let single = chat["chat_type"] == "Single";
        let peer = members.iter().find(|id| single && **id != self.me["id"]);
        let name = peer.map(|id| self.users[&id.as_i64().unwrap()]["fullname"].clone());
        self.chats.insert(
            chat["id"].as_i64().unwrap(),
            json!({
                "id": chat["id"],
                "name": name.unwrap_or(chat["name"].clone()),
                "chat_type": chat["chat_type"],
                "is_creator": chat["created_by"] == self.me["id"],
                "peer_id": peer,
                "member_count": chat["member_count"],
                "last_seq": chat["last_seq"],
                "last_read_seq": last_read_seq,
                "unread_count": 0,
                "notify_level": "all",
                "muted_until": null,
                "pinned_at": null,
                "archived_at": chat["archived_at"],
            }),
        );
    }

    fn add_message(&mut self, message: &Value) {
        let mine = message["sender_id"] == self.me["id"];
        let chat = self.chats.get_mut(&message["chat_id"].as_i64().unwrap()).unwrap();
        assert_eq!(message["seq"], chat["last_seq"].as_i64().unwrap() + 1);
        chat["last_seq"] = message["seq"].clone();
        if message["kind"] == "system" {
            // Neither read nor unread.
        } else if mine {
            chat["last_read_seq"] = message["seq"].clone();
            chat["unread_count"] = json!(0);
        } else {
            chat["unread_count"] = json!(chat["unread_count"].as_i64().unwrap() + 1);
        }
    }

    /// Compares this copy with a later sync: the chats that `last` has too, and the people who are then as
    /// they are in `last`, because events show people as they are when they are read.
    pub(crate) fn assert_equals(&self, sync: &Value, last: &Self, steps: &[Step]) {
        let other = Self::of(sync);
        let is_settled = |id: &i64| other.users.get(id) == last.users.get(id);
        let users = |client: &Self| -> Vec<_> {
            client
                .users
                .iter()
                .filter(|(id, _)| is_settled(id))
                .map(|(_, user)| user.clone())
                .collect()
        };
        assert_eq!(users(self), users(&other), "{steps:#?}");
        if other.users == last.users {
            assert_eq!(self.me, other.me, "{steps:#?}");
            assert_eq!(self.workspace, other.workspace, "{steps:#?}");
        }
        let chats = |client: &Self| -> Vec<_> {
            let lasting = client.chats.iter().filter(|(id, _)| last.chats.contains_key(id));
            lasting.map(|(_, chat)| known(chat)).collect()
        };
        assert_eq!(chats(self), chats(&other), "{steps:#?}");
    }
}

/// What of a chat a client can know from events alone; the rest it asks for.
fn known(chat: &Value) -> Value {
    let fields = [
        "id",
        "name",
        "chat_type",
        "is_creator",
        "peer_id",
        "member_count",
        "last_seq",
        "last_read_seq",
        "unread_count",
        "notify_level",
        "muted_until",
        "pinned_at",
        "archived_at",
    ];
    fields
        .iter()
        .map(|field| (*field, chat[field].clone()))
        .collect::<Vec<_>>()
        .into_iter()
        .collect()
}

fn position(cursor: &str) -> i64 {
    cursor.split_once('-').unwrap().1.parse().unwrap()
}
