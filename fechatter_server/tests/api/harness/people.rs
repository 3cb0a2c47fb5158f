//! People and what they do.

use std::ops::Deref;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Client;

/// Somebody who has signed in; calls the server with their access token.
pub(crate) struct Person {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) workspace_id: i64,
    pub(crate) session_id: String,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
    client: Client,
}

/// A chat and its addresses.
pub(crate) struct Chat {
    pub(crate) id: i64,
    pub(crate) body: Value,
    pub(crate) path: String,
    pub(crate) members: String,
    pub(crate) messages: String,
    pub(crate) join: String,
    pub(crate) leave: String,
}

impl Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Person {
    /// Whoever an `AuthResponse` is about.
    pub(crate) fn signed_in(anyone: &Client, auth: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let token = text(&auth["access_token"]).unwrap();
        Self {
            id: auth["user"]["id"].as_i64().unwrap(),
            name: text(&auth["user"]["fullname"]).unwrap(),
            email: text(&auth["user"]["email"]).unwrap(),
            workspace_id: auth["workspace"]["id"].as_i64().unwrap(),
            session_id: text(&auth["session_id"]).unwrap(),
            // Switching answers none: the old one stays.
            refresh_token: text(&auth["refresh_token"]).unwrap_or_default(),
            client: anyone.with_token(&token),
            token,
        }
    }

    pub(crate) async fn creates_group<const N: usize>(
        &self,
        name: &str,
        others: [&Person; N],
    ) -> Chat {
        self.creates(
            json!({ "name": name, "chat_type": "Group", "members": ids_of(others).as_slice() }),
        )
        .await
    }

    pub(crate) async fn creates_private_channel<const N: usize>(
        &self,
        name: &str,
        others: [&Person; N],
    ) -> Chat {
        let members = ids_of(others).to_vec();
        let draft = json!({ "name": name, "chat_type": "PrivateChannel", "members": members });
        self.creates(draft).await
    }

    pub(crate) async fn creates_public_channel(&self, name: &str) -> Chat {
        self.creates(json!({ "name": name, "chat_type": "PublicChannel" })).await
    }

    pub(crate) async fn opens_single_with(&self, other: &Person) -> Chat {
        self.creates(json!({ "chat_type": "Single", "members": [other.id] })).await
    }

    async fn creates(&self, draft: Value) -> Chat {
        Chat::of(self.post("/api/chat", draft).await.expect(StatusCode::CREATED))
    }

    pub(crate) async fn joins(&self, chat: &Chat) {
        self.post(&chat.join, Value::Null).await.expect(StatusCode::OK);
    }

    pub(crate) async fn leaves(&self, chat: &Chat) {
        self.post(&chat.leave, Value::Null).await.expect(StatusCode::NO_CONTENT);
    }

    pub(crate) async fn adds<const N: usize>(&self, others: [&Person; N], chat: &Chat) {
        let ids = json!(ids_of(others).as_slice());
        self.post(&chat.members, ids).await.expect(StatusCode::CREATED);
    }

    pub(crate) async fn removes<const N: usize>(&self, others: [&Person; N], chat: &Chat) {
        let ids = json!(ids_of(others).as_slice());
        self.delete(&chat.members, ids).await.expect(StatusCode::NO_CONTENT);
    }

    pub(crate) async fn makes_admin(&self, other: &Person, chat: &Chat) {
        let role = json!({ "role": "admin" });
        self.patch(&chat.member(other.id), role).await.expect(StatusCode::OK);
    }

    pub(crate) async fn deletes(&self, chat: &Chat) {
        self.delete(&chat.path, Value::Null).await.expect(StatusCode::NO_CONTENT);
    }

    pub(crate) async fn sends(&self, chat: &Chat, content: &str) -> Value {
        let message = json!({ "content": content });
        self.post(&chat.messages, message).await.expect(StatusCode::CREATED)
    }

    /// Changes the text of a message.
    pub(crate) async fn edits(&self, chat: &Chat, message: &Value, content: &str) -> Value {
        let change = json!({ "content": content });
        self.patch(&chat.message(message), change).await.expect(StatusCode::OK)
    }

    pub(crate) async fn deletes_message(&self, chat: &Chat, message: &Value) {
        self.delete(&chat.message(message), Value::Null).await.expect(StatusCode::NO_CONTENT);
    }

    /// Adds a reaction, and returns all reactions to the message.
    pub(crate) async fn reacts(&self, chat: &Chat, message: &Value, emoji: &str) -> Value {
        let reply = self.put(&chat.reaction(message, emoji)).await;
        reply.expect(StatusCode::OK)["reactions"].clone()
    }

    /// Sends "1", "2", … up to the number, so that a message's content is its seq in a new chat.
    pub(crate) async fn counts_to(&self, last: i64, chat: &Chat) -> Vec<Value> {
        let mut sent = Vec::new();
        for number in 1..=last {
            sent.push(self.sends(chat, &number.to_string()).await);
        }
        sent
    }

    /// The chat in the person's list.
    pub(crate) async fn sidebar(&self, chat: &Chat) -> Value {
        let chats = self.get("/api/chat").await.expect(StatusCode::OK);
        let mut chats = chats.as_array().unwrap().iter();
        chats.find(|entry| entry["id"] == chat.id).cloned().unwrap()
    }

    /// The ids of the chat's members, oldest first.
    pub(crate) async fn members_of(&self, chat: &Chat) -> Vec<i64> {
        let members = self.get(&chat.members).await.expect(StatusCode::OK);
        members.as_array().unwrap().iter().map(|one| one["user_id"].as_i64().unwrap()).collect()
    }

    /// A person's role in the chat, where they are in it.
    pub(crate) async fn role_of(&self, person: &Person, chat: &Chat) -> Option<String> {
        let members = self.get(&chat.members).await.expect(StatusCode::OK);
        let mut members = members.as_array().unwrap().iter();
        let member = members.find(|member| member["user_id"] == person.id)?;
        Some(member["role"].as_str().unwrap().to_owned())
    }
}

impl Chat {
    /// The chat of this JSON.
    pub(crate) fn of(body: Value) -> Self {
        let id = body["id"].as_i64().unwrap();
        let path = format!("/api/chat/{id}");
        Self {
            id,
            members: format!("{path}/members"),
            messages: format!("{path}/messages"),
            join: format!("{path}/join"),
            leave: format!("{path}/leave"),
            path,
            body,
        }
    }

    /// Where one message is.
    pub(crate) fn message(&self, message: &Value) -> String {
        format!("{}/{}", self.messages, message["id"])
    }

    /// Where one's reaction to a message is.
    pub(crate) fn reaction(&self, message: &Value, emoji: &str) -> String {
        let bytes: Vec<_> = emoji.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let encoded = bytes.concat();
        format!("{}/reactions/{encoded}", self.message(message))
    }

    /// Where one member is.
    pub(crate) fn member(&self, user_id: i64) -> String {
        format!("{}/{user_id}", self.members)
    }
}

/// These people's ids.
pub(crate) fn ids_of<const N: usize>(people: [&Person; N]) -> [i64; N] {
    people.map(|person| person.id)
}
