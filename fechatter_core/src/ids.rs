//! One newtype per id, so that a chat's id cannot be passed as a user's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident from $least:tt) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
            sqlx::Type, ToSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        #[schema(minimum = $least, maximum = 9_007_199_254_740_991_i64, example = 42)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// Parses a positive 63-bit decimal without sign or leading zero, the only accepted form of
        /// an id in a path.
        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
                let id = text.parse().ok().filter(|_| canonical);
                id.map(Self).ok_or(NotAnId)
            }
        }
    };
}

/// The error for a text that is not a positive 63-bit integer.
#[derive(Debug, thiserror::Error)]
#[error("not a positive 63-bit integer")]
pub struct NotAnId;

number! {
    /// A person's account.
    UserId from 1
}
number! {
    /// A workspace: a tenant.
    WorkspaceId from 1
}
number! {
    /// A chat of any of the four types.
    ChatId from 1
}
number! {
    /// A message; unique over all chats.
    MessageId from 1
}
number! {
    /// A file, once in each workspace.
    FileId from 1
}
number! {
    /// An invitation to a workspace.
    InviteId from 1
}
number! {
    /// A place in a workspace's log: 1, 2, 3, … contiguous, in commit order.
    Position from 1
}
number! {
    /// A place in a chat: 1, 2, 3, … contiguous; 0 is before the first message.
    Seq from 0
}

/// A sign-in of one account on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct SessionId(pub Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl Position {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_id_is_a_positive_63_bit_integer() {
        assert_eq!("7".parse::<ChatId>().unwrap(), ChatId(7));
        assert_eq!("9223372036854775807".parse::<ChatId>().unwrap(), ChatId(i64::MAX));
        for bad in ["", "0", "-1", "+1", "007", "1.0", " 1", "x", "9223372036854775808", "١"] {
            assert!(bad.parse::<ChatId>().is_err(), "{bad:?}");
        }
    }
}
