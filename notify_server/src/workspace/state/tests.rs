//! Tests of the rules for audiences, memberships and the ends of streams.

use fechatter_core::event::Effect::{self, ClosesChat, Joins, Leaves, None as Nothing};
use fechatter_core::{MessageId, SessionId, WorkspaceId};

use super::*;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::workspace::outbox::Next;

const LUNCH: ChatId = ChatId(1);
const PHONE: SessionId = SessionId(uuid::Uuid::from_u128(1));
const MESSAGE: MessageId = MessageId(1);
const LAPTOP: SessionId = SessionId(uuid::Uuid::from_u128(2));
const TABLET: SessionId = SessionId(uuid::Uuid::from_u128(3));

/// A workspace at position 10 where users 1 and 2 are in one chat.
fn state() -> WorkspaceState {
    let member = |user| Membership {
        chat_id: LUNCH,
        user_id: UserId(user),
        joined: Position(1),
        left: None,
    };
    let recent = Recent::new(&[entry(10, Nothing, None, None)]).unwrap();
    WorkspaceState::new(Snapshot { recent, memberships: vec![member(1), member(2)] })
}

fn at(position: i64) -> Cursor {
    Cursor { position: Position(position), .."00000001-1".parse().unwrap() }
}

/// An event whose name does not show its effect.
fn entry(position: i64, effect: Effect, chat_id: Option<ChatId>, user: Option<i64>) -> Entry {
    let joined = if effect == Joins { user.map(UserId).into_iter().collect() } else { Vec::new() };
    Entry {
        workspace_id: WorkspaceId(1),
        cursor: at(position),
        kind: "OfTheFuture".into(),
        effect: Some(effect),
        chat_id,
        user_id: user.map(UserId),
        message_id: None,
        joined,
        data: Some("{}".into()),
        shows_message: true,
        shows_person: None,
        changed: None,
        parent: None,
    }
}

fn reader(user: i64, session_id: SessionId) -> AuthUser {
    AuthUser { id: UserId(user), workspace_id: WorkspaceId(1), session_id, expires_at: 0 }
}

/// Returns the positions that a person missed since another position, and the reason that ends
/// their stream.
fn missed(state: &WorkspaceState, user: i64, since: i64) -> (Vec<i64>, Option<GoodbyeReason>) {
    let reader = Reader { user: reader(user, PHONE), authorized_position: at(10).position };
    let MissedResult::Missed(missed) = state.missed(&reader, at(since)) else {
        panic!("{since} is not known here")
    };
    let positions = missed.frames.iter().map(position).collect();
    (positions, missed.end)
}

fn position(frame: &Frame) -> i64 {
    let text = frame.text();
    let text = str::from_utf8(text.as_ref()).unwrap();
    let id = text.strip_prefix("id: ").unwrap().lines().next().unwrap();
    id.parse::<Cursor>().unwrap().position.0
}

impl WorkspaceState {
    fn joins(&mut self, user: i64, session_id: SessionId) -> Arc<Outbox> {
        let reader =
            Reader { user: reader(user, session_id), authorized_position: at(10).position };
        self.attach([0, 0], reader)
    }

    fn here<const N: usize>(&mut self, users: [i64; N]) -> [Arc<Outbox>; N] {
        users.map(|user| self.joins(user, PHONE))
    }

    /// Applies the next event of the log.
    fn takes(&mut self, effect: Effect, chat: Option<ChatId>, user: Option<i64>) {
        let own = self.local_head().position.0;
        self.advance(&[entry(own, Nothing, None, None), entry(own + 1, effect, chat, user)])
            .unwrap();
    }
}

/// Returns the positions that a stream has received since the last call, and its end.
fn received(outbox: &Outbox) -> (Vec<i64>, Option<End>) {
    let mut positions = Vec::new();
    loop {
        let mut frames = VecDeque::new();
        match outbox.poll_next(&mut Context::from_waker(Waker::noop()), &mut frames) {
            Poll::Ready(Next::Frames) => positions.extend(frames.iter().map(position)),
            Poll::Ready(Next::End(end)) => return (positions, Some(end)),
            Poll::Pending => return (positions, None),
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
    let mut state = state();
    let streams = state.here([1, 2, 3]);

    state.takes(Nothing, None, None);
    state.takes(Nothing, None, Some(3));
    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Nothing, Some(LUNCH), Some(3));
    state.takes(Nothing, Some(ChatId(2)), None);
    state.takes(Nothing, Some(LUNCH), Some(2));

    assert_received(&streams, [&[11, 13, 14, 16], &[11, 13, 14, 16], &[11, 12, 14]]);
}

#[test]
fn the_audience_does_not_depend_on_the_number_of_streams() {
    let mut state = state();
    let streams = state.here([2]);

    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Leaves, Some(LUNCH), Some(2));
    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Joins, Some(LUNCH), Some(2));

    assert_received(&streams, [&[11, 12, 14]]);
}

#[test]
fn both_ends_of_a_membership_are_part_of_it() {
    let mut state = state();
    let streams = state.here([1, 2, 3]);

    state.takes(Joins, Some(LUNCH), Some(3));
    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Leaves, Some(LUNCH), Some(2));
    state.takes(Nothing, Some(LUNCH), None);

    assert_received(&streams, [&[11, 12, 13, 14], &[11, 12, 13], &[11, 12, 13, 14]]);
}

#[test]
fn a_chat_begins_and_ends_with_its_events() {
    let mut state = state();
    let streams = state.here([1, 3]);
    let dinner = Some(ChatId(2));

    let joined = [2, 3].map(UserId).into();
    let begins = Entry { joined, ..entry(11, Joins, dinner, None) };
    state.advance(&[entry(10, Nothing, None, None), begins]).unwrap();
    state.takes(Nothing, dinner, None);
    state.takes(ClosesChat, dinner, None);
    state.takes(Nothing, dinner, None);

    assert_received(&streams, [&[], &[11, 12, 13]]);
}

#[test]
fn an_event_without_data_only_advances_the_head() {
    let mut state = state();
    let streams = state.here([1]);

    let gone = Entry { data: None, ..entry(11, Nothing, Some(LUNCH), None) };
    state.advance(&[entry(10, Nothing, None, None), gone]).unwrap();
    state.takes(Nothing, Some(LUNCH), None);

    assert_received(&streams, [&[12]]);
    assert_eq!(state.local_head(), at(12));
}

#[test]
fn a_revoked_session_receives_its_revocation_and_nothing_later() {
    let mut state = state();
    let (phone, laptop) = (state.joins(1, PHONE), state.joins(1, LAPTOP));
    let other = state.joins(2, PHONE);

    state.takes(Effect::EndsSessions(vec![TABLET, PHONE]), None, Some(1));
    state.takes(Nothing, Some(LUNCH), None);

    let revoked = End::Goodbye(GoodbyeReason::SessionRevoked);
    assert_eq!(received(&phone), (vec![11], Some(revoked)));
    assert_eq!(received(&laptop), (vec![11, 12], None));
    assert_eq!(received(&other), (vec![12], None));
}

#[test]
fn a_log_that_does_not_continue_from_the_head_is_detected() {
    let entry = |cursor| Entry { cursor, ..entry(1, Nothing, Some(LUNCH), None) };
    let other_stamp = Cursor { position: Position(10), .."0000000f-1".parse().unwrap() };
    for log in [
        vec![],
        vec![entry(at(11))],
        vec![entry(other_stamp), entry(at(11))],
        vec![entry(at(10)), entry(at(12))],
    ] {
        let mut state = state();
        let streams = state.here([1]);
        assert_eq!(state.advance(&log), Err(ApplyError::Diverged), "{log:?}");
        assert_received(&streams, [&[]]);
    }
}

#[test]
fn an_unknown_effect_is_an_error_and_its_event_is_not_delivered() {
    let mut state = state();
    let streams = state.here([1]);
    let unknown = Entry { effect: None, ..entry(11, Nothing, Some(LUNCH), None) };

    let advanced = state.advance(&[entry(10, Nothing, None, None), unknown.clone()]);

    assert_eq!(advanced, Err(ApplyError::UnknownEffect));
    assert_received(&streams, [&[]]);
    // A workspace that is loaded later has it among its recent events. A stream that reaches it ends.
    let recent = Recent::new(&[entry(10, Nothing, None, None), unknown]).unwrap();
    let member = Membership { chat_id: LUNCH, user_id: UserId(1), joined: Position(1), left: None };
    let loaded = WorkspaceState::new(Snapshot { recent, memberships: vec![member] });
    assert_eq!(missed(&loaded, 1, 10), (vec![11], Some(GoodbyeReason::Draining)));
    // The stream of a reader who was authorised at its position or later does not end.
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(11) };
    let MissedResult::Missed(missed) = loaded.missed(&reader, at(10)) else { panic!("not known") };
    assert_eq!(missed.end, None);
}

#[test]
fn an_event_that_does_not_change_its_message_changes_no_recent_event() {
    let mut state = state();
    let about = |position| Entry {
        message_id: Some(MESSAGE),
        ..entry(position, Nothing, Some(LUNCH), None)
    };
    for position in 11..1_011 {
        state.advance(&[about(position - 1), about(position)]).unwrap();
    }

    assert_eq!(missed(&state, 1, 10).0.len(), MAX_FRAMES);
    assert_eq!(missed(&state, 1, 1_000).0, (1_001..=1_010).collect::<Vec<_>>());
}

#[test]
fn missed_events_from_memory_equal_the_live_events() {
    let mut state = state();
    let live = state.here([1, 2, 3]);

    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Joins, Some(LUNCH), Some(3));
    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Leaves, Some(LUNCH), Some(2));
    state.takes(Nothing, Some(LUNCH), None);
    state.takes(Nothing, None, None);
    state.takes(Joins, Some(LUNCH), Some(2));
    state.takes(Nothing, None, Some(1));
    state.takes(ClosesChat, Some(LUNCH), None);

    for (outbox, user) in live.iter().zip([1, 2, 3]) {
        let (all, _) = received(outbox);
        for since in 10..=19 {
            let later: Vec<_> = all.iter().copied().filter(|at| *at > since).collect();
            assert_eq!(missed(&state, user, since), (later, None), "{user} since {since}");
        }
    }
}

#[test]
fn messages_of_a_deleted_chat_are_not_sent_again() {
    let said = Entry { message_id: Some(MESSAGE), ..entry(9, Nothing, Some(LUNCH), None) };
    let deleted = entry(10, ClosesChat, Some(LUNCH), None);
    let recent = Recent::new(&[entry(8, Nothing, None, None), said, deleted]).unwrap();
    let bob = Membership {
        chat_id: LUNCH,
        user_id: UserId(1),
        joined: Position(1),
        left: Some(Position(10)),
    };
    let loaded = WorkspaceState::new(Snapshot { recent, memberships: vec![bob] });
    assert_eq!(missed(&loaded, 1, 8), (vec![10], None));

    let mut state = state();
    let said = Entry { message_id: Some(MESSAGE), ..entry(11, Nothing, Some(LUNCH), None) };
    state.advance(&[entry(10, Nothing, None, None), said]).unwrap();
    assert_eq!(missed(&state, 1, 10), (vec![11], None));

    state.takes(ClosesChat, Some(LUNCH), None);

    assert_eq!(missed(&state, 1, 10), (vec![12], None));
}

/// Events about messages: the second shows another message, the third is about the first message.
fn a_conversation(state: &mut WorkspaceState) {
    let sent = |position, id| Entry {
        message_id: Some(MessageId(id)),
        data: Some(format!(r#"{{"event":"OfTheFuture","content":"before {id}"}}"#).into()),
        ..entry(position, Nothing, Some(LUNCH), None)
    };
    let about_first = Entry { shows_message: false, ..sent(13, 1) };
    let log = [entry(10, Nothing, None, None), sent(11, 1), sent(12, 2), about_first];
    state.advance(&log).unwrap();
}

fn texts(state: &WorkspaceState, since: i64) -> Vec<String> {
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(10) };
    let MissedResult::Missed(missed) = state.missed(&reader, at(since)) else {
        panic!("not known")
    };
    let text = |frame: &Frame| str::from_utf8(frame.text().as_ref()).unwrap().to_owned();
    missed.frames.iter().map(text).collect()
}

#[test]
fn a_changed_message_is_sent_again_in_its_new_state() {
    let mut state = state();
    a_conversation(&mut state);
    let before = texts(&state, 10);
    let changes = Entry {
        message_id: Some(MessageId(1)),
        data: Some(r#"{"event":"Changed","content":"after 1"}"#.into()),
        changed: Some(r#"{"content":"after 1"}"#.into()),
        kind: "Changed".into(),
        ..entry(14, Effect::ChangesMessage, Some(LUNCH), None)
    };
    state.advance(&[entry(13, Nothing, None, None), changes.clone()]).unwrap();

    let after = texts(&state, 10);
    assert_eq!(after[0], before[0].replace("before", "after"));
    assert_eq!(after[1..3], before[1..]);
    assert!(after[3].contains("event: Changed") && after[3].contains("after 1"), "{after:?}");

    // A message that has changed once is sent in its new state when it changes again.
    let again = Entry { changed: Some(r#"{"content":"at last"}"#.into()), ..changes };
    let again = Entry { cursor: at(15), ..again };
    state.advance(&[entry(14, Nothing, None, None), again]).unwrap();
    let last = texts(&state, 10);
    assert_eq!(last[0], before[0].replace("before 1", "at last"));
    assert_eq!(last[3], after[3].replace("after 1", "at last"));
}

#[test]
fn a_removed_message_is_sent_again_without_its_content() {
    let mut state = state();
    a_conversation(&mut state);
    let removes = Entry {
        message_id: Some(MessageId(1)),
        shows_message: false,
        shows_person: None,
        changed: Some(r#"{"content":""}"#.into()),
        parent: None,
        ..entry(14, Effect::RemovesMessage, Some(LUNCH), None)
    };
    state.advance(&[entry(13, Nothing, None, None), removes]).unwrap();

    let after = texts(&state, 10);
    assert_eq!(after.len(), 3);
    assert!(
        after[0].ends_with("data: {\"event\":\"OfTheFuture\",\"content\":\"\"}\n\n"),
        "{after:?}"
    );
    assert!(after[1].contains("before 2") && after[2].contains("id: 00000001-14"), "{after:?}");
}

#[test]
fn an_earlier_name_of_a_person_is_not_sent_again() {
    let mut state = state();
    let person = |position, id, name: &str| Entry {
        kind: "UserUpdated".into(),
        shows_message: false,
        shows_person: Some(UserId(id)),
        data: Some(format!(r#"{{"event":"UserUpdated","fullname":"{name}"}}"#).into()),
        changed: Some(format!(r#"{{"fullname":"{name}"}}"#).into()),
        ..entry(position, Effect::ChangesPerson(UserId(id)), None, None)
    };
    let log = [entry(10, Nothing, None, None), person(11, 7, "Bob"), person(12, 8, "Eve")];
    state.advance(&log).unwrap();
    let before = texts(&state, 10);
    assert!(before[0].contains("Bob"), "{before:?}");
    state.advance(&[entry(12, Nothing, None, None), person(13, 7, "Former member")]).unwrap();

    let after = texts(&state, 10);
    assert_eq!(after[0], before[0].replace("Bob", "Former member"));
    assert_eq!(after[1], before[1]);
}

#[test]
fn the_erased_messages_of_a_person_are_sent_again_without_their_texts() {
    let mut state = state();
    let sent = |position, sender: i64| {
        let data = format!(
            r#"{{"event":"NewMessage","id":{position},"chat_id":1,"sender_id":{sender},
                "content":"text {position}","files":[],"created_at":"2026-01-02T03:04:05.000Z",
                "idempotency_key":"00000000-0000-0000-0000-000000000001","seq":1,"kind":"user",
                "reply_to_id":2,"reply_count":0,"last_reply_at":null,
                "mentions":{{"user_ids":[1],"all":true}},"reactions":[],"attachments":[],
                "edited_at":null,"deleted_at":null,
                "parent":{{"id":2,"reply_count":1,"last_reply_at":null}}}}"#
        );
        Entry {
            kind: "NewMessage".into(),
            message_id: Some(MessageId(position)),
            data: Some(data.replace(['\n', ' '], "").replace("text", "text ").into()),
            ..entry(position, Nothing, Some(LUNCH), None)
        }
    };
    let log = [entry(10, Nothing, None, None), sent(11, 7), sent(12, 8)];
    state.advance(&log).unwrap();
    let before = texts(&state, 10);
    assert!(before[0].contains("text 11"), "{before:?}");
    let blanked =
        r#"{"event":"MessagesBlanked","user_id":7,"blanked_at":"2026-02-03T04:05:06.000Z"}"#;
    let blanks = Entry {
        shows_message: false,
        data: Some(blanked.into()),
        ..entry(13, Effect::BlanksMessages(UserId(7)), None, None)
    };
    state.advance(&[entry(12, Nothing, None, None), blanks]).unwrap();

    let after = texts(&state, 10);
    assert!(!after[0].contains("text"), "{after:?}");
    for part in [
        r#""content":"""#,
        r#""mentions":{"user_ids":[],"all":false}"#,
        r#""deleted_at":"2026-02-03T04:05:06.000Z""#,
        r#""parent":{"id":2,"reply_count":1"#,
    ] {
        assert!(after[0].contains(part), "{part}: {after:?}");
    }
    assert_eq!(after[1], before[1]);
}

#[test]
fn the_size_of_the_recent_events_follows_changes() {
    let mut state = state();
    a_conversation(&mut state);
    let grows = |position, content: &str| Entry {
        message_id: Some(MessageId(1)),
        changed: Some(format!(r#"{{"content":"{content}"}}"#).into()),
        parent: None,
        ..entry(position, Effect::ChangesMessage, Some(LUNCH), None)
    };
    let long = "x".repeat(1_000);
    for (position, content) in [(14, long.as_str()), (15, ""), (16, long.as_str())] {
        let last = position - 1;
        state.advance(&[entry(last, Nothing, None, None), grows(position, content)]).unwrap();
    }
    state.takes(ClosesChat, Some(LUNCH), None);
    state.trim(1, usize::MAX);

    let frame = state.recent.after(at(17));
    assert!(matches!(frame, After::Events(_)));
    let alone = Recent::new(&[entry(17, ClosesChat, Some(LUNCH), None)]).unwrap();
    assert_eq!(state.recent.bytes(), alone.bytes());
}

#[test]
fn a_missed_ending_is_the_last_event_sent() {
    let mut state = state();
    state.takes(Effect::ChangesPerson(UserId(1)), None, None);
    state.takes(Effect::Suspends(UserId(1)), None, None);
    state.takes(Nothing, Some(LUNCH), None);

    assert_eq!(missed(&state, 1, 10), (vec![11, 12], Some(GoodbyeReason::Suspended)));
    assert_eq!(missed(&state, 2, 10), (vec![11, 12, 13], None));
    // The stream of a reader who was authorised after the event does not end, because the suspension
    // is over.
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(12) };
    let MissedResult::Missed(missed) = state.missed(&reader, at(10)) else {
        panic!("10 is not known here")
    };
    assert_eq!((missed.end, missed.reached), (None, at(13)));
}

#[test]
fn the_suspended_and_the_removed_receive_that_event_and_nothing_later() {
    let mut state = state();
    let [alice, bob, carol] = state.here([1, 2, 3]);

    state.takes(Effect::Suspends(UserId(1)), None, None);
    state.takes(Effect::RemovesPerson(UserId(2)), None, None);
    state.takes(Nothing, None, None);

    let goodbye = |reason| Some(End::Goodbye(reason));
    assert_eq!(received(&alice), (vec![11], goodbye(GoodbyeReason::Suspended)));
    assert_eq!(received(&bob), (vec![11, 12], goodbye(GoodbyeReason::Removed)));
    assert_eq!(received(&carol), (vec![11, 12, 13], None));
}

#[test]
fn an_ending_up_to_the_authorized_position_does_not_end_the_stream() {
    let mut state = state();
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(12) };
    let outbox = state.attach([0, 0], reader);

    let (suspends, changes) = (Effect::Suspends(UserId(1)), Effect::ChangesPerson(UserId(1)));
    for effect in [suspends.clone(), changes, suspends] {
        state.takes(effect, None, None);
    }

    let goodbye = Some(End::Goodbye(GoodbyeReason::Suspended));
    assert_eq!(received(&outbox), (vec![11, 12, 13], goodbye));
}

#[test]
fn the_recent_events_and_each_chunk_are_limited() {
    let mut state = state();
    for _ in 0..1_000 {
        state.takes(Nothing, Some(LUNCH), None);
    }
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(10) };
    let MissedResult::Missed(first) = state.missed(&reader, at(500)) else { panic!("not known") };
    assert_eq!((first.frames.len(), first.reached), (MAX_FRAMES, at(756)));

    state.trim(100, usize::MAX);
    let forgotten = state.missed(&reader, at(910));
    assert!(matches!(forgotten, MissedResult::NotInMemory(Position(911))), "{forgotten:?}");
    assert_eq!(missed(&state, 1, 911).0.len(), 99);
    state.trim(usize::MAX, 0);
    assert_eq!(missed(&state, 1, 1_010), (vec![], None));
    assert_eq!(state.local_head(), at(1_010));
}

#[test]
fn an_unknown_cursor_is_detected() {
    let mut state = state();
    let reader = Reader { user: reader(1, PHONE), authorized_position: Position(10) };
    let other = Cursor { position: Position(10), .."0000000f-1".parse().unwrap() };
    assert!(matches!(state.missed(&reader, other), MissedResult::Diverged));
    assert!(matches!(state.missed(&reader, at(11)), MissedResult::ServerBehind));
    let place = state.subscribe_local_head();

    state.takes(Nothing, Some(LUNCH), None);

    assert_eq!(*place.borrow(), Position(11));
    assert_eq!(missed(&state, 1, 11), (vec![], None));
}
