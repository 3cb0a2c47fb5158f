//! Query parameters: typed, with errors that name the parameter.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::error::AppError;

/// The parsed query string; wrong values are refused with 400.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let issue = error.into_inner().to_string();
            AppError::invalid(if path == "." { "query" } else { &path }, &issue)
        })
    }
}

/// A decimal integer ≥ 0 of at most 63 bits, without a sign.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Number(pub(crate) i64);

impl TryFrom<String> for Number {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        parse_number(&text).map(Self).ok_or("must be a number ≥ 0")
    }
}

/// Parses a decimal integer ≥ 0 of at most 63 bits, without a sign.
pub(crate) fn parse_number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A single id.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
#[serde(bound(deserialize = "T: FromStr"))]
pub(crate) struct OneId<T>(pub(crate) T);

impl<T: FromStr> TryFrom<String> for OneId<T> {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse().map(Self).map_err(|_| "must be an id")
    }
}

/// Ids that are separated by commas.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
#[serde(bound(deserialize = "T: FromStr"))]
pub(crate) struct Ids<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T: FromStr, const MAX: usize> TryFrom<String> for Ids<T, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ids = text.split(',').map(|id| id.trim().parse().ok());
        let ids: Option<Vec<T>> = ids.collect();
        let ids = ids.ok_or("must be ids that are separated by commas")?;
        if ids.len() <= MAX { Ok(Self(ids)) } else { Err(format!("must have at most {MAX} ids")) }
    }
}
