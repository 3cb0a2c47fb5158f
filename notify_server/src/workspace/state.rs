//! The rules of one workspace: who is in which chat, and which open streams an event is for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::counter;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Position, Timestamp, UserId, metrics};
use tokio::sync::watch;

use crate::frame::{Control, Frame, GoodbyeReason};
use crate::workspace::memberships::{Membership, Memberships};
use crate::workspace::outbox::{CrowdedOutboxes, End, Outbox, Wakers};
use crate::workspace::recent::{After, Event, Recent};

/// What a stream is told at once of what it has missed, and how many events are looked at for it.
const MAX_FRAMES: usize = 256;
const MAX_EVENTS: usize = 2_000;
/// Beats from one heartbeat of a stream to its next.
const HEARTBEAT: u64 = 15;

/// A workspace as it is at one position of its log.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) recent: Recent,
    /// Those that did not end before the oldest of the recent events.
    pub(crate) memberships: Vec<Membership>,
}

/// A workspace with open streams; changed by the entries of its log only, in order.
#[derive(Debug)]
pub(crate) struct WorkspaceState {
    recent: Recent,
    memberships: Memberships,
    streams: HashMap<UserId, Vec<Stream>>,
    crowded: CrowdedOutboxes,
    // Since when there have been none.
    deserted: Option<Instant>,
    place: watch::Sender<Position>,
}

/// A stream as its workspace knows it.
#[derive(Debug)]
struct Stream {
    id: u64,
    /// The last one before it came.
    beat: u64,
    reader: Reader,
    outbox: Arc<Outbox>,
}

/// What is held for streams.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) workspaces: usize,
    /// The size of the recent events.
    pub(crate) recent_bytes: usize,
    /// Frames that wait in outboxes, and in the one with the most.
    pub(crate) waiting: usize,
    pub(crate) longest: usize,
}

/// Why a workspace cannot go on with what was read of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The log does not go on from where this workspace is.
    Diverged,
    /// An event has an effect that this version does not know: what it changes is to be loaded.
    UnknownEffect,
}

/// Who reads, and up to where nothing can end their stream: there the database has just said that
/// they may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) user: AuthUser,
    pub(crate) checked_at: Position,
}

/// What a reader missed, as far as it is known here.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) frames: Vec<Frame>,
    /// The newest event that the frames take the reader to.
    pub(crate) reached: Cursor,
    /// What ends the stream behind the frames.
    pub(crate) end: Option<GoodbyeReason>,
}

/// What a workspace can say to somebody who has everything up to a cursor.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This is what they missed.
    Missed(Missed),
    /// What they missed up to this position is not kept here.
    Forgotten(Position),
    /// This workspace has not come to their position yet.
    Behind,
    /// This workspace has another event at their position.
    Diverged,
}

impl Reader {
    /// Why an event ends this reader's stream, if it does.
    pub(crate) fn ended_by(&self, event: &Event) -> Option<GoodbyeReason> {
        let later = event.cursor.position > self.checked_at;
        event.ending.as_ref().filter(|_| later)?.reason_for(&self.user)
    }
}

impl WorkspaceState {
    pub(crate) fn new(Snapshot { recent, memberships }: Snapshot) -> Self {
        let place = watch::Sender::new(recent.head().position);
        let memberships = Memberships::new(memberships);
        let (streams, crowded) = (HashMap::new(), CrowdedOutboxes::default());
        Self { recent, memberships, streams, crowded, deserted: Some(Instant::now()), place }
    }

    /// The newest event that it has seen.
    pub(crate) fn head(&self) -> Cursor {
        self.recent.head()
    }

    /// Whether nobody has been here for so long.
    pub(crate) fn is_deserted(&self, time: Duration) -> bool {
        self.deserted.is_some_and(|since| since.elapsed() > time)
    }

    /// What a reader who has everything up to `reached` has missed since.
    pub(crate) fn missed(&self, reader: &Reader, reached: Cursor) -> Answer {
        let mut missed = Missed { frames: Vec::new(), reached, end: None };
        if sabotage::is(Sabotage::NoCatchUp) {
            let unread = reached.position < reader.checked_at;
            missed.reached = self.head();
            return if unread {
                Answer::Forgotten(reader.checked_at)
            } else {
                Answer::Missed(missed)
            };
        }
        let events = match self.recent.after(reached) {
            After::Events(events) => events,
            After::Forgotten => return Answer::Forgotten(self.recent.floor().position),
            After::NotYet => return Answer::Behind,
            After::Diverged => return Answer::Diverged,
        };
        for event in events.take(MAX_EVENTS) {
            missed.reached = event.cursor;
            if self.is_for(event, reader.user.id) {
                missed.frames.extend(event.frame.clone());
                missed.end = reader.ended_by(event);
            }
            if missed.end.is_some() || missed.frames.len() == MAX_FRAMES {
                break;
            }
        }
        Answer::Missed(missed)
    }

    fn is_for(&self, event: &Event, user_id: UserId) -> bool {
        match (event.chat_id, event.user_id) {
            (None, None) => true,
            (None, Some(id)) => id == user_id,
            (Some(chat_id), id) => {
                id == Some(user_id)
                    || self.memberships.include(chat_id, user_id, event.cursor.position)
            }
        }
    }

    /// Tells where the workspace is, and when it is no longer here.
    pub(crate) fn place(&self) -> watch::Receiver<Position> {
        self.place.subscribe()
    }

    /// Adds a stream whose reader has everything up to the head. From now on, everything queues in the
    /// outbox that this returns.
    pub(crate) fn attach(&mut self, [id, beat]: [u64; 2], reader: Reader) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(self.crowded.clone()));
        let stream = Stream { id, beat, reader, outbox: Arc::clone(&outbox) };
        // Most people have one.
        self.streams.entry(reader.user.id).or_insert_with(|| Vec::with_capacity(1)).push(stream);
        self.deserted = None;
        outbox
    }

    pub(crate) fn detach(&mut self, id: u64, user_id: UserId) {
        if let Some(streams) = self.streams.get_mut(&user_id) {
            streams.retain(|stream| stream.id != id);
            if streams.is_empty() {
                self.streams.remove(&user_id);
            }
        }
        if self.streams.is_empty() {
            self.deserted = Some(Instant::now());
        }
    }

    /// Takes what the log says from its own newest event on, which must still be there.
    pub(crate) fn advance(&mut self, entries: &[Entry]) -> Result<(), Obstacle> {
        match entries.split_first() {
            Some((first, rest)) if first.cursor == self.head() => self.go_on(rest),
            _ => Err(Obstacle::Diverged),
        }
    }

    /// Takes the events that come next in the log.
    pub(crate) fn go_on(&mut self, entries: &[Entry]) -> Result<(), Obstacle> {
        let mut wakers = Wakers::default();
        for entry in entries {
            if entry.cursor.position != self.head().position.next() {
                return Err(Obstacle::Diverged);
            }
            if entry.effect.is_none() {
                return Err(Obstacle::UnknownEffect);
            }
            let event = Event::new(entry);
            self.memberships.begin(entry);
            self.deliver(&event, &mut wakers);
            self.memberships.end(entry);
            self.recent.push(entry, event);
        }
        self.place.send_replace(self.head().position);
        Ok(())
    }

    /// Forgets the oldest of the recent events beyond these limits.
    pub(crate) fn trim(&mut self, max_events: usize, max_bytes: usize) {
        let floor = self.recent.floor();
        let kept = self.recent.trim(max_events, max_bytes);
        if kept != floor.position {
            self.memberships.forget_before(kept);
        }
    }

    /// Hands a frame past the log to one person's streams.
    pub(crate) fn send(&self, user_id: UserId, frame: &Frame) {
        let mut wakers = Wakers::default();
        for stream in self.streams.get(&user_id).into_iter().flatten() {
            stream.outbox.push(frame.clone(), &mut wakers);
        }
    }

    /// Adds what is held here.
    pub(crate) fn add_to(&self, load: &mut Load) {
        load.recent_bytes += self.recent.bytes();
        for stream in self.streams.values().flatten() {
            let waiting = stream.outbox.len();
            load.waiting += waiting;
            load.longest = load.longest.max(waiting);
        }
    }

    /// Whether a stream still has much to take.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.any()
    }

    /// Ends all streams.
    pub(crate) fn end(&self, end: End) {
        let mut wakers = Wakers::default();
        self.streams.values().flatten().for_each(|stream| stream.outbox.end(end, &mut wakers));
    }

    /// A heartbeat for those whose turn it is, behind everything at or below its cursor, and the end
    /// for those whose token has expired by now.
    pub(crate) fn beat(&self, number: u64, now: Timestamp) {
        let mut wakers = Wakers::default();
        let expired = End::Goodbye(GoodbyeReason::TokenExpired);
        let mut heartbeat = None;
        for Stream { beat, reader, outbox, .. } in self.streams.values().flatten() {
            if reader.user.expires_at <= now.0.timestamp() {
                outbox.end(expired, &mut wakers);
            } else if (number - beat).is_multiple_of(HEARTBEAT) {
                let frame = heartbeat.get_or_insert_with(|| self.heartbeat(now));
                outbox.push(frame.clone(), &mut wakers);
            }
        }
    }

    fn heartbeat(&self, now: Timestamp) -> Frame {
        Control::Heartbeat { cursor: self.head(), server_time: now }.frame()
    }

    fn deliver(&self, event: &Event, wakers: &mut Wakers) {
        let mut delivered = 0;
        let mut tell = |streams: &[Stream]| {
            for stream in streams {
                if let Some(frame) = &event.frame {
                    stream.outbox.push(frame.clone(), wakers);
                    delivered += 1;
                }
                if let Some(reason) = stream.reader.ended_by(event) {
                    stream.outbox.end(End::Goodbye(reason), wakers);
                }
            }
        };
        match (event.chat_id, event.user_id) {
            (Some(chat_id), user_id) => self.tell_chat(chat_id, user_id, tell),
            (None, Some(user_id)) => self.tell_user(user_id, &mut tell),
            (None, None) => self.streams.values().for_each(|streams| tell(streams)),
        }
        counter!(metrics::DELIVERIES).increment(delivered);
    }

    fn tell_user(&self, user_id: UserId, tell: &mut impl FnMut(&[Stream])) {
        if let Some(streams) = self.streams.get(&user_id) {
            tell(streams);
        }
    }

    /// Its members, and one more person.
    fn tell_chat(&self, chat_id: ChatId, user_id: Option<UserId>, mut tell: impl FnMut(&[Stream])) {
        let nobody = HashMap::new();
        let members = self.memberships.of(chat_id).unwrap_or(&nobody);
        // Whichever are fewer: the members or the people who are here.
        if members.len() <= self.streams.len() {
            for user_id in members.keys() {
                self.tell_user(*user_id, &mut tell);
            }
        } else {
            let here = self.streams.iter().filter(|(user_id, _)| members.contains_key(user_id));
            here.for_each(|(_, streams)| tell(streams));
        }
        if let Some(user_id) = user_id.filter(|user_id| !members.contains_key(user_id)) {
            self.tell_user(user_id, &mut tell);
        }
    }
}

#[cfg(test)]
mod tests;
