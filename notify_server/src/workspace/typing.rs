//! Limits the events that a person is typing.

use std::collections::HashMap;
use std::time::Instant;

use fechatter_core::event::TYPING_INTERVAL;
use fechatter_core::{ChatId, UserId};

/// The number of entries at which old ones are removed.
const MAX_ENTRIES: usize = 1_000;

/// The people who were typing a moment ago. `fechatter_server` has the same limit, but each of several
/// servers counts on its own.
#[derive(Debug, Default)]
pub(crate) struct TypingLimit {
    sent_at: HashMap<(ChatId, UserId), Instant>,
    cleaned_at: Option<Instant>,
}

impl TypingLimit {
    /// Returns true if an event about this person and chat may be sent now.
    pub(crate) fn admit(&mut self, key: (ChatId, UserId), now: Instant) -> bool {
        let is_recent = |at: Instant| now.duration_since(at) < TYPING_INTERVAL;
        if self.sent_at.get(&key).copied().is_some_and(is_recent) {
            return false;
        }
        if self.sent_at.len() >= MAX_ENTRIES && !self.cleaned_at.is_some_and(is_recent) {
            self.sent_at.retain(|_, at| is_recent(*at));
            self.cleaned_at = Some(now);
        }
        self.sent_at.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_person_is_typing_in_a_chat_once_in_three_seconds() {
        let (mut limit, start) = (TypingLimit::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let (here, there) = ((ChatId(1), UserId(1)), (ChatId(2), UserId(1)));
        let admitted = [(here, 0), (here, 2_900), (there, 2_900), (here, 3_000), (here, 5_999)];
        let admitted = admitted.map(|(key, millis)| limit.admit(key, after(millis)));
        assert_eq!(admitted, [true, false, true, true, false]);
    }

    #[test]
    fn entries_of_people_who_stopped_typing_are_removed() {
        let (mut limit, start) = (TypingLimit::default(), Instant::now());
        for person in 0..5_000 {
            let now = start + Duration::from_millis(10 * person);
            let person = UserId(i64::try_from(person).unwrap());
            assert!(limit.admit((ChatId(1), person), now));
        }
        assert!(limit.sent_at.len() <= MAX_ENTRIES + 300);
    }
}
