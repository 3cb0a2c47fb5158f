//! The place in a log up to which a client has seen everything.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Position;

/// A random number stored with each event, one per commit. A cursor whose stamp differs from the
/// log's belongs to another workspace, or to a database that lost its newest events in a failover
/// or restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Stamp(i32);

impl Stamp {
    /// A new stamp for a commit.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// A position with its stamp, written `<stamp>-<position>`; opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Cursor {
    pub stamp: Stamp,
    pub position: Position,
}

/// The error for a text that is not a cursor.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor")]
pub struct BadCursor;

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A place in the workspace's log; opaque to clients."))
            .examples(["2f3c00a1-812"]);
        RefOr::T(text.build().into())
    }
}

impl ToSchema for Cursor {}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.stamp.0, self.position)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (stamp, position) = text.split_once('-').ok_or(BadCursor)?;
        if stamp.len() != 8 || stamp.starts_with('+') {
            return Err(BadCursor);
        }
        let stamp = u32::from_str_radix(stamp, 16).map_err(|_| BadCursor)?;
        let position = position.parse().map_err(|_| BadCursor)?;
        Ok(Self { stamp: Stamp(stamp.cast_signed()), position })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_being_written_and_read() {
        for stamp in [0, 1, -1, i32::MIN, i32::MAX] {
            let cursor = Cursor { stamp: Stamp(stamp), position: Position(42) };
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
    }

    #[test]
    fn other_texts_are_no_cursors() {
        for text in ["", "-", "1-1", "00000001-0", "00000001--1", "0000000g-1", "+0000001-1", "é-1"]
        {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }
}
