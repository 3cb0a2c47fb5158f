//! Limits the events that a person is typing.

use fechatter_core::event::TYPING_INTERVAL;
use fechatter_core::{ChatId, UserId};
use moka::sync::Cache;

/// The maximum number of people who are counted at the same time. Beyond it, some may be told of
/// more often.
const MAX_ENTRIES: u64 = 100_000;
/// The time in seconds for which clients show that a person is typing.
pub(crate) const EXPIRES_IN: u32 = 6;

/// The people who were typing a moment ago. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct TypingLimit(Cache<(ChatId, UserId), ()>);

impl TypingLimit {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(TYPING_INTERVAL).build())
    }

    /// Returns true if an event about this person and chat may be sent now.
    pub(crate) fn admit(&self, chat_id: ChatId, user_id: UserId) -> bool {
        self.0.entry((chat_id, user_id)).or_insert(()).is_fresh()
    }
}
