//! A client of the REST API that calls it on behalf of test users.

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

/// The 4xx statuses that are not a final refusal. After 408, it is unknown whether the request was
/// executed. After 429, the request can be repeated.
const NON_FINAL_STATUSES: [StatusCode; 2] =
    [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];

/// The password of every account that [`Rest::sign_up`] creates.
pub const PASSWORD: &str = "correct horse battery staple";

/// An HTTP client for all `fechatter_server` processes.
#[derive(Debug, Clone)]
pub struct Rest {
    client: Client,
    servers: Arc<[SocketAddr]>,
    /// The client address that is sent in `X-Forwarded-For`. It has an effect only if the servers
    /// trust this host as a proxy.
    address: Option<IpAddr>,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The request succeeded.
    Ok {
        /// The JSON body, or null if there is none.
        body: Value,
        /// True if the server returned the result of an earlier request with the same idempotency
        /// key.
        replayed: bool,
    },
    /// The server refused the request, and did not and will not execute it.
    Refused {
        /// The status, a 4xx except 408 and 429.
        status: StatusCode,
        /// The stable name of the error: the field `type` of the body.
        kind: String,
    },
    /// It is unknown whether the request was executed, or still will be: there was no response, or
    /// the status was 408, 429 or a 5xx other than 500.
    Unknown(String),
    /// A bug of the server: a 500, or a response that the API document does not allow. It is
    /// unknown whether the request was executed.
    ServerBug(String),
}

/// A user with a session, who calls one of the servers.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Person {
    pub id: UserId,
    pub workspace_id: WorkspaceId,
    pub session_id: SessionId,
    pub token: Arc<str>,
    /// The index of the server to call, modulo the number of servers.
    pub server: usize,
    pub rest: Rest,
}

impl Rest {
    pub(crate) fn new(client: Client, servers: Arc<[SocketAddr]>) -> Self {
        Self { client, servers, address: None }
    }

    /// Returns a copy that sends this client address in `X-Forwarded-For`. The servers use it only
    /// if they trust this host as a proxy.
    #[must_use]
    pub fn on_behalf_of(&self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self.clone() }
    }

    /// Returns a copy that calls these addresses instead, for example proxies or only some of the
    /// servers.
    #[must_use]
    pub fn with_servers(&self, servers: Arc<[SocketAddr]>) -> Self {
        Self { servers, ..self.clone() }
    }

    /// Returns `server` modulo the number of servers.
    #[must_use]
    pub fn server_index(&self, server: usize) -> usize {
        server % self.servers.len()
    }

    /// Sends a request to the server with this [index](Self::server_index). If there is a `token`,
    /// it is sent as the bearer token.
    pub async fn call(
        &self,
        server: usize,
        token: Option<&str>,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Answer {
        let server = self.servers[self.server_index(server)];
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

    /// Creates an account in the workspace of this name. The first account creates the workspace.
    pub async fn sign_up(&self, server: usize, name: &str, workspace: &str) -> Answer {
        let body = json!({
            "fullname": name, "email": format!("{name}-{}@rig.test", Uuid::new_v4().simple()),
            "password": PASSWORD, "workspace": workspace,
        });
        self.call(server, None, (Method::POST, "/api/signup"), Some(&body)).await
    }

    /// Creates `count` accounts and returns, for each of them, the raw HTTP [`request`] that signs
    /// it in.
    ///
    /// # Errors
    /// When an account cannot be created.
    pub async fn create_accounts_for_sign_in(&self, count: usize) -> Result<Vec<String>> {
        let mut requests = Vec::new();
        for number in 0..count {
            let answer = self.sign_up(0, &format!("user{number}"), "sign-in-test").await;
            let body = answer.ok().context("cannot create an account")?;
            let body = json!({ "email": body["user"]["email"], "password": PASSWORD });
            requests.push(request("POST /api/signin", &[], &body.to_string()));
        }
        Ok(requests)
    }

    /// Exchanges a refresh token for new tokens.
    pub async fn refresh(&self, server: usize, refresh_token: &str) -> Answer {
        self.call(server, Some(refresh_token), (Method::POST, "/api/refresh"), None).await
    }

    /// Returns the person in the response body of [`sign_up`](Self::sign_up) or
    /// [`refresh`](Self::refresh).
    #[must_use]
    pub fn person(&self, body: &Value) -> Option<Person> {
        Some(Person {
            id: UserId(body["user"]["id"].as_i64()?),
            workspace_id: WorkspaceId(body["user"]["workspace_id"].as_i64()?),
            session_id: SessionId(body["session_id"].as_str()?.parse().ok()?),
            token: body["access_token"].as_str()?.into(),
            server: 0,
            rest: self.clone(),
        })
    }
}

impl Answer {
    /// Reads a response and compares it with the API document.
    async fn read(response: reqwest::Response, method: &Method) -> Self {
        let checked = match Checked::read(method, response).await {
            Ok(checked) => checked,
            Err(Fault::Connection(error)) => return Self::Unknown(error.to_string()),
            Err(Fault::Undocumented(difference)) => return Self::ServerBug(difference),
        };
        let (status, body) = (checked.status, checked.json());
        let replayed = checked.headers.contains_key("idempotency-replayed");
        if status.is_success() {
            Self::Ok { body, replayed }
        } else if status.is_client_error() && !NON_FINAL_STATUSES.contains(&status) {
            let kind = body["type"].as_str().unwrap_or_default().to_owned();
            Self::Refused { status, kind }
        } else if status == StatusCode::INTERNAL_SERVER_ERROR {
            Self::ServerBug(body.to_string())
        } else {
            Self::Unknown(format!("{status}: {body}"))
        }
    }

    /// Returns the body if the request succeeded.
    #[must_use]
    pub fn ok(self) -> Option<Value> {
        match self {
            Self::Ok { body, .. } => Some(body),
            _ => None,
        }
    }
}

impl Person {
    /// Sends a request to the person's server.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.rest.call(self.server, Some(&self.token), (method, path), body).await
    }

    /// Returns a copy of this person that calls the server with this [index](Rest::server_index).
    #[must_use]
    pub fn at(&self, server: usize) -> Self {
        Self { server, ..self.clone() }
    }

    /// Builds a raw HTTP [`request`] with this person's token, to be written to a connection that
    /// the caller opened.
    #[must_use]
    pub fn raw_request(&self, line: &str, body: &str) -> String {
        self.raw_request_with_headers(line, &[], body)
    }

    /// Like [`raw_request`](Self::raw_request), with additional headers.
    #[must_use]
    pub fn raw_request_with_headers(
        &self,
        line: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let bearer = format!("Bearer {}", self.token);
        request(line, &[&[("authorization", &*bearer)], headers].concat(), body)
    }

    /// Builds a raw HTTP [`request`] that sends a message. `content` must not contain characters
    /// that JSON escapes.
    #[must_use]
    pub fn raw_send_message_request(&self, chat: ChatId, content: &str, key: Uuid) -> String {
        let body = format!(r#"{{"content":"{content}","idempotency_key":"{key}"}}"#);
        self.raw_request(&format!("POST /api/chat/{chat}/messages"), &body)
    }

    /// Sends a message. `key` is the idempotency key, so the call can be repeated.
    pub async fn send(&self, chat: ChatId, content: &str, key: Uuid) -> Answer {
        let body = json!({ "content": content, "idempotency_key": key });
        self.call(Method::POST, &format!("/api/chat/{chat}/messages"), Some(&body)).await
    }

    /// Uploads a file.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> Answer {
        let request = self.rest.client.post(format!("http://{}/api/upload", self.address()));
        let request = request.bearer_auth(&self.token).header("x-file-name", name).body(bytes);
        match request.send().await {
            Ok(response) => Answer::read(response, &Method::POST).await,
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }

    /// Downloads a file that an upload has stored at this URL, if the server has it.
    pub async fn download(&self, url: &str) -> Option<Vec<u8>> {
        let request = self.rest.client.get(format!("http://{}/api{url}", self.address()));
        let response = request.bearer_auth(&self.token).send().await.ok()?;
        let response = response.error_for_status().ok()?;
        Some(response.bytes().await.ok()?.into())
    }

    /// The address of the person's server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.rest.servers[self.rest.server_index(self.server)]
    }

    /// Creates a chat with these other members.
    pub async fn create_chat(&self, kind: &str, name: &str, others: &[UserId]) -> Answer {
        let body = json!({ "chat_type": kind, "name": name, "members": others });
        self.call(Method::POST, "/api/chat", Some(&body)).await
    }

    /// Adds a user to a chat.
    pub async fn add(&self, chat: ChatId, user: UserId) -> Answer {
        self.call(Method::POST, &format!("/api/chat/{chat}/members"), Some(&json!([user]))).await
    }

    /// Removes a user from a chat.
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
