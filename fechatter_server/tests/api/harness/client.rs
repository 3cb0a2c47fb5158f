//! An HTTP client with a caller's headers.

use std::net::SocketAddr;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::Reply;

/// No body at all.
pub(crate) const NOTHING: Value = Value::Null;

/// Calls one server, with the same headers each time.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    base: String,
    headers: HeaderMap,
    is_operator: bool,
}

impl Client {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let (http, base) = (reqwest::Client::new(), format!("http://{address}"));
        Self { http, address, base, headers: HeaderMap::new(), is_operator: false }
    }

    /// A client of the operations port, which is not a part of the documented API.
    pub(crate) fn of_operations(address: SocketAddr) -> Self {
        Self { is_operator: true, ..Self::of(address) }
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same client with one more header.
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        let value = HeaderValue::from_str(value).unwrap();
        client.headers.insert(HeaderName::from_static(name), value);
        client
    }

    /// The same client with this bearer token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The same client with this refresh token in its cookie.
    pub(crate) fn with_cookie(&self, refresh_token: &str) -> Self {
        self.with("cookie", &format!("theme=dark; refresh_token={refresh_token}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, NOTHING).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PATCH, path, body).await
    }

    pub(crate) async fn put(&self, path: &str) -> Reply {
        self.call(Method::PUT, path, NOTHING).await
    }

    pub(crate) async fn delete(&self, path: &str, body: Value) -> Reply {
        self.call(Method::DELETE, path, body).await
    }

    /// Sends JSON, or [`NOTHING`].
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Reply {
        let request = self.request(method, path);
        let request = if body.is_null() { request } else { request.json(&body) };
        if self.is_operator { Reply::to_operator(request).await } else { Reply::to(request).await }
    }

    /// Posts bytes that call themselves JSON.
    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.request(Method::POST, path);
        Reply::to(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// A request that is still to be finished.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone())
    }
}
