//! The rules of one workspace: who is in which chat, and which open streams an event is for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use fechatter_core::log::{Cursor, Entry};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Position, SessionId, UserId};
use serde::Deserialize;
use tracing::error;

use crate::frame::{self, GoodbyeReason};
use crate::outbox::{End, Outbox};

/// A workspace as it is at one position of its log.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) head: Cursor,
    pub(crate) members: HashMap<ChatId, HashSet<UserId>>,
}

/// A workspace with open streams; changed by the entries of its log only, in order.
#[derive(Debug)]
pub(crate) struct Room {
    head: Cursor,
    members: HashMap<ChatId, HashSet<UserId>>,
    streams: HashMap<UserId, Vec<Stream>>,
}

/// A stream as its workspace knows it.
#[derive(Debug)]
struct Stream {
    id: u64,
    session_id: SessionId,
    // Where its own reading of the log ends: what stands there or before is not for us to send.
    after: Position,
    outbox: Arc<Outbox>,
}

/// The log does not go on from where this workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Diverged;

#[derive(Deserialize)]
struct SessionRevoked {
    session_id: SessionId,
}

/// The session that an event ends.
pub(crate) fn revoked_session(entry: &Entry) -> Option<SessionId> {
    if entry.kind != "SessionRevoked" {
        return None;
    }
    let revoked: Option<SessionRevoked> =
        entry.data.as_ref().and_then(|data| serde_json::from_slice(data).ok());
    if revoked.is_none() {
        error!(cursor = %entry.cursor, "a SessionRevoked names no session");
    }
    revoked.map(|revoked| revoked.session_id)
}

impl Room {
    pub(crate) fn new(Snapshot { head, members }: Snapshot) -> Self {
        Self { head, members, streams: HashMap::new() }
    }

    /// The newest event that it has seen.
    pub(crate) fn head(&self) -> Cursor {
        self.head
    }

    /// Whether nobody is here any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Adds a stream whose reader has everything up to `reached`.
    pub(crate) fn attach(
        &mut self,
        id: u64,
        reader: AuthUser,
        reached: Position,
        outbox: Arc<Outbox>,
    ) {
        let after = reached.max(self.head.position);
        let stream = Stream { id, session_id: reader.session_id, after, outbox };
        self.streams.entry(reader.id).or_default().push(stream);
    }

    pub(crate) fn detach(&mut self, id: u64, user_id: UserId) {
        if let Some(streams) = self.streams.get_mut(&user_id) {
            streams.retain(|stream| stream.id != id);
            if streams.is_empty() {
                self.streams.remove(&user_id);
            }
        }
    }

    /// Takes what the log says from its own newest event on, which must still be there.
    pub(crate) fn advance(&mut self, entries: &[Entry]) -> Result<(), Diverged> {
        let (first, rest) = entries.split_first().ok_or(Diverged)?;
        if first.cursor != self.head {
            return Err(Diverged);
        }
        for entry in rest {
            if entry.cursor.position != self.head.position.next() {
                return Err(Diverged);
            }
            self.deliver(entry);
            self.head = entry.cursor;
        }
        Ok(())
    }

    /// Hands a frame past the log to one person's streams.
    pub(crate) fn send(&self, user_id: UserId, frame: &Bytes) {
        for stream in self.streams.get(&user_id).into_iter().flatten() {
            stream.outbox.push(frame.clone());
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

    /// A membership has both its ends: who joins gets the event of it, and so does who leaves.
    fn deliver(&mut self, entry: &Entry) {
        let kind = entry.kind.as_str();
        match (kind, entry.chat_id, entry.user_id) {
            ("NewChat", Some(chat_id), _) => {
                self.members.entry(chat_id).or_default().extend(&entry.joined);
            }
            ("UserJoinedChat", Some(chat_id), Some(user_id)) => {
                self.members.entry(chat_id).or_default().insert(user_id);
            }
            _ => {}
        }
        if let Some(frame) = frame::durable(entry) {
            self.for_audience(entry, |stream| stream.outbox.push(frame.clone()));
        }
        match (kind, entry.chat_id, entry.user_id) {
            ("UserLeftChat", Some(chat_id), Some(user_id)) => {
                if let Some(members) = self.members.get_mut(&chat_id) {
                    members.remove(&user_id);
                }
            }
            ("ChatDeleted", Some(chat_id), _) => {
                self.members.remove(&chat_id);
            }
            _ => {}
        }
        if let Some(session_id) = revoked_session(entry) {
            self.for_audience(entry, |stream| {
                if stream.session_id == session_id {
                    stream.outbox.end(End::Goodbye(GoodbyeReason::SessionRevoked));
                }
            });
        }
    }

    fn for_audience(&self, entry: &Entry, tell: impl Fn(&Stream)) {
        let tell = |streams: &[Stream]| {
            let awaiting = streams.iter().filter(|stream| stream.after < entry.cursor.position);
            awaiting.for_each(&tell);
        };
        let tell_user = |user_id| {
            if let Some(streams) = self.streams.get(&user_id) {
                tell(streams);
            }
        };
        let Some(chat_id) = entry.chat_id else {
            match entry.user_id {
                Some(user_id) => tell_user(user_id),
                None => self.streams.values().for_each(|streams| tell(streams)),
            }
            return;
        };
        let nobody = HashSet::new();
        let members = self.members.get(&chat_id).unwrap_or(&nobody);
        // Whichever are fewer: the members or the people who are here.
        if members.len() <= self.streams.len() {
            members.iter().copied().for_each(tell_user);
        } else {
            let here = self.streams.iter().filter(|(user_id, _)| members.contains(user_id));
            here.for_each(|(_, streams)| tell(streams));
        }
        if let Some(user_id) = entry.user_id.filter(|user_id| !members.contains(user_id)) {
            tell_user(user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use fechatter_core::WorkspaceId;
    use futures_util::FutureExt;

    use super::*;
    use crate::outbox::Next;

    const LUNCH: ChatId = ChatId(1);
    const PHONE: SessionId = SessionId(uuid::Uuid::from_u128(1));
    const LAPTOP: SessionId = SessionId(uuid::Uuid::from_u128(2));

    /// A workspace at position 10 where users 1 and 2 are in one chat.
    fn room() -> Room {
        let members = HashMap::from([(LUNCH, HashSet::from([UserId(1), UserId(2)]))]);
        Room::new(Snapshot { head: at(10), members })
    }

    fn at(position: i64) -> Cursor {
        Cursor { position: Position(position), .."00000001-1".parse().unwrap() }
    }

    impl Room {
        fn joins(&mut self, user: i64, session_id: SessionId, reached: i64) -> Arc<Outbox> {
            let (id, workspace_id) = (UserId(user), WorkspaceId(1));
            let reader = AuthUser { id, workspace_id, session_id, expires_at: 0 };
            let outbox = Arc::new(Outbox::default());
            self.attach(0, reader, Position(reached), Arc::clone(&outbox));
            outbox
        }

        fn here<const N: usize>(&mut self, users: [i64; N]) -> [Arc<Outbox>; N] {
            users.map(|user| self.joins(user, PHONE, 0))
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
            let entry = |position, data| Entry {
                workspace_id: WorkspaceId(1),
                cursor: at(position),
                kind: kind.into(),
                chat_id,
                user_id: user.map(UserId),
                joined: joined.iter().copied().map(UserId).collect(),
                data,
            };
            let data = data.map(|data| Bytes::from(data.to_owned()));
            let own = self.head.position.0;
            self.advance(&[entry(own, None), entry(own + 1, data)]).unwrap();
        }
    }

    /// The positions that a stream has received since last asked, and its end.
    fn received(outbox: &Outbox) -> (Vec<i64>, Option<End>) {
        let mut positions = Vec::new();
        loop {
            match outbox.next().now_or_never() {
                Some(Next::Frame(frame)) => {
                    let text = str::from_utf8(&frame).unwrap();
                    let id = text.strip_prefix("id: ").unwrap().lines().next().unwrap();
                    positions.push(id.parse::<Cursor>().unwrap().position.0);
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
        let (phone, laptop) = (room.joins(1, PHONE, 0), room.joins(1, LAPTOP, 0));
        let other = room.joins(2, PHONE, 0);

        let data = format!(r#"{{"event":"SessionRevoked","session_id":"{PHONE}"}}"#);
        room.takes_data("SessionRevoked", None, Some(1), &[], Some(&data));
        room.takes("NewMessage", Some(LUNCH), None);

        let revoked = End::Goodbye(GoodbyeReason::SessionRevoked);
        assert_eq!(received(&phone), (vec![11], Some(revoked)));
        assert_eq!(received(&laptop), (vec![11, 12], None));
        assert_eq!(received(&other), (vec![12], None));
    }

    #[test]
    fn what_a_stream_has_read_itself_neither_comes_again_nor_ends_it() {
        let mut room = room();
        let ahead = room.joins(1, PHONE, 12);

        let data = format!(r#"{{"event":"SessionRevoked","session_id":"{PHONE}"}}"#);
        room.takes("NewMessage", Some(LUNCH), None);
        room.takes_data("SessionRevoked", None, Some(1), &[], Some(&data));
        room.takes("NewMessage", Some(LUNCH), None);

        assert_eq!(received(&ahead), (vec![13], None));
    }

    #[test]
    fn a_log_that_does_not_go_on_is_noticed() {
        let entry = |cursor| Entry {
            workspace_id: WorkspaceId(1),
            cursor,
            kind: "NewMessage".into(),
            chat_id: Some(LUNCH),
            user_id: None,
            joined: Vec::new(),
            data: Some("{}".into()),
        };
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
}
