//! The memberships of a workspace's chats: the current ones, and those that ended within the recent
//! events.

use std::collections::{HashMap, VecDeque};

use fechatter_core::event::Effect;
use fechatter_core::log::Entry;
use fechatter_core::{ChatId, Position, UserId};

/// A period of membership, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) chat_id: ChatId,
    pub(crate) user_id: UserId,
    pub(crate) joined: Position,
    /// `None` while the membership lasts.
    pub(crate) left: Option<Position>,
}

/// All memberships of a workspace that can still affect delivery.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    chats: HashMap<ChatId, Chat>,
    /// The ended memberships, in the order of their ends.
    ended: VecDeque<(Position, ChatId, UserId)>,
}

#[derive(Debug, Default)]
struct Chat {
    current: HashMap<UserId, Position>,
    /// The first and last position of each ended period.
    ended: HashMap<UserId, Vec<[Position; 2]>>,
}

impl Memberships {
    pub(crate) fn new(memberships: impl IntoIterator<Item = Membership>) -> Self {
        let mut all = Self::default();
        for Membership { chat_id, user_id, joined, left } in memberships {
            let chat = all.chats.entry(chat_id).or_default();
            match left {
                None => _ = chat.current.insert(user_id, joined),
                Some(left) => {
                    chat.ended.entry(user_id).or_default().push([joined, left]);
                    all.ended.push_back((left, chat_id, user_id));
                }
            }
        }
        all.ended.make_contiguous().sort_unstable();
        all
    }

    /// Returns the current members of a chat.
    pub(crate) fn of(&self, chat_id: ChatId) -> Option<&HashMap<UserId, Position>> {
        self.chats.get(&chat_id).map(|chat| &chat.current)
    }

    /// Returns true if a person was in a chat at a position.
    pub(crate) fn include(&self, chat_id: ChatId, user_id: UserId, at: Position) -> bool {
        self.chats.get(&chat_id).is_some_and(|chat| {
            chat.current.get(&user_id).is_some_and(|joined| *joined <= at)
                || chat.ended.get(&user_id).is_some_and(|periods| {
                    periods.iter().any(|[joined, left]| (*joined..=*left).contains(&at))
                })
        })
    }

    /// Begins the memberships that an event begins. Called before delivery, because people who join
    /// receive the event.
    pub(crate) fn begin(&mut self, entry: &Entry) {
        if let (Some(chat_id), Some(Effect::Joins)) = (entry.chat_id, &entry.effect) {
            let joined = entry.joined.iter().map(|user_id| (*user_id, entry.cursor.position));
            self.chats.entry(chat_id).or_default().current.extend(joined);
        }
    }

    /// Ends the memberships that an event ends. Called after delivery, because people who leave
    /// receive the event.
    pub(crate) fn end(&mut self, entry: &Entry) {
        let Some(chat_id) = entry.chat_id else { return };
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        let left = entry.cursor.position;
        let leavers: Vec<_> = match (&entry.effect, entry.user_id) {
            (Some(Effect::Leaves), Some(user_id)) => {
                chat.current.remove_entry(&user_id).into_iter().collect()
            }
            (Some(Effect::ClosesChat), _) => chat.current.drain().collect(),
            _ => return,
        };
        for (user_id, joined) in leavers {
            chat.ended.entry(user_id).or_default().push([joined, left]);
            self.ended.push_back((left, chat_id, user_id));
        }
    }

    /// Removes the memberships that ended before a position.
    pub(crate) fn forget_before(&mut self, position: Position) {
        while let Some((_, chat_id, user_id)) =
            self.ended.pop_front_if(|(left, ..)| *left < position)
        {
            let Some(chat) = self.chats.get_mut(&chat_id) else { continue };
            if let Some(periods) = chat.ended.get_mut(&user_id) {
                periods.retain(|[_, left]| *left >= position);
                if periods.is_empty() {
                    chat.ended.remove(&user_id);
                }
            }
            if chat.current.is_empty() && chat.ended.is_empty() {
                self.chats.remove(&chat_id);
            }
        }
    }
}
