//! Checks the servers' HTTP responses and stream events against `docs/openapi.json`. The clients of
//! the tests call it. An object must have all required fields and no undocumented ones.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use jsonschema::{Draft, Validator};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

const TEXT: &str = include_str!("../../../docs/openapi.json");

/// An HTTP response, with the method and path of its request.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Answer<'a> {
    pub method: &'a str,
    /// With or without a query.
    pub path: &'a str,
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a str,
}

/// Checks a response: the operation must document its status, the content type and the body must be
/// as documented, and the type of an error must be one of the operation's.
///
/// # Errors
/// If the response is not as documented. The error describes the difference.
pub fn check(answer: &Answer<'_>) -> Result<(), String> {
    let document = document();
    let path = answer.path.split(['?', '#']).next().unwrap_or_default();
    let method = match answer.method {
        "HEAD" => "get".to_owned(),
        other => other.to_lowercase(),
    };
    // Browsers' preflights, and the operations port, are not a part of the contract.
    if method == "options" || ["/healthz", "/readyz", "/metrics"].contains(&path) {
        return Ok(());
    }
    let template = template(document, path);
    let operation = template.and_then(|template| document["paths"][template].get(&method));
    let Some(operation) = operation else {
        return check_error_body(answer)
            .map_err(|error| format!("(the operation is not documented) {error}"));
    };
    let status = answer.status.to_string();
    let key = format!("/paths/{}/{method}", escape(template.unwrap_or_default()));
    let response = operation["responses"].get(&status);
    let response = response.ok_or_else(|| format!("{status} is not documented for {key}"))?;
    let (response, pointer) = match response["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.trim_start_matches('#').to_owned();
            (document.pointer(&pointer).unwrap_or(&Value::Null), pointer)
        }
        None => (response, format!("{key}/responses/{status}")),
    };
    if answer.method == "HEAD" {
        return Ok(());
    }
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        return if answer.body.is_empty() {
            Ok(())
        } else {
            Err("the body is not documented".into())
        };
    };
    let kind = answer.content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !content.contains_key(kind) {
        return Err(format!("the content type {kind:?} is not documented for {pointer}"));
    }
    let body = serde_json::from_str(answer.body).map_err(|error| error.to_string())?;
    check_value(&format!("{pointer}/content/{}/schema", escape(kind)), &body)?;
    let types = response["x-error-types"].as_array();
    if types.is_some_and(|types| !types.contains(&body["type"])) {
        return Err(format!("the type {} is not documented for {pointer}", body["type"]));
    }
    Ok(())
}

/// A whole response that is as documented.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Checked {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// The reason why there is no [`Checked`] response.
#[derive(Debug)]
pub enum Fault {
    /// The connection broke before the end of the body.
    Connection(reqwest::Error),
    /// The response is not as documented.
    Undocumented(String),
}

impl Checked {
    /// Reads the whole response to a request of this method, and checks it.
    ///
    /// # Errors
    /// If the connection breaks, or the response is not as documented.
    pub async fn read(method: &Method, response: reqwest::Response) -> Result<Self, Fault> {
        let (status, headers) = (response.status(), response.headers().clone());
        let path = response.url().path().to_owned();
        let text = response.text().await.map_err(Fault::Connection)?;
        let answer = Answer {
            method: method.as_str(),
            path: &path,
            status: status.as_u16(),
            content_type: headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()),
            body: &text,
        };
        check(&answer).map_err(|difference| {
            Fault::Undocumented(format!("{method} {path}: {difference}\n{text}"))
        })?;
        Ok(Self { status, headers, text })
    }

    /// Returns the body, or null if it is empty or not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Checks the `data` of an event, which contains the event's name.
///
/// # Errors
/// If the event is not as documented. The error describes the difference.
pub fn check_event(data: &str) -> Result<(), String> {
    let event = serde_json::from_str(data).map_err(|error| error.to_string())?;
    check_value("/components/schemas/StreamEvent", &event)
}

/// Returns `docs/openapi.json`.
#[must_use]
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(TEXT).unwrap_or_default());
    &DOCUMENT
}

/// Returns the operations of `fechatter_server`: path, method in lower case, and description.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let items = document["paths"].as_object().into_iter().flatten();
    let items = items.filter(|(_, item)| item.get("servers").is_none());
    items.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Returns the names of all events that a stream can send.
#[must_use]
pub fn event_names() -> Vec<String> {
    let mut names = Vec::new();
    collect_event_names(&document()["components"]["schemas"]["StreamEvent"], &mut names);
    names.sort_unstable();
    names
}

fn collect_event_names(schema: &Value, names: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document().pointer(reference.trim_start_matches('#'));
        collect_event_names(target.unwrap_or(&Value::Null), names);
    }
    let name = &schema["properties"]["event"]["enum"][0];
    names.extend(name.as_str().map(ToOwned::to_owned));
    for part in ["oneOf", "allOf"].iter().filter_map(|key| schema[key].as_array()).flatten() {
        collect_event_names(part, names);
    }
}

/// Checks the response to a request whose path or method is not in the document: it must be an error.
fn check_error_body(answer: &Answer<'_>) -> Result<(), String> {
    if answer.status < 400 {
        return Err(format!("the status {} is not an error", answer.status));
    }
    if answer.method == "HEAD" {
        return Ok(());
    }
    let body = serde_json::from_str(answer.body).map_err(|error| error.to_string())?;
    check_value("/components/schemas/ErrorBody", &body)
}

fn check_value(pointer: &str, value: &Value) -> Result<(), String> {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
        LazyLock::new(Mutex::default);
    let known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner).get(pointer).copied();
    let validator = if let Some(validator) = known {
        validator
    } else {
        // Kept until the process ends, as there are few of them.
        let validator: &'static Validator = Box::leak(Box::new(compile_schema(pointer)?));
        let mut all = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(pointer.to_owned(), validator);
        validator
    };
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| {
            let at = error.instance_path().to_string();
            format!("{}: {error}", if at.is_empty() { "the body" } else { &at })
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(format!("{}\n(schema: {pointer})", errors.join("\n")))
    }
}

/// Compiles the schema at a JSON pointer of the document.
fn compile_schema(pointer: &str) -> Result<Validator, String> {
    static STRICT_DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| forbid_undocumented_properties(document().clone()));
    let mut root = STRICT_DOCUMENT.as_object().cloned().unwrap_or_default();
    root.insert("$ref".into(), json!(format!("#{}", encode_fragment(pointer))));
    let options = jsonschema::options().with_draft(Draft::Draft202012);
    let options = options.should_validate_formats(true);
    options.build(&Value::Object(root)).map_err(|error| error.to_string())
}

/// Forbids properties that a schema of the document does not describe. The parts of an `allOf` are
/// left as they are, because each of them describes only some of the properties.
fn forbid_undocumented_properties(mut document: Value) -> Value {
    forbid_in_subschemas(&mut document);
    document
}

fn forbid_in_subschemas(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forbid_in_subschemas),
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                match (key.as_str(), &mut *inner) {
                    ("properties", Value::Object(properties)) => {
                        properties.values_mut().for_each(forbid_in_schema);
                    }
                    ("items" | "schema", schema) => forbid_in_schema(schema),
                    ("oneOf", Value::Array(schemas)) => {
                        schemas.iter_mut().for_each(forbid_in_schema);
                    }
                    ("allOf", Value::Array(schemas)) => {
                        schemas.iter_mut().for_each(forbid_in_subschemas);
                    }
                    _ => forbid_in_subschemas(inner),
                }
            }
        }
        _ => {}
    }
}

fn forbid_in_schema(schema: &mut Value) {
    forbid_in_subschemas(schema);
    if let Some(schema) = schema.as_object_mut().filter(|schema| describes_objects(schema)) {
        schema.insert("unevaluatedProperties".into(), json!(false));
    }
}

fn describes_objects(schema: &Map<String, Value>) -> bool {
    ["$ref", "properties", "allOf"].iter().any(|key| schema.contains_key(*key))
}

/// Returns the documented path template that matches a request's path. If several match, returns the
/// one with the fewest parameters.
fn template<'a>(document: &'a Value, path: &str) -> Option<&'a str> {
    let templates = document["paths"].as_object()?.keys().map(String::as_str);
    let matching = templates.filter(|template| {
        let (mut want, mut have) = (template.split('/'), path.split('/'));
        loop {
            match (want.next(), have.next()) {
                (None, None) => return true,
                (Some(want), Some(have)) if want == have => {}
                (Some(want), Some(have)) if want.starts_with('{') && !have.is_empty() => {}
                _ => return false,
            }
        }
    });
    matching.min_by_key(|template| template.matches('{').count())
}

/// Encodes a JSON pointer as the fragment of a URI, which cannot contain braces (RFC 3986).
fn encode_fragment(pointer: &str) -> String {
    pointer.replace('{', "%7B").replace('}', "%7D")
}

/// Escapes a key for a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_FOUND: &str =
        r#"{"code":404,"error":"there is no such thing here","type":"not_found","request_id":"1"}"#;

    fn answer(path: &str, status: u16, body: &str) -> Result<(), String> {
        let content_type = Some("application/json");
        check(&Answer { method: "GET", path, status, content_type, body })
    }

    #[test]
    fn every_operation_is_found_by_a_request() {
        for (path, item) in document()["paths"].as_object().unwrap() {
            assert!(item.is_object());
            let request: Vec<_> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "7" } else { part })
                .collect();
            assert_eq!(template(document(), &request.join("/")), Some(path.as_str()));
        }
    }

    #[test]
    fn documented_errors_pass_and_others_do_not() {
        assert_eq!(answer("/api/chat/7", 404, NOT_FOUND), Ok(()));
        let undocumented = NOT_FOUND.replace("not_found", "lost");
        assert!(answer("/api/chat/7", 404, &undocumented).is_err());
        assert!(answer("/api/chat/7", 418, NOT_FOUND).is_err());
        assert!(answer("/api/chat/7", 404, &NOT_FOUND.replace("\"code\":404,", "")).is_err());
    }

    #[test]
    fn undocumented_fields_are_refused() {
        let member = r#"{"event":"MemberUpdated","chat_id":1,"user_id":2,"role":"admin",
                         "joined_at":"2026-01-31T12:00:00.000Z"}"#;
        assert_eq!(check_event(member), Ok(()));
        assert!(check_event(&member.replace("chat_id", "room_id")).is_err());
        assert!(check_event(&member.replace('}', r#","extra":1}"#)).is_err());
        assert!(check_event(&member.replace("MemberUpdated", "MemberGone")).is_err());
        assert!(check_event(&member.replace("12:00", "noon")).is_err());
    }
}
