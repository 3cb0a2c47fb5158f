//! JSON bodies: strict in syntax and in shape, with errors that name the field.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::AppError;

/// The maximum depth of JSON; deeper JSON is refused.
const MAX_DEPTH: usize = 64;

/// A JSON object as the body, or a JSON response.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON object as the body, or an empty body.
#[derive(Debug)]
pub(crate) struct MaybeJson<T>(pub(crate) Option<T>);

/// A JSON array as the body, or an empty body.
#[derive(Debug)]
pub(crate) struct MaybeList<T>(pub(crate) Option<Vec<T>>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        let bytes = json_body(request, state).await?;
        parse(&bytes, b'{').map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MaybeJson<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        let bytes = json_body(request, state).await?;
        (!bytes.is_empty()).then(|| parse(&bytes, b'{')).transpose().map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MaybeList<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        let bytes = json_body(request, state).await?;
        (!bytes.is_empty()).then(|| parse(&bytes, b'[')).transpose().map(Self)
    }
}

impl<T: Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

/// Deserializes a field that may be absent but not null, because null in a PATCH means "clear".
pub(crate) fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A field that PATCH may leave (absent), clear (null) or set.
#[derive(Debug, Default)]
pub(crate) enum Change<T> {
    #[default]
    Leave,
    Clear,
    Set(T),
}

impl<T> Change<T> {
    /// Returns true if it changes nothing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Leave)
    }
}

/// An absent change must be left out.
impl<T: Serialize> Serialize for Change<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leave | Self::Clear => serializer.serialize_none(),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::deserialize(deserializer)?;
        Ok(value.map_or(Self::Clear, Self::Set))
    }
}

async fn json_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, AppError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let is_json = essence.trim().eq_ignore_ascii_case("application/json");
    let bytes = Bytes::from_request(request, state).await;
    let bytes = bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => AppError::TooLarge("the body is too large"),
        _ => AppError::invalid("body", "cannot be read"),
    })?;
    // An empty body needs no content type.
    if is_json || bytes.is_empty() { Ok(bytes) } else { Err(AppError::UnsupportedMediaType) }
}

/// Parses a body that must open with this bracket, because serde also accepts an array for a
/// struct.
fn parse<T: DeserializeOwned>(bytes: &[u8], opening: u8) -> Result<T, AppError> {
    if depth(bytes) > MAX_DEPTH {
        return Err(AppError::MalformedJson("nested too deeply"));
    }
    if !bytes.trim_ascii_start().starts_with(&[opening]) {
        return Err(match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(_) => AppError::invalid("body", "has the wrong shape"),
            Err(_) => AppError::MalformedJson("not valid JSON in UTF-8"),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    match (parsed, deserializer.end()) {
        (Ok(value), Ok(())) => Ok(value),
        // Invalid JSON is reported as such, even if a wrong shape was found before the error.
        (Err(error), _) if serde_json::from_slice::<serde_json::Value>(bytes).is_ok() => {
            let path = error.path().to_string();
            let issue = error.into_inner().to_string();
            let issue = issue.split(" at line ").next().unwrap_or_default();
            Err(AppError::invalid(if path == "." { "body" } else { &path }, issue))
        }
        _ => Err(AppError::MalformedJson("not valid JSON in UTF-8")),
    }
}

/// Returns the nesting depth of arrays and objects, without parsing.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_are_not_depth() {
        assert_eq!(depth(br#"{"a": "[[[[\"[[", "b": [[1]]}"#), 3);
    }
}
