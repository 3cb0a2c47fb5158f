//! An answer, its form already checked.

use std::fmt;

use contract::Answer;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, StatusCode};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    request: String,
    method: String,
    path: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// Sends the request. Every answer must bear the shared headers and be as documented.
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        let reply = Self::to_operator(request).await;
        reply.check_contract();
        reply
    }

    /// Sends the request. Every answer must bear the shared headers, every error the one form.
    pub(crate) async fn to_operator(request: RequestBuilder) -> Self {
        let (http, request) = request.build_split();
        let request = request.unwrap();
        let path = request.url().to_string().chars().take(200).collect::<String>();
        let name = format!("{} {path}", request.method());
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let response =
            http.execute(request).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let reply = Self { request: name, method, path, status, headers, text };
        reply.check();
        reply
    }

    /// The body, where the status is the expected one.
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}\n{}", self.request, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The error, where it has the expected status and type.
    #[track_caller]
    pub(crate) fn refuses(&self, status: StatusCode, kind: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["type"], kind, "{}\n{}", self.request, self.text);
        body
    }

    /// The error without what differs from request to request.
    pub(crate) fn without_id(&self) -> Value {
        let mut body = self.json();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("request_id");
        }
        body
    }

    /// The body with its keys in the order they came in.
    pub(crate) fn ordered(&self) -> Ordered {
        serde_json::from_str(&self.text).unwrap()
    }

    /// A header's value, where there is one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.text);
        parsed.unwrap_or_else(|_| panic!("{} answered no JSON: {}", self.request, self.text))
    }

    fn check_contract(&self) {
        let Self { request, status, .. } = self;
        let answer = Answer {
            method: &self.method,
            path: &self.path,
            status: status.as_u16(),
            content_type: self.header("content-type"),
            body: &self.text,
        };
        if let Err(difference) = contract::check(&answer) {
            panic!("{request}: {difference}\n{}", self.text);
        }
    }

    fn check(&self) {
        let Self { request, status, .. } = self;
        let id = self.header("x-request-id").unwrap_or_else(|| panic!("{request}: no id"));
        let took = self.header("x-server-time").and_then(|took| took.strip_suffix("us"));
        let took = took.and_then(|took| took.parse::<u64>().ok());
        assert!(took.is_some(), "{request}: no x-server-time");
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        assert_eq!(self.header(CONTENT_TYPE.as_str()), Some("application/json"), "{request}");
        let body = self.json();
        let mut keys: Vec<_> = body.as_object().unwrap().keys().collect();
        keys.retain(|key| *key != "details");
        assert_eq!(keys, ["code", "error", "request_id", "type"], "{request}: {body}");
        assert_eq!(body["code"], status.as_u16(), "{request}: {body}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{request}: {body}");
        let kind = body["type"].as_str().unwrap();
        let snake = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(kind.bytes().all(snake), "{request}: {body}");
        assert_eq!(body["request_id"], id, "{request}: {body}");
        if let Some(details) = body.get("details") {
            for detail in details.as_array().unwrap() {
                assert!(detail["field"].is_string() && detail["issue"].is_string(), "{body}");
            }
        }
        let bearer = self.header(WWW_AUTHENTICATE.as_str());
        assert_eq!(bearer, (*status == StatusCode::UNAUTHORIZED).then_some("Bearer"), "{request}");
        if matches!(status.as_u16(), 429 | 503) {
            let wait = self.header(RETRY_AFTER.as_str()).and_then(|wait| wait.parse::<u32>().ok());
            assert!(wait.is_some_and(|wait| wait >= 1), "{request}: {wait:?}");
        }
        let refused_method = *status == StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(self.headers.contains_key(ALLOW), refused_method, "{request}");
    }
}

/// The `seq` of each message of a page.
pub(crate) fn seqs(page: &Value) -> Vec<i64> {
    page.as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

/// JSON whose keys keep their order.
#[derive(Debug)]
pub(crate) enum Ordered {
    Object(Vec<(String, Ordered)>),
    Array(Vec<Ordered>),
    Plain(Value),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OrderedVisitor)
    }
}

struct OrderedVisitor;

impl<'de> Visitor<'de> for OrderedVisitor {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Ordered::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Ordered::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Plain(Value::Null))
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Array(items) => items.serialize(serializer),
            Self::Plain(value) => value.serialize(serializer),
        }
    }
}
