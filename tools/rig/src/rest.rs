//! People's calls to the REST API.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use contract::{Checked, Fault};
use fechatter_core::{ChatId, SessionId, UserId, WorkspaceId};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::keep_alive::request;

/// Of a request that took too long nobody knows what became of it, and one that came too soon may come again.
const MAY_YET_BE: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];

/// Everybody's who has [signed up](Rest::sign_up).
pub const PASSWORD: &str = "correct horse battery staple";

/// The way to every `fechatter_server`.
#[derive(Debug, Clone)]
pub struct Rest {
    client: Client,
    servers: Arc<[SocketAddr]>,
    /// Said in `X-Forwarded-For`, which counts where the servers trust us as a proxy.
    address: Option<IpAddr>,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It was done.
    Ok {
        /// The body; null if there is none.
        body: Value,
        /// It had been done before, under the same key.
        replayed: bool,
    },
    /// It was not done and never will be.
    Refused {
        /// A 4xx that is final.
        status: StatusCode,
        /// The error's stable name.
        kind: String,
    },
    /// It was done, or not, or still will be: there was no answer, or the server is not able to serve at the moment.
    Unknown(String),
    /// The same, but the server calls it a fault of its own (500), which it never should.
    Fault(String),
}

/// A signed-in person, who calls one of the servers.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Person {
    pub id: UserId,
    pub workspace_id: WorkspaceId,
    pub session_id: SessionId,
    pub token: Arc<str>,
    /// Which of the servers to call; any number will do.
    pub server: usize,
    pub rest: Rest,
}

impl Rest {
    pub(crate) fn new(client: Client, servers: Arc<[SocketAddr]>) -> Self {
        Self { client, servers, address: None }
    }

    /// The same calls on behalf of somebody at this address, where the servers take us for a proxy.
    #[must_use]
    pub fn on_behalf_of(&self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self.clone() }
    }

    /// The same calls by another way: through proxies, or to some of the servers only.
    #[must_use]
    pub fn through(&self, servers: Arc<[SocketAddr]>) -> Self {
        Self { servers, ..self.clone() }
    }

    /// Which server a number means.
    #[must_use]
    pub fn index(&self, server: usize) -> usize {
        server % self.servers.len()
    }

    /// Calls the server of this number with a bearer token, if there is one.
    pub async fn call(
        &self,
        server: usize,
        token: Option<&str>,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Answer {
        let server = self.servers[self.index(server)];
        let mut request = self.client.request(method.clone(), format!("http://{server}{path}"));
        if let Some(address) = self.address {
            request = request.header("x-forwarded-for", address.to_string());
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => Answer::read(response, &method).await,
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }

    /// Creates an account in the workspace of this name, which comes into being with its first person.
    pub async fn sign_up(&self, server: usize, name: &str, workspace: &str) -> Answer {
        let body = json!({
            "fullname": name, "email": format!("{name}-{}@rig.test", Uuid::new_v4().simple()),
            "password": PASSWORD, "workspace": workspace,
        });
        self.call(server, None, (Method::POST, "/api/signup"), Some(&body)).await
    }

    /// Makes so many accounts, and tells the [`request`] that signs each of them in.
    ///
    /// # Errors
    /// When nobody can sign up.
    pub async fn accounts(&self, count: usize) -> Result<Vec<String>> {
        let mut requests = Vec::new();
        for number in 0..count {
            let answer = self.sign_up(0, &format!("door{number}"), "doors").await;
            let body = answer.ok().context("nobody can sign up")?;
            let body = json!({ "email": body["user"]["email"], "password": PASSWORD });
            requests.push(request("POST /api/signin", &[], &body.to_string()));
        }
        Ok(requests)
    }

    /// Exchanges a refresh token.
    pub async fn refresh(&self, server: usize, refresh_token: &str) -> Answer {
        self.call(server, Some(refresh_token), (Method::POST, "/api/refresh"), None).await
    }

    /// The person that an answer to [`sign_up`](Self::sign_up) or [`refresh`](Self::refresh) speaks of.
    #[must_use]
    pub fn person(&self, authenticated: &Value) -> Option<Person> {
        Some(Person {
            id: UserId(authenticated["user"]["id"].as_i64()?),
            workspace_id: WorkspaceId(authenticated["user"]["workspace_id"].as_i64()?),
            session_id: SessionId(authenticated["session_id"].as_str()?.parse().ok()?),
            token: authenticated["access_token"].as_str()?.into(),
            server: 0,
            rest: self.clone(),
        })
    }
}

impl Answer {
    /// Reads an answer. An undocumented answer is a fault of the server.
    async fn read(response: reqwest::Response, method: &Method) -> Self {
        let checked = match Checked::read(method, response).await {
            Ok(checked) => checked,
            Err(Fault::Connection(error)) => return Self::Unknown(error.to_string()),
            Err(Fault::Undocumented(difference)) => return Self::Fault(difference),
        };
        let (status, body) = (checked.status, checked.json());
        let replayed = checked.headers.contains_key("idempotency-replayed");
        if status.is_success() {
            Self::Ok { body, replayed }
        } else if status.is_client_error() && !MAY_YET_BE.contains(&status) {
            let kind = body["type"].as_str().unwrap_or_default().to_owned();
            Self::Refused { status, kind }
        } else if status == StatusCode::INTERNAL_SERVER_ERROR {
            Self::Fault(body.to_string())
        } else {
            Self::Unknown(format!("{status}: {body}"))
        }
    }

    /// The body, if it was done.
    #[must_use]
    pub fn ok(self) -> Option<Value> {
        match self {
            Self::Ok { body, .. } => Some(body),
            _ => None,
        }
    }
}

impl Person {
    /// Calls the person's server.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.rest.call(self.server, Some(&self.token), (method, path), body).await
    }

    /// The same person at the server of this number.
    #[must_use]
    pub fn at(&self, server: usize) -> Self {
        Self { server, ..self.clone() }
    }

    /// A [`request`] of theirs, for a connection of one's own.
    #[must_use]
    pub fn request(&self, line: &str, body: &str) -> String {
        self.request_with(line, &[], body)
    }

    /// The same with more headers.
    #[must_use]
    pub fn request_with(&self, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let bearer = format!("Bearer {}", self.token);
        request(line, &[&[("authorization", &*bearer)], headers].concat(), body)
    }

    /// A [`request`] that says something in a chat. The content must need no escaping in JSON.
    #[must_use]
    pub fn message(&self, chat: ChatId, content: &str, key: Uuid) -> String {
        let body = format!(r#"{{"content":"{content}","idempotency_key":"{key}"}}"#);
        self.request(&format!("POST /api/chat/{chat}/messages"), &body)
    }

    /// Says something in a chat, under a key that makes it safe to say it again.
    pub async fn send(&self, chat: ChatId, content: &str, key: Uuid) -> Answer {
        let body = json!({ "content": content, "idempotency_key": key });
        self.call(Method::POST, &format!("/api/chat/{chat}/messages"), Some(&body)).await
    }

    /// Opens a chat with others.
    pub async fn create_chat(&self, kind: &str, name: &str, others: &[UserId]) -> Answer {
        let body = json!({ "chat_type": kind, "name": name, "members": others });
        self.call(Method::POST, "/api/chat", Some(&body)).await
    }

    /// Adds somebody to a chat.
    pub async fn add(&self, chat: ChatId, user: UserId) -> Answer {
        self.call(Method::POST, &format!("/api/chat/{chat}/members"), Some(&json!([user]))).await
    }

    /// Removes somebody from a chat.
    pub async fn remove(&self, chat: ChatId, user: UserId) -> Answer {
        self.call(Method::DELETE, &format!("/api/chat/{chat}/members"), Some(&json!([user]))).await
    }

    /// Ends the person's session.
    pub async fn log_out(&self) -> Answer {
        self.call(Method::POST, "/api/logout", None).await
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").field("id", &self.id).finish_non_exhaustive()
    }
}
