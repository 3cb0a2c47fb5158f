//! A workspace's newest events, kept so that clients can resume after a short absence without a
//! database query.

use std::collections::VecDeque;

use fechatter_core::event::Effect;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::{ChatId, MessageId, Position, UserId};

use crate::frame::{self, Frame};
use crate::workspace::endings::Ending;

/// The newest events without a gap, in order; at least one.
#[derive(Debug)]
pub(crate) struct Recent {
    events: VecDeque<Event>,
    bytes: usize,
}

/// An event in the form for streams.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) cursor: Cursor,
    pub(crate) chat_id: Option<ChatId>,
    pub(crate) user_id: Option<UserId>,
    pub(crate) ending: Option<Ending>,
    /// `None` if the event has no data to send any more.
    pub(crate) frame: Option<Frame>,
    about: About,
}

/// The relation of an event to a message or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Neither,
    /// Shows the message in its present state.
    Shown(MessageId),
    /// Contains other data about the message.
    Other(MessageId),
    /// Shows the person in their present state.
    Person(UserId),
}

impl About {
    fn of(entry: &Entry) -> Self {
        match (entry.message_id, entry.shows_person) {
            (Some(id), _) if entry.shows_message => Self::Shown(id),
            (Some(id), _) => Self::Other(id),
            (None, Some(person)) => Self::Person(person),
            (None, None) => Self::Neither,
        }
    }
}

impl Event {
    pub(crate) fn new(entry: &Entry) -> Self {
        Self {
            cursor: entry.cursor,
            chat_id: entry.chat_id,
            user_id: entry.user_id,
            ending: Ending::of(entry.effect.as_ref()),
            frame: frame::durable(entry),
            about: About::of(entry),
        }
    }

    fn replace(&mut self, frame: Option<Frame>) -> [usize; 2] {
        let before = self.bytes();
        self.frame = frame;
        [before, self.bytes()]
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.frame.as_ref().map_or(0, Frame::len)
    }
}

impl Recent {
    /// Creates it from the newest events of a log; returns `None` if there are no events.
    pub(crate) fn new(entries: &[Entry]) -> Option<Self> {
        let mut recent = Self { events: VecDeque::with_capacity(entries.len()), bytes: 0 };
        for entry in entries {
            recent.push(entry, Event::new(entry));
        }
        (!recent.events.is_empty()).then_some(recent)
    }

    /// Returns the size of the events in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the newest event.
    pub(crate) fn newest(&self) -> Cursor {
        self.events[self.events.len() - 1].cursor
    }

    /// Returns the oldest event that is kept.
    pub(crate) fn floor(&self) -> Cursor {
        self.events[0].cursor
    }

    /// Returns the events after a cursor, or the reason why they are not available.
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
            // Its messages are deleted with the chat.
            Some(Effect::ClosesChat) => self.blank(entry.chat_id),
            _ if sabotage::is(Sabotage::OldFrames) => {}
            Some(Effect::ChangesMessage | Effect::RemovesMessage) => self.renew(entry),
            Some(Effect::BlanksMessages(person)) => self.blank_messages_of(person, entry),
            _ => self.renew_person(entry),
        }
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    /// Removes the oldest events beyond these limits, and returns the position of the oldest event
    /// that stays.
    pub(crate) fn trim(&mut self, max_events: usize, max_bytes: usize) -> Position {
        while self.events.len() > 1 && (self.events.len() > max_events || self.bytes > max_bytes) {
            self.forget_oldest();
        }
        self.floor().position
    }

    fn blank(&mut self, chat_id: Option<ChatId>) {
        let of_chat =
            |event: &&mut Event| event.chat_id == chat_id && event.about != About::Neither;
        for event in self.events.iter_mut().filter(of_chat) {
            let [before, after] = event.replace(None);
            self.bytes = self.bytes - before + after;
        }
    }

    /// Replaces the message in every recent frame that shows it, because its earlier state must not
    /// be sent again. If the message is removed, drops all other frames about it.
    fn renew(&mut self, entry: &Entry) {
        let Some(id) = entry.message_id else { return };
        let is_removed = entry.effect == Some(Effect::RemovesMessage);
        for event in &mut self.events {
            let frame = match event.about {
                About::Shown(own) if own == id => {
                    event.frame.as_ref().zip(entry.changed.as_ref()).map(|(frame, message)| {
                        frame::renewed(frame, event.cursor, message, entry.parent.as_deref())
                    })
                }
                About::Other(own) if own == id && is_removed => None,
                _ => continue,
            };
            let [before, after] = event.replace(frame);
            self.bytes = self.bytes - before + after;
        }
    }

    /// Replaces the person in every recent frame that shows them, because an erased name must not be
    /// sent again.
    fn renew_person(&mut self, entry: &Entry) {
        let Some((person, changed)) = entry.shows_person.zip(entry.changed.as_ref()) else {
            return;
        };
        let of_person = |event: &&mut Event| event.about == About::Person(person);
        for event in self.events.iter_mut().filter(of_person) {
            let frame = event.frame.as_ref();
            let frame = frame.map(|frame| frame::renewed(frame, event.cursor, changed, None));
            let [before, after] = event.replace(frame);
            self.bytes = self.bytes - before + after;
        }
    }

    /// Deletes the messages of a person from every recent frame that shows one.
    fn blank_messages_of(&mut self, person: UserId, entry: &Entry) {
        let Some(blanked_at) = entry.data.as_deref().and_then(frame::blanked_at) else { return };
        for event in &mut self.events {
            let About::Shown(_) = event.about else { continue };
            let frame = event.frame.as_ref();
            let blanked = frame.and_then(|frame| {
                frame::without_message_of(frame, event.cursor, person, blanked_at)
            });
            if let Some(blanked) = blanked {
                let [before, after] = event.replace(Some(blanked));
                self.bytes = self.bytes - before + after;
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.bytes();
        }
    }
}

/// The events after a cursor, or the reason why they are not available.
#[derive(Debug)]
pub(crate) enum After<I> {
    /// The events.
    Events(I),
    /// The cursor is older than the oldest event that is kept.
    Forgotten,
    /// Another event has the cursor's position.
    Diverged,
    /// The cursor is newer than the newest event here.
    NotYet,
}
