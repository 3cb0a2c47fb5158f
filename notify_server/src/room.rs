//! The rules of one workspace: who is in which chat, and which open streams an event is for.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::counter;
use bytes::Bytes;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Position, UserId, metrics};
use tokio::sync::watch;

use crate::frame::GoodbyeReason;
use crate::hub::Load;
use crate::memberships::{Membership, Memberships};
use crate::outbox::{End, Outbox};
use crate::recent::{After, Event, Recent};

/// What a stream is told at once of what it has missed, and how many events are looked at for it.
const MAX_FRAMES: usize = 256;
const MAX_EVENTS: usize = 2_000;

/// A workspace as it is at one position of its log.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) recent: Recent,
    /// Those that did not end before the oldest of the recent events.
    pub(crate) memberships: Vec<Membership>,
}

/// A workspace with open streams; changed by the entries of its log only, in order.
#[derive(Debug)]
pub(crate) struct Room {
    recent: Recent,
    memberships: Memberships,
    streams: HashMap<UserId, Vec<Stream>>,
    // Since when there have been none.
    deserted: Option<Instant>,
    place: watch::Sender<Position>,
}

/// A stream as its workspace knows it.
#[derive(Debug)]
struct Stream {
    id: u64,
    reader: AuthUser,
    outbox: Arc<Outbox>,
}

/// The log does not go on from where this workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Diverged;

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
    pub(crate) frames: Vec<Bytes>,
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
        event.ending.filter(|_| later).and_then(|ending| ending.reason_for(&self.user))
    }
}

impl Room {
    pub(crate) fn new(Snapshot { recent, memberships }: Snapshot) -> Self {
        let place = watch::Sender::new(recent.head().position);
        let memberships = Memberships::new(memberships);
        let (streams, deserted) = (HashMap::new(), Some(Instant::now()));
        Self { recent, memberships, streams, deserted, place }
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

    /// Adds a stream whose reader has everything up to the head.
    pub(crate) fn attach(&mut self, id: u64, reader: AuthUser, outbox: Arc<Outbox>) {
        let stream = Stream { id, reader, outbox };
        self.streams.entry(reader.id).or_default().push(stream);
        self.deserted = None;
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
    pub(crate) fn advance(&mut self, entries: &[Entry]) -> Result<(), Diverged> {
        let (first, rest) = entries.split_first().ok_or(Diverged)?;
        if first.cursor != self.head() {
            return Err(Diverged);
        }
        for entry in rest {
            if entry.cursor.position != self.head().position.next() {
                return Err(Diverged);
            }
            let event = Event::new(entry);
            self.memberships.begin(entry);
            self.deliver(&event);
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
    pub(crate) fn send(&self, user_id: UserId, frame: &Bytes) {
        for stream in self.streams.get(&user_id).into_iter().flatten() {
            stream.outbox.push(frame.clone());
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
        self.streams.values().flatten().any(|stream| stream.outbox.is_crowded())
    }

    /// Ends all streams.
    pub(crate) fn end(&self, end: End) {
        self.streams.values().flatten().for_each(|stream| stream.outbox.end(end));
    }

    fn deliver(&self, event: &Event) {
        let delivered = Cell::new(0);
        let tell = |streams: &[Stream]| {
            for stream in streams {
                if let Some(frame) = &event.frame {
                    stream.outbox.push(frame.clone());
                    delivered.update(|count| count + 1);
                }
                let reason = event.ending.and_then(|ending| ending.reason_for(&stream.reader));
                if let Some(reason) = reason {
                    stream.outbox.end(End::Goodbye(reason));
                }
            }
        };
        match (event.chat_id, event.user_id) {
            (Some(chat_id), user_id) => self.tell_chat(chat_id, user_id, tell),
            (None, Some(user_id)) => self.tell_user(user_id, &tell),
            (None, None) => self.streams.values().for_each(|streams| tell(streams)),
        }
        counter!(metrics::DELIVERIES).increment(delivered.get());
    }

    fn tell_user(&self, user_id: UserId, tell: &impl Fn(&[Stream])) {
        if let Some(streams) = self.streams.get(&user_id) {
            tell(streams);
        }
    }

    /// Its members, and one more person.
    fn tell_chat(&self, chat_id: ChatId, user_id: Option<UserId>, tell: impl Fn(&[Stream])) {
        let nobody = HashMap::new();
        let members = self.memberships.of(chat_id).unwrap_or(&nobody);
        // Whichever are fewer: the members or the people who are here.
        if members.len() <= self.streams.len() {
            for user_id in members.keys() {
                self.tell_user(*user_id, &tell);
            }
        } else {
            let here = self.streams.iter().filter(|(user_id, _)| members.contains_key(user_id));
            here.for_each(|(_, streams)| tell(streams));
        }
        if let Some(user_id) = user_id.filter(|user_id| !members.contains_key(user_id)) {
            self.tell_user(user_id, &tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use fechatter_core::{MessageId, SessionId, WorkspaceId};
    use futures_util::FutureExt;

    use super::*;
    use crate::outbox::Next;

    const LUNCH: ChatId = ChatId(1);
    const PHONE: SessionId = SessionId(uuid::Uuid::from_u128(1));
    const MESSAGE: MessageId = MessageId(1);
    const LAPTOP: SessionId = SessionId(uuid::Uuid::from_u128(2));

    /// A workspace at position 10 where users 1 and 2 are in one chat.
    fn room() -> Room {
        let member = |user| Membership {
            chat_id: LUNCH,
            user_id: UserId(user),
            joined: Position(1),
            left: None,
        };
        let recent = Recent::new(&[entry(10, "Something", None, None)]).unwrap();
        Room::new(Snapshot { recent, memberships: vec![member(1), member(2)] })
    }

    fn at(position: i64) -> Cursor {
        Cursor { position: Position(position), .."00000001-1".parse().unwrap() }
    }

    fn entry(position: i64, kind: &str, chat_id: Option<ChatId>, user: Option<i64>) -> Entry {
        Entry {
            workspace_id: WorkspaceId(1),
            cursor: at(position),
            kind: kind.into(),
            chat_id,
            user_id: user.map(UserId),
            message_id: None,
            joined: Vec::new(),
            data: Some("{}".into()),
        }
    }

    fn reader(user: i64, session_id: SessionId) -> AuthUser {
        AuthUser { id: UserId(user), workspace_id: WorkspaceId(1), session_id, expires_at: 0 }
    }

    /// The positions that a person missed who was last here at another one, and what ends them.
    fn missed(room: &Room, user: i64, since: i64) -> (Vec<i64>, Option<GoodbyeReason>) {
        let reader = Reader { user: reader(user, PHONE), checked_at: at(10).position };
        let Answer::Missed(missed) = room.missed(&reader, at(since)) else {
            panic!("{since} is not known here")
        };
        let positions = missed.frames.iter().map(position).collect();
        (positions, missed.end)
    }

    fn position(frame: &Bytes) -> i64 {
        let text = str::from_utf8(frame).unwrap();
        let id = text.strip_prefix("id: ").unwrap().lines().next().unwrap();
        id.parse::<Cursor>().unwrap().position.0
    }

    impl Room {
        fn joins(&mut self, user: i64, session_id: SessionId) -> Arc<Outbox> {
            let reader = reader(user, session_id);
            let outbox = Arc::new(Outbox::default());
            self.attach(0, reader, Arc::clone(&outbox));
            outbox
        }

        fn here<const N: usize>(&mut self, users: [i64; N]) -> [Arc<Outbox>; N] {
            users.map(|user| self.joins(user, PHONE))
        }

        /// Takes the next event of the log.
        fn takes(&mut self, kind: &str, chat: Option<ChatId>, user: Option<i64>) {
            self.takes_data(kind, chat, user, &[], Some("{}"));
        }

        fn takes_data(
            &mut self,
            kind: &str,
            chat_id: Option<ChatId>,
            user: Option<i64>,
            joined: &[i64],
            data: Option<&str>,
        ) {
            let own = self.head().position.0;
            let next = Entry {
                joined: joined.iter().copied().map(UserId).collect(),
                data: data.map(|data| Bytes::from(data.to_owned())),
                ..entry(own + 1, kind, chat_id, user)
            };
            self.advance(&[entry(own, "Something", None, None), next]).unwrap();
        }
    }

    /// The positions that a stream has received since last asked, and its end.
    fn received(outbox: &Outbox) -> (Vec<i64>, Option<End>) {
        let mut positions = Vec::new();
        loop {
            match outbox.next().now_or_never() {
                Some(Next::Frame(frame)) => {
                    positions.push(position(&frame));
                }
                Some(Next::End(end)) => return (positions, Some(end)),
                None => return (positions, None),
            }
        }
    }

    #[track_caller]
    fn assert_received<const N: usize>(streams: &[Arc<Outbox>; N], expected: [&[i64]; N]) {
        for (stream, expected) in streams.iter().zip(expected) {
            assert_eq!(received(stream), (expected.to_vec(), None));
        }
    }

    #[test]
    fn the_columns_decide_the_audience() {
        let mut room = room();
        let streams = room.here([1, 2, 3]);

        room.takes("WorkspaceUpdated", None, None);
        room.takes("ReadStateUpdated", None, Some(3));
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("ReactionOfTheFuture", Some(LUNCH), Some(3));
        room.takes("NewMessage", Some(ChatId(2)), None);
        room.takes("MemberUpdated", Some(LUNCH), Some(2));

        assert_received(&streams, [&[11, 13, 14, 16], &[11, 13, 14, 16], &[11, 12, 14]]);
    }

    #[test]
    fn the_audience_is_the_same_however_few_are_here() {
        let mut room = room();
        let streams = room.here([2]);

        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("UserLeftChat", Some(LUNCH), Some(2));
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("UserJoinedChat", Some(LUNCH), Some(2));

        assert_received(&streams, [&[11, 12, 14]]);
    }

    #[test]
    fn both_ends_of_a_membership_are_part_of_it() {
        let mut room = room();
        let streams = room.here([1, 2, 3]);

        room.takes("UserJoinedChat", Some(LUNCH), Some(3));
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("UserLeftChat", Some(LUNCH), Some(2));
        room.takes("NewMessage", Some(LUNCH), None);

        assert_received(&streams, [&[11, 12, 13, 14], &[11, 12, 13], &[11, 12, 13, 14]]);
    }

    #[test]
    fn a_chat_begins_and_ends_with_its_events() {
        let mut room = room();
        let streams = room.here([1, 3]);
        let dinner = Some(ChatId(2));

        room.takes_data("NewChat", dinner, None, &[2, 3], Some("{}"));
        room.takes("NewMessage", dinner, None);
        room.takes("ChatDeleted", dinner, None);
        room.takes("NewMessage", dinner, None);

        assert_received(&streams, [&[], &[11, 12, 13]]);
    }

    #[test]
    fn an_event_with_nothing_to_tell_only_moves_the_position() {
        let mut room = room();
        let streams = room.here([1]);

        room.takes_data("NewMessage", Some(LUNCH), None, &[], None);
        room.takes("NewMessage", Some(LUNCH), None);

        assert_received(&streams, [&[12]]);
        assert_eq!(room.head(), at(12));
    }

    #[test]
    fn a_revoked_session_hears_of_it_and_no_more() {
        let mut room = room();
        let (phone, laptop) = (room.joins(1, PHONE), room.joins(1, LAPTOP));
        let other = room.joins(2, PHONE);

        let data = format!(r#"{{"event":"SessionRevoked","session_id":"{PHONE}"}}"#);
        room.takes_data("SessionRevoked", None, Some(1), &[], Some(&data));
        room.takes("NewMessage", Some(LUNCH), None);

        let revoked = End::Goodbye(GoodbyeReason::SessionRevoked);
        assert_eq!(received(&phone), (vec![11], Some(revoked)));
        assert_eq!(received(&laptop), (vec![11, 12], None));
        assert_eq!(received(&other), (vec![12], None));
    }

    #[test]
    fn a_log_that_does_not_go_on_is_noticed() {
        let entry = |cursor| Entry { cursor, ..entry(1, "NewMessage", Some(LUNCH), None) };
        let other_stamp = Cursor { position: Position(10), .."0000000f-1".parse().unwrap() };
        for log in [
            vec![],
            vec![entry(at(11))],
            vec![entry(other_stamp), entry(at(11))],
            vec![entry(at(10)), entry(at(12))],
        ] {
            let mut room = room();
            let streams = room.here([1]);
            assert_eq!(room.advance(&log), Err(Diverged), "{log:?}");
            assert_received(&streams, [&[]]);
        }
    }

    #[test]
    fn who_was_away_gets_what_they_would_have_got_live() {
        let mut room = room();
        let live = room.here([1, 2, 3]);

        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("UserJoinedChat", Some(LUNCH), Some(3));
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("UserLeftChat", Some(LUNCH), Some(2));
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes("WorkspaceUpdated", None, None);
        room.takes("UserJoinedChat", Some(LUNCH), Some(2));
        room.takes("ReadStateUpdated", None, Some(1));
        room.takes("ChatDeleted", Some(LUNCH), None);

        for (outbox, user) in live.iter().zip([1, 2, 3]) {
            let (all, _) = received(outbox);
            for since in 10..=19 {
                let later: Vec<_> = all.iter().copied().filter(|at| *at > since).collect();
                assert_eq!(missed(&room, user, since), (later, None), "{user} since {since}");
            }
        }
    }

    #[test]
    fn what_was_said_in_a_deleted_chat_is_not_told_again() {
        let mut room = room();
        let said =
            Entry { message_id: Some(MESSAGE), ..entry(11, "NewMessage", Some(LUNCH), None) };
        room.advance(&[entry(10, "Something", None, None), said]).unwrap();
        assert_eq!(missed(&room, 1, 10), (vec![11], None));

        room.takes("ChatDeleted", Some(LUNCH), None);

        assert_eq!(missed(&room, 1, 10), (vec![12], None));
    }

    #[test]
    fn a_message_that_has_changed_is_for_the_log_to_tell() {
        let mut room = room();
        let about = |position, kind| Entry {
            message_id: Some(MESSAGE),
            ..entry(position, kind, Some(LUNCH), None)
        };
        room.advance(&[entry(10, "Something", None, None), about(11, "NewMessage")]).unwrap();
        room.takes("NewMessage", Some(LUNCH), None);
        room.advance(&[about(12, "NewMessage"), about(13, "MessageUpdated")]).unwrap();

        let reader = Reader { user: reader(1, PHONE), checked_at: Position(10) };
        let answer = room.missed(&reader, at(11));
        assert!(matches!(answer, Answer::Forgotten(Position(12))), "{answer:?}");
        assert_eq!(missed(&room, 1, 12), (vec![13], None));
    }

    #[test]
    fn an_ending_that_was_missed_is_the_last_thing_told() {
        let mut room = room();
        let suspended = r#"{"event":"UserUpdated","id":1,"status":"Suspended"}"#;
        let active = r#"{"event":"UserUpdated","id":1,"status":"Active"}"#;
        room.takes_data("UserUpdated", None, None, &[], Some(active));
        room.takes_data("UserUpdated", None, None, &[], Some(suspended));
        room.takes("NewMessage", Some(LUNCH), None);

        assert_eq!(missed(&room, 1, 10), (vec![11, 12], Some(GoodbyeReason::Suspended)));
        assert_eq!(missed(&room, 2, 10), (vec![11, 12, 13], None));
        // Where the database has said so later, it was about an earlier suspension.
        let reader = Reader { user: reader(1, PHONE), checked_at: Position(12) };
        let Answer::Missed(missed) = room.missed(&reader, at(10)) else {
            panic!("10 is not known here")
        };
        assert_eq!((missed.end, missed.reached), (None, at(13)));
    }

    #[test]
    fn the_suspended_and_the_removed_hear_of_it_and_no_more() {
        let mut room = room();
        let [alice, bob, carol] = room.here([1, 2, 3]);

        let suspended = r#"{"event":"UserUpdated","id":1,"status":"Suspended"}"#;
        room.takes_data("UserUpdated", None, None, &[], Some(suspended));
        let removed = r#"{"event":"UserLeftWorkspace","user_id":2,"reason":"removed"}"#;
        room.takes_data("UserLeftWorkspace", None, None, &[], Some(removed));
        room.takes("WorkspaceUpdated", None, None);

        let goodbye = |reason| Some(End::Goodbye(reason));
        assert_eq!(received(&alice), (vec![11], goodbye(GoodbyeReason::Suspended)));
        assert_eq!(received(&bob), (vec![11, 12], goodbye(GoodbyeReason::Removed)));
        assert_eq!(received(&carol), (vec![11, 12, 13], None));
    }

    #[test]
    fn only_so_much_is_kept_and_told_at_once() {
        let mut room = room();
        for _ in 0..1_000 {
            room.takes("NewMessage", Some(LUNCH), None);
        }
        let reader = Reader { user: reader(1, PHONE), checked_at: Position(10) };
        let Answer::Missed(first) = room.missed(&reader, at(500)) else { panic!("not known") };
        assert_eq!((first.frames.len(), first.reached), (MAX_FRAMES, at(756)));

        room.trim(100, usize::MAX);
        let forgotten = room.missed(&reader, at(910));
        assert!(matches!(forgotten, Answer::Forgotten(Position(911))), "{forgotten:?}");
        assert_eq!(missed(&room, 1, 911).0.len(), 99);
        room.trim(usize::MAX, 0);
        assert_eq!(missed(&room, 1, 1_010), (vec![], None));
        assert_eq!(room.head(), at(1_010));
    }

    #[test]
    fn a_cursor_that_is_not_here_is_noticed() {
        let mut room = room();
        let reader = Reader { user: reader(1, PHONE), checked_at: Position(10) };
        let other = Cursor { position: Position(10), .."0000000f-1".parse().unwrap() };
        assert!(matches!(room.missed(&reader, other), Answer::Diverged));
        assert!(matches!(room.missed(&reader, at(11)), Answer::Behind));
        let place = room.place();

        room.takes("NewMessage", Some(LUNCH), None);

        assert_eq!(*place.borrow(), Position(11));
        assert_eq!(missed(&room, 1, 11), (vec![], None));
    }
}
