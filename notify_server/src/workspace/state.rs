//! The state of one workspace: the members of its chats, and the delivery of its events to streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::counter;
use fechatter_core::chat::ReadState;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::{Cursor, Entry, Ephemeral};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::stream_event::{Control, GoodbyeReason};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Position, Timestamp, UserId, metrics};
use tokio::sync::watch;

use crate::frame::{self, Frame};
use crate::workspace::memberships::{Membership, Memberships};
use crate::workspace::outbox::{BackloggedOutboxes, End, Outbox, Wakers};
use crate::workspace::recent::{After, Event, Recent};
use crate::workspace::typing::TypingLimit;

/// The maximum number of frames in one chunk of missed events, and of events examined to build it.
const MAX_FRAMES: usize = 256;
const MAX_EVENTS: usize = 2_000;
/// The number of ticks between two heartbeats of a stream.
const TICKS_PER_HEARTBEAT: u64 = 15;
/// The time within which notifications of two servers may overtake each other.
const OVERTAKING_TIME: Duration = Duration::from_secs(10);

/// The state of a workspace at one position of its log.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) recent: Recent,
    /// The memberships that did not end before the oldest of the recent events.
    pub(crate) memberships: Vec<Membership>,
}

/// A workspace with open streams. Only the entries of its log change it, in order.
#[derive(Debug)]
pub(crate) struct WorkspaceState {
    recent: Recent,
    memberships: Memberships,
    streams: HashMap<UserId, Vec<Stream>>,
    backlogged: BackloggedOutboxes,
    /// The newest versions of read marks that were sent to the people with streams, and the times.
    mark_versions: HashMap<UserId, HashMap<ChatId, (i64, Instant)>>,
    typing: TypingLimit,
    // The time at which the last stream was detached, or at which the workspace was loaded; `None`
    // while there are streams.
    idle_since: Option<Instant>,
    local_head_position: watch::Sender<Position>,
}

/// A stream's entry in its workspace.
#[derive(Debug)]
struct Stream {
    id: u64,
    /// The number of the last tick before the stream was attached; heartbeats are counted from it.
    tick: u64,
    reader: Reader,
    outbox: Arc<Outbox>,
}

/// The memory use and the queue lengths of the hub.
#[derive(Debug, Default)]
pub(crate) struct HubStats {
    pub(crate) workspaces: usize,
    /// The size of the recent events, in bytes.
    pub(crate) recent_bytes: usize,
    /// The number of frames queued in all outboxes, and in the longest one.
    pub(crate) waiting: usize,
    pub(crate) longest: usize,
}

/// The reason why a workspace cannot apply entries of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApplyError {
    /// The log does not continue from this workspace's local head.
    Diverged,
    /// An event has an effect that this version does not know: the workspace must be reloaded.
    UnknownEffect,
}

/// The user of a stream, and the log position at which the database confirmed that the user may
/// read. Events up to that position cannot end the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) user: AuthUser,
    pub(crate) authorized_position: Position,
}

/// The events that a reader missed, as far as they are in memory.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) frames: Vec<Frame>,
    /// The cursor that the reader has reached after these frames.
    pub(crate) reached: Cursor,
    /// The reason to end the stream after the frames, if there is one.
    pub(crate) end: Option<GoodbyeReason>,
}

/// The result of [`WorkspaceState::missed`].
#[derive(Debug)]
pub(crate) enum MissedResult {
    /// The missed events.
    Missed(Missed),
    /// The events up to this position are no longer in memory.
    NotInMemory(Position),
    /// The local head is before the reader's position.
    ServerBehind,
    /// The workspace has another event at the reader's position.
    Diverged,
}

impl Reader {
    /// Returns the reason if an event ends this reader's stream.
    pub(crate) fn ended_by(&self, event: &Event) -> Option<GoodbyeReason> {
        let later = event.cursor.position > self.authorized_position;
        event.ending.as_ref().filter(|_| later)?.reason_for(&self.user)
    }
}

impl WorkspaceState {
    pub(crate) fn new(Snapshot { recent, memberships }: Snapshot) -> Self {
        let local_head_position = watch::Sender::new(recent.newest().position);
        let memberships = Memberships::new(memberships);
        Self {
            recent,
            memberships,
            streams: HashMap::new(),
            backlogged: BackloggedOutboxes::default(),
            mark_versions: HashMap::new(),
            typing: TypingLimit::default(),
            idle_since: Some(Instant::now()),
            local_head_position,
        }
    }

    /// Returns the local head: the newest event of the log that has been applied here.
    pub(crate) fn local_head(&self) -> Cursor {
        self.recent.newest()
    }

    /// Returns true if there has been no stream for longer than `time`.
    pub(crate) fn is_idle_for(&self, time: Duration) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() > time)
    }

    /// Returns the next events that a reader who has everything up to `reached` has missed.
    pub(crate) fn missed(&self, reader: &Reader, reached: Cursor) -> MissedResult {
        let mut missed = Missed { frames: Vec::new(), reached, end: None };
        if sabotage::is(Sabotage::NoCatchUp) {
            let unread = reached.position < reader.authorized_position;
            missed.reached = self.local_head();
            return if unread {
                MissedResult::NotInMemory(reader.authorized_position)
            } else {
                MissedResult::Missed(missed)
            };
        }
        let events = match self.recent.after(reached) {
            After::Events(events) => events,
            After::Forgotten => return MissedResult::NotInMemory(self.recent.floor().position),
            After::NotYet => return MissedResult::ServerBehind,
            After::Diverged => return MissedResult::Diverged,
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
        MissedResult::Missed(missed)
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

    /// Returns a receiver of the local head's position. The channel closes when the workspace is
    /// removed from the hub.
    pub(crate) fn subscribe_local_head(&self) -> watch::Receiver<Position> {
        self.local_head_position.subscribe()
    }

    /// Returns true if this event is among the recent ones.
    pub(crate) fn has(&self, cursor: Cursor) -> bool {
        matches!(self.recent.after(cursor), After::Events(_))
    }

    /// Adds a stream whose reader has everything up to the local head. Later events are queued in
    /// the returned outbox.
    pub(crate) fn attach(&mut self, [id, tick]: [u64; 2], reader: Reader) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(self.backlogged.clone()));
        let stream = Stream { id, tick, reader, outbox: Arc::clone(&outbox) };
        // Most people have one stream.
        self.streams.entry(reader.user.id).or_insert_with(|| Vec::with_capacity(1)).push(stream);
        self.idle_since = None;
        outbox
    }

    pub(crate) fn detach(&mut self, id: u64, user_id: UserId) {
        if let Some(streams) = self.streams.get_mut(&user_id) {
            streams.retain(|stream| stream.id != id);
            if streams.is_empty() {
                self.streams.remove(&user_id);
                self.mark_versions.remove(&user_id);
            }
        }
        if self.streams.is_empty() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Applies entries of the log. The first must be the local head, which proves that the log
    /// still contains it.
    pub(crate) fn advance(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        match entries.split_first() {
            Some((first, rest)) if first.cursor == self.local_head() => self.append(rest),
            _ => Err(ApplyError::Diverged),
        }
    }

    /// Applies the next events of the log.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), ApplyError> {
        let mut wakers = Wakers::default();
        for entry in entries {
            if entry.cursor.position != self.local_head().position.next() {
                return Err(ApplyError::Diverged);
            }
            if entry.effect.is_none() {
                return Err(ApplyError::UnknownEffect);
            }
            let event = Event::new(entry);
            self.memberships.begin(entry);
            self.deliver(&event, &mut wakers);
            self.memberships.end(entry);
            self.recent.push(entry, event);
        }
        self.local_head_position.send_replace(self.local_head().position);
        Ok(())
    }

    /// Removes the oldest recent events beyond these limits.
    pub(crate) fn trim(&mut self, max_events: usize, max_bytes: usize) {
        let floor = self.recent.floor();
        let kept = self.recent.trim(max_events, max_bytes);
        if kept != floor.position {
            self.memberships.forget_before(kept);
        }
    }

    /// Returns the people with streams.
    pub(crate) fn people(&self) -> Vec<UserId> {
        self.streams.keys().copied().collect()
    }

    /// Queues the frame of an event that is not in the log.
    pub(crate) fn send(&mut self, ephemeral: &Ephemeral) {
        let user_id = ephemeral.user_id;
        if let EphemeralEvent::Typing { chat_id, .. } = ephemeral.event {
            if self.typing.admit((chat_id, user_id), Instant::now()) {
                self.send_typing(chat_id, user_id, &frame::ephemeral(&ephemeral.event));
            }
            return;
        }
        if !self.streams.contains_key(&user_id) || self.is_overtaken(ephemeral) {
            return;
        }
        let frame = frame::ephemeral(&ephemeral.event);
        let mut wakers = Wakers::default();
        for stream in self.streams.get(&user_id).into_iter().flatten() {
            stream.outbox.push(frame.clone(), &mut wakers);
        }
    }

    /// Tells the other members of a chat that a person is typing, but for those who are slow to read.
    fn send_typing(&self, chat_id: ChatId, typist: UserId, frame: &Frame) {
        let is_member = self.memberships.of(chat_id).is_some_and(|all| all.contains_key(&typist));
        if !is_member {
            return;
        }
        let mut wakers = Wakers::default();
        self.push_to_chat(chat_id, None, |streams| {
            for stream in streams.iter().filter(|stream| stream.reader.user.id != typist) {
                stream.outbox.push_if_not_backlogged(frame, &mut wakers);
            }
        });
    }

    /// Returns true if a later version of the same read mark was sent a moment ago: notifications of two
    /// servers may overtake each other. (After a failover, versions may begin lower.)
    fn is_overtaken(&mut self, ephemeral: &Ephemeral) -> bool {
        let EphemeralEvent::ReadStateUpdated(ReadState { chat_id, .. }) = ephemeral.event else {
            return false;
        };
        let versions = self.mark_versions.entry(ephemeral.user_id).or_default();
        let known = versions.get(&chat_id);
        let is_overtaken = known.is_some_and(|(version, sent_at)| {
            *version > ephemeral.version && sent_at.elapsed() < OVERTAKING_TIME
        });
        if !is_overtaken {
            versions.insert(chat_id, (ephemeral.version, Instant::now()));
        }
        is_overtaken
    }

    /// Adds the memory use and queue lengths of this workspace.
    pub(crate) fn add_to(&self, stats: &mut HubStats) {
        stats.recent_bytes += self.recent.bytes();
        for stream in self.streams.values().flatten() {
            let waiting = stream.outbox.len();
            stats.waiting += waiting;
            stats.longest = stats.longest.max(waiting);
        }
    }

    /// Returns true if an outbox is more than half full.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlogged.any()
    }

    /// Ends all streams.
    pub(crate) fn end(&self, end: End) {
        let mut wakers = Wakers::default();
        self.streams.values().flatten().for_each(|stream| stream.outbox.end(end, &mut wakers));
    }

    /// Queues a heartbeat, after all events up to its cursor, for streams that are due, and ends
    /// streams whose token has expired.
    pub(crate) fn tick(&self, number: u64, now: Timestamp) {
        let mut wakers = Wakers::default();
        let expired = End::Goodbye(GoodbyeReason::TokenExpired);
        let mut heartbeat = None;
        for Stream { tick, reader, outbox, .. } in self.streams.values().flatten() {
            if reader.user.expires_at <= now.0.timestamp() {
                outbox.end(expired, &mut wakers);
            } else if (number - tick).is_multiple_of(TICKS_PER_HEARTBEAT) {
                let frame = heartbeat.get_or_insert_with(|| self.heartbeat(now));
                outbox.push(frame.clone(), &mut wakers);
            }
        }
    }

    fn heartbeat(&self, now: Timestamp) -> Frame {
        frame::control(&Control::Heartbeat { cursor: self.local_head(), server_time: now })
    }

    fn deliver(&self, event: &Event, wakers: &mut Wakers) {
        let mut delivered = 0;
        let mut push_to_streams = |streams: &[Stream]| {
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
            (Some(chat_id), user_id) => self.push_to_chat(chat_id, user_id, push_to_streams),
            (None, Some(user_id)) => self.push_to_user(user_id, &mut push_to_streams),
            (None, None) => self.streams.values().for_each(|streams| push_to_streams(streams)),
        }
        counter!(metrics::DELIVERIES).increment(delivered);
    }

    fn push_to_user(&self, user_id: UserId, push_to_streams: &mut impl FnMut(&[Stream])) {
        if let Some(streams) = self.streams.get(&user_id) {
            push_to_streams(streams);
        }
    }

    /// Calls `push_to_streams` with the streams of the chat's members, and of `user_id` if that person
    /// is not a member.
    fn push_to_chat(
        &self,
        chat_id: ChatId,
        user_id: Option<UserId>,
        mut push_to_streams: impl FnMut(&[Stream]),
    ) {
        let no_members = HashMap::new();
        let members = self.memberships.of(chat_id).unwrap_or(&no_members);
        // Iterates over the smaller set: the members, or the people with streams.
        if members.len() <= self.streams.len() {
            for user_id in members.keys() {
                self.push_to_user(*user_id, &mut push_to_streams);
            }
        } else {
            let of_members =
                self.streams.iter().filter(|(user_id, _)| members.contains_key(user_id));
            of_members.for_each(|(_, streams)| push_to_streams(streams));
        }
        if let Some(user_id) = user_id.filter(|user_id| !members.contains_key(user_id)) {
            self.push_to_user(user_id, &mut push_to_streams);
        }
    }
}

#[cfg(test)]
mod tests;
