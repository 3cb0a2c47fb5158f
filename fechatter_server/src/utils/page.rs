//! Query parameters and pages of lists.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;

use crate::error::AppError;

/// The parsed query string; wrong values are refused with 400.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        let parsed = Query::<T>::try_from_uri(&parts.uri);
        parsed.map(|Query(params)| Self(params)).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            AppError::invalid("query", &cause.unwrap_or_default())
        })
    }
}

/// Parses a limit from 1 to 100, or returns `default` if there is none. Other values are refused
/// with 400.
pub(crate) fn limit(text: Option<&str>, default: i64) -> Result<i64, AppError> {
    let Some(text) = text else { return Ok(default) };
    let limit = number(text).filter(|limit| (1..=100).contains(limit));
    limit.ok_or_else(|| AppError::invalid("limit", "must be a number from 1 to 100"))
}

/// Parses a decimal integer ≥ 0 of at most 63 bits, without a sign.
pub(crate) fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Parses ids that are separated by commas.
pub(crate) fn ids<T: std::str::FromStr>(field: &str, text: &str) -> Result<Vec<T>, AppError> {
    text.split(',')
        .map(|id| {
            id.trim()
                .parse()
                .map_err(|_| AppError::invalid(field, "must be ids, with commas between"))
        })
        .collect()
}

/// Encodes the keys of the last row of a page as an opaque cursor.
pub(crate) fn write_cursor<const N: usize>(keys: [i64; N]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(keys.map(|key| key.to_string()).join("."))
}

/// Decodes the keys of an opaque cursor.
pub(crate) fn read_cursor<const N: usize>(text: &str) -> Result<[i64; N], AppError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    let keys = bytes.and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        text.split('.').map(number).collect::<Option<Vec<_>>>()?.try_into().ok()
    });
    keys.ok_or_else(|| AppError::invalid("cursor", "is not one of ours"))
}

/// Removes the extra row that was read beyond the page, and returns the cursor of the next page.
pub(crate) fn cut<T, const N: usize>(
    rows: &mut Vec<T>,
    limit: i64,
    keys: impl Fn(&T) -> [i64; N],
) -> Option<String> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(|last| write_cursor(keys(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_being_written_and_read() {
        assert_eq!(read_cursor(&write_cursor([7, i64::MAX])).unwrap(), [7, i64::MAX]);
        assert!(read_cursor::<2>(&write_cursor([7])).is_err());
        assert!(read_cursor::<1>("%").is_err());
    }
}
