//! Who is in which chat of a workspace, and who was as far back as its recent events go.

use std::collections::HashMap;

use fechatter_core::log::Entry;
use fechatter_core::{ChatId, Position, UserId};

/// A period of membership, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) chat_id: ChatId,
    pub(crate) user_id: UserId,
    pub(crate) joined: Position,
    /// None while it lasts.
    pub(crate) left: Option<Position>,
}

/// All memberships of a workspace that can still matter.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    chats: HashMap<ChatId, Chat>,
}

#[derive(Debug, Default)]
struct Chat {
    current: HashMap<UserId, Position>,
    ended: Vec<Membership>,
}

impl Memberships {
    pub(crate) fn new(memberships: impl IntoIterator<Item = Membership>) -> Self {
        let mut all = Self::default();
        for membership in memberships {
            let chat = all.chats.entry(membership.chat_id).or_default();
            match membership.left {
                None => _ = chat.current.insert(membership.user_id, membership.joined),
                Some(_) => chat.ended.push(membership),
            }
        }
        all
    }

    /// The people in a chat now.
    pub(crate) fn of(&self, chat_id: ChatId) -> Option<&HashMap<UserId, Position>> {
        self.chats.get(&chat_id).map(|chat| &chat.current)
    }

    /// Whether a person was in a chat at a position.
    pub(crate) fn include(&self, chat_id: ChatId, user_id: UserId, at: Position) -> bool {
        self.chats.get(&chat_id).is_some_and(|chat| {
            chat.current.get(&user_id).is_some_and(|joined| *joined <= at)
                || chat.ended.iter().any(|period| {
                    period.user_id == user_id
                        && period.joined <= at
                        && period.left.is_none_or(|left| at <= left)
                })
        })
    }

    /// Begins what an event begins: who joins gets the event of it.
    pub(crate) fn begin(&mut self, entry: &Entry) {
        let Some(chat_id) = entry.chat_id else { return };
        let position = entry.cursor.position;
        match (entry.kind.as_str(), entry.user_id) {
            ("NewChat", _) => {
                let joined = entry.joined.iter().map(|user_id| (*user_id, position));
                self.chats.entry(chat_id).or_default().current.extend(joined);
            }
            ("UserJoinedChat", Some(user_id)) => {
                self.chats.entry(chat_id).or_default().current.insert(user_id, position);
            }
            _ => {}
        }
    }

    /// Ends what an event ends: who leaves gets the event of it.
    pub(crate) fn end(&mut self, entry: &Entry) {
        let Some(chat_id) = entry.chat_id else { return };
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        let left = Some(entry.cursor.position);
        let ended = |(user_id, joined)| Membership { chat_id, user_id, joined, left };
        match (entry.kind.as_str(), entry.user_id) {
            ("UserLeftChat", Some(user_id)) => {
                chat.ended.extend(chat.current.remove_entry(&user_id).map(ended));
            }
            ("ChatDeleted", _) => chat.ended.extend(chat.current.drain().map(ended)),
            _ => {}
        }
    }

    /// Forgets what ended before a position.
    pub(crate) fn forget_before(&mut self, position: Position) {
        self.chats.retain(|_, chat| {
            chat.ended.retain(|period| period.left.is_none_or(|left| left >= position));
            !(chat.current.is_empty() && chat.ended.is_empty())
        });
    }
}
