//! A workspace's newest events, kept so that a short absence asks no database.

use std::collections::VecDeque;

use fechatter_core::event::Effect;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::{ChatId, MessageId, Position, UserId};

use crate::ending::Ending;
use crate::frame::{self, Frame};

/// Events without a gap, the newest one last; there is always at least that one.
#[derive(Debug)]
pub(crate) struct Recent {
    events: VecDeque<Event>,
    bytes: usize,
}

/// An event as streams get it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) cursor: Cursor,
    pub(crate) chat_id: Option<ChatId>,
    pub(crate) user_id: Option<UserId>,
    pub(crate) ending: Option<Ending>,
    /// None where there is nothing to tell of it any more.
    pub(crate) frame: Option<Frame>,
    message_id: Option<MessageId>,
}

impl Event {
    pub(crate) fn new(entry: &Entry) -> Self {
        Self {
            cursor: entry.cursor,
            chat_id: entry.chat_id,
            user_id: entry.user_id,
            ending: Ending::of(entry.effect.as_ref()),
            frame: frame::durable(entry),
            message_id: entry.message_id,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.frame.as_ref().map_or(0, Frame::len)
    }
}

impl Recent {
    /// The newest events of a log; none where there are none.
    pub(crate) fn new(entries: &[Entry]) -> Option<Self> {
        let mut recent = Self { events: VecDeque::with_capacity(entries.len()), bytes: 0 };
        for entry in entries {
            recent.push(entry, Event::new(entry));
        }
        (!recent.events.is_empty()).then_some(recent)
    }

    /// How much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest event.
    pub(crate) fn head(&self) -> Cursor {
        self.events[self.events.len() - 1].cursor
    }

    /// The oldest event that is kept.
    pub(crate) fn floor(&self) -> Cursor {
        self.events[0].cursor
    }

    /// What came after the event at a position; none if that is not kept.
    pub(crate) fn after(&self, cursor: Cursor) -> After<impl Iterator<Item = &Event>> {
        let index = cursor.position.0 - self.floor().position.0;
        let Ok(index) = usize::try_from(index) else { return After::Forgotten };
        match self.events.get(index) {
            Some(event) if event.cursor == cursor => After::Events(self.events.range(index + 1..)),
            Some(_) => After::Diverged,
            None => After::NotYet,
        }
    }

    /// Adds the next event.
    pub(crate) fn push(&mut self, entry: &Entry, event: Event) {
        match entry.effect {
            // Its messages are gone with it.
            Some(Effect::ClosesChat) => self.blank(entry.chat_id),
            // What the message was must not be told again. The log knows.
            Some(Effect::ChangesMessage | Effect::RemovesMessage) => {
                self.forget_message(entry.message_id);
            }
            _ => {}
        }
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    /// Forgets the oldest events beyond these limits; the oldest that stays is the answer.
    pub(crate) fn trim(&mut self, max_events: usize, max_bytes: usize) -> Position {
        while self.events.len() > 1 && (self.events.len() > max_events || self.bytes > max_bytes) {
            self.forget_oldest();
        }
        self.floor().position
    }

    fn blank(&mut self, chat_id: Option<ChatId>) {
        let of_chat = |event: &&mut Event| event.chat_id == chat_id && event.message_id.is_some();
        for event in self.events.iter_mut().filter(of_chat) {
            self.bytes -= event.frame.take().map_or(0, |frame| frame.len());
        }
    }

    fn forget_message(&mut self, message_id: Option<MessageId>) {
        let Some(message_id) = message_id else { return };
        let last = self.events.iter().rposition(|event| event.message_id == Some(message_id));
        if let Some(last) = last {
            (0..=last).for_each(|_| self.forget_oldest());
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes();
        }
    }
}

/// What is known of the events after a cursor.
#[derive(Debug)]
pub(crate) enum After<I> {
    /// These.
    Events(I),
    /// It is older than what is kept.
    Forgotten,
    /// Another event has its position.
    Diverged,
    /// It is newer than what has come here.
    NotYet,
}
