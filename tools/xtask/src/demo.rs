//! `cargo xtask run --demo`: people and a conversation to look at. Adding them twice changes nothing.

use anyhow::{Context, Result, bail};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const PASSWORD: &str = "demo-fechatter";
const PEOPLE: [&str; 3] = ["Alice", "Bob", "Charlie"];
const CHAT: &str = "Lunch";

/// Who says what, by place in [`PEOPLE`]. The position in this list makes each line's idempotency key.
const MESSAGES: [(usize, &str); 5] = [
    (0, "Is anyone up for lunch at noon?"),
    (1, "Yes! Noodles again?"),
    (2, "Only if we try the new place by the river."),
    (0, "The new place it is. Meet you downstairs."),
    (1, "On my way 🍜"),
];

/// A person who is signed in.
struct Person {
    id: i64,
    token: String,
}

/// Adds the demo and says who can sign in.
pub(crate) async fn add(client: &Client, server: &str) -> Result<String> {
    let mut people = Vec::new();
    for name in PEOPLE {
        people.push(person(client, server, name).await.with_context(|| name.to_owned())?);
    }
    let chat = chat(client, server, &people).await.context("the demo's chat")?;
    for (number, (sender, content)) in MESSAGES.iter().enumerate() {
        // The server answers a repeated key with the message that is there.
        let key = format!("00000000-0000-4000-8000-{number:012}");
        let message = json!({ "content": content, "idempotency_key": key });
        let url = format!("{server}/api/chat/{chat}/messages");
        answer(client.post(url).bearer_auth(&people[*sender].token).json(&message)).await?;
    }
    let emails = PEOPLE.map(email).join(", ");
    Ok(format!("Workspace Acme has {emails}; the password of each is {PASSWORD}.\n"))
}

async fn person(client: &Client, server: &str, name: &str) -> Result<Person> {
    let email = email(name);
    let draft =
        json!({ "fullname": name, "email": email, "password": PASSWORD, "workspace": "Acme" });
    let signup = client.post(format!("{server}/api/signup")).json(&draft).send().await?;
    let account = if signup.status() == StatusCode::CONFLICT {
        let credentials = json!({ "email": email, "password": PASSWORD, "workspace": "Acme" });
        answer(client.post(format!("{server}/api/signin")).json(&credentials)).await?
    } else {
        body(signup).await?
    };
    let id = account["user"]["id"].as_i64().context("an account without an id")?;
    let token = account["access_token"].as_str().context("an account without a token")?;
    Ok(Person { id, token: token.to_owned() })
}

/// The chat's id.
async fn chat(client: &Client, server: &str, people: &[Person]) -> Result<i64> {
    let url = format!("{server}/api/chat");
    let owner = &people[0];
    let chats = answer(client.get(&url).bearer_auth(&owner.token)).await?;
    let known = chats.as_array().and_then(|chats| chats.iter().find(|chat| chat["name"] == CHAT));
    if let Some(id) = known.and_then(|chat| chat["id"].as_i64()) {
        return Ok(id);
    }
    let members: Vec<_> = people.iter().map(|person| person.id).collect();
    let draft = json!({ "name": CHAT, "chat_type": "Group", "members": members });
    let chat = answer(client.post(&url).bearer_auth(&owner.token).json(&draft)).await?;
    chat["id"].as_i64().context("a chat without an id")
}

fn email(name: &str) -> String {
    format!("{}@acme.test", name.to_lowercase())
}

async fn answer(request: RequestBuilder) -> Result<Value> {
    body(request.send().await?).await
}

async fn body(response: reqwest::Response) -> Result<Value> {
    let (status, url) = (response.status(), response.url().clone());
    let body = response.text().await?;
    if !status.is_success() {
        bail!("{url} answered {status}: {body}");
    }
    Ok(serde_json::from_str(&body)?)
}
