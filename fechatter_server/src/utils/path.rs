//! Ids in paths. An invalid id is refused with 404.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use fechatter_core::{MessageId, UserId};

use crate::error::AppError;

/// The `{id}` of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id<T>(pub(crate) T);

/// The `{mid}` of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageIdInPath(pub(crate) MessageId);

/// The `{code}` of the path.
#[derive(Debug, Clone)]
pub(crate) struct Code(pub(crate) String);

/// The `{emoji}` of the path, fully qualified: one emoji of Unicode's list of those that are
/// recommended for general interchange (RGI, UTS 51).
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmojiInPath(pub(crate) &'static str);

/// The `{member_id}` of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberIdInPath(pub(crate) UserId);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        path_parameter(parts, state, "id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MessageIdInPath {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        path_parameter(parts, state, "mid").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberIdInPath {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        path_parameter(parts, state, "member_id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        path_parameter(parts, state, "code").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EmojiInPath {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        let text: String = path_parameter(parts, state, "emoji").await?;
        emojis::get(&text).map(|emoji| Self(emoji.as_str())).ok_or(AppError::InvalidEmoji)
    }
}

async fn path_parameter<S, T>(parts: &mut Parts, state: &S, name: &str) -> Result<T, AppError>
where
    S: Send + Sync,
    T: FromStr,
{
    let params = RawPathParams::from_request_parts(parts, state).await;
    let params = params.map_err(|_| AppError::NotFound)?;
    let value = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    value.and_then(|value| value.parse().ok()).ok_or(AppError::NotFound)
}
