//! Every kind of violation is found, and a good history is not accused.

use std::{collections::HashMap, time::Instant};

use chrono::Utc;
use fechatter_core::{
    ChatId, MessageId, Position, Seq, SessionId, Timestamp, UserId,
    log::Cursor,
    message::{Mentions, Message, MessageKind},
};
use uuid::Uuid;

use super::{
    Durability, Verdict, check,
    log::{Ends, Entry, Log, Period, Stored},
};
use crate::history::{Attempt, Heard, Outcome, Receipt, Send, Stream, StreamEnd, What};

const LUNCH: ChatId = ChatId(1);
const ALICE: UserId = UserId(1);
const BOB: UserId = UserId(2);
const PHONE: SessionId = SessionId(Uuid::from_u128(1));
const LAPTOP: SessionId = SessionId(Uuid::from_u128(2));

/// Alice (on her phone) has sent three messages to Bob (at his laptop), who heard them: positions 2 to 4.
struct Story {
    log: Log,
    sends: Vec<Send>,
    streams: Vec<Stream>,
    durability: Durability,
}

impl Story {
    fn new() -> Self {
        let members = [ALICE, BOB].map(|user| Period { user, joined: Position(1), left: None });
        let mut log = Log { members: HashMap::from([(LUNCH, members.to_vec())]), ..Log::default() };
        log.entries.push(entry(1, "NewChat", Some(LUNCH), None));
        let bob = Stream {
            reader: BOB,
            session: LAPTOP,
            heard: Vec::new(),
            stalled: false,
            end: StreamEnd::Live,
        };
        let mut story =
            Self { log, sends: Vec::new(), streams: vec![bob], durability: Durability::Everything };
        story.hears(What::Ready(Position(1)));
        for _ in 0..3 {
            story.says();
        }
        story
    }

    /// Alice says something, and Bob hears it.
    fn says(&mut self) {
        let number = i64::try_from(self.log.messages.len()).unwrap() + 1;
        let message = message(number);
        let position = self.appends("NewMessage", Some(LUNCH), None);
        let entry = self.log.entries.last_mut().unwrap();
        entry.message = Some(message.id);
        self.log.messages.push(Stored {
            id: message.id,
            chat: LUNCH,
            seq: message.seq,
            sender: ALICE,
            key: message.idempotency_key,
            content: message.content.clone(),
            is_system: false,
        });
        self.sends.push(Send {
            chat: LUNCH,
            sender: ALICE,
            session: PHONE,
            key: message.idempotency_key,
            content: message.content.clone(),
            attempts: vec![attempt(Outcome::Ok(Box::new(message)))],
        });
        self.hears(heard(position));
    }

    fn appends(&mut self, kind: &str, chat: Option<ChatId>, user: Option<UserId>) -> i64 {
        let position = i64::try_from(self.log.entries.len()).unwrap() + 1;
        self.log.entries.push(entry(position, kind, chat, user));
        position
    }

    /// Alice's phone is signed out.
    fn signs_alice_out(&mut self) {
        self.appends("SessionRevoked", None, Some(ALICE));
        self.log.entries.last_mut().unwrap().ends = vec![Ends::Session(PHONE)];
    }

    fn removes(&mut self, user: UserId) -> i64 {
        let position = self.appends("UserLeftChat", Some(LUNCH), Some(user));
        let periods = self.log.members.get_mut(&LUNCH).unwrap();
        let period = periods.iter_mut().find(|period| period.user == user).unwrap();
        period.left = Some(Position(position));
        position
    }

    fn hears(&mut self, what: What) {
        self.streams[0].heard.push(Heard { at: Instant::now(), what });
    }

    fn verdict(&self) -> Verdict {
        check(&self.log, &self.sends, &self.streams, self.durability)
    }

    /// Lost, doubled, missed, repeated, leaked; a history tells nothing of who was slowed.
    #[track_caller]
    fn counts(&self, expected: [usize; 5]) {
        let verdict = self.verdict();
        assert_eq!(verdict.counts()[..5], expected, "{verdict:?}");
        assert!(verdict.slowed.is_empty());
    }
}

fn cursor(position: i64) -> Cursor {
    Cursor { position: Position(position), .."00000001-1".parse().unwrap() }
}

fn entry(position: i64, kind: &str, chat: Option<ChatId>, user: Option<UserId>) -> Entry {
    let digest = Receipt::new(cursor(position), &position.to_be_bytes()).digest;
    Entry {
        cursor: cursor(position),
        kind: kind.into(),
        chat,
        user,
        digest,
        message: None,
        ends: Vec::new(),
    }
}

fn heard(position: i64) -> What {
    What::Event(Receipt::new(cursor(position), &position.to_be_bytes()))
}

fn message(number: i64) -> Message {
    Message {
        id: MessageId(number),
        chat_id: LUNCH,
        sender_id: ALICE,
        content: format!("message {number}"),
        files: Vec::new(),
        created_at: Timestamp(Utc::now()),
        idempotency_key: Uuid::from_u128(u128::try_from(number).unwrap()),
        seq: Seq(number),
        kind: MessageKind::User,
        reply_to_id: None,
        reply_count: 0,
        last_reply_at: None,
        mentions: Mentions::default(),
        reactions: Vec::new(),
        attachments: Vec::new(),
        edited_at: None,
        deleted_at: None,
        system: None,
    }
}

fn attempt(outcome: Outcome) -> Attempt {
    Attempt { server: 0, invoked: Instant::now(), returned: Instant::now(), outcome, refusal: None }
}

const LOST: usize = 0;
const DOUBLED: usize = 1;
const MISSED: usize = 2;
const REPEATED: usize = 3;
const LEAKED: usize = 4;

fn one(kind: usize) -> [usize; 5] {
    let mut counts = [0; 5];
    counts[kind] = 1;
    counts
}

#[test]
fn a_good_history_is_good() {
    let story = Story::new();
    story.counts([0; 5]);
    assert_eq!(story.verdict().acknowledged, 3);
}

#[test]
fn an_acknowledged_message_that_is_not_there_is_lost() {
    let mut story = Story::new();
    let message = message(4);
    story.sends.push(Send {
        key: message.idempotency_key,
        attempts: vec![attempt(Outcome::Unknown), attempt(Outcome::Ok(Box::new(message)))],
        ..story.sends[0].clone()
    });
    story.counts(one(LOST));
}

#[test]
fn an_acknowledged_message_with_other_contents_is_lost() {
    let mut story = Story::new();
    story.log.messages[1].content = "something else".into();
    story.counts(one(LOST));
}

#[test]
fn an_unknown_message_may_be_there_or_not() {
    let mut story = Story::new();
    story.sends[2].attempts = vec![attempt(Outcome::Unknown)];
    story.counts([0; 5]);
    let key = Uuid::from_u128(99);
    let unknown = Send { key, ..story.sends[2].clone() };
    story.sends.push(unknown);
    story.counts([0; 5]);
    // Once it was uncertain, a refusal makes it no less so.
    story.sends[2].attempts.push(attempt(Outcome::Failed));
    story.counts([0; 5]);
}

#[test]
fn a_fault_inside_a_server_counts_even_if_all_is_well_in_the_end() {
    let mut story = Story::new();
    story.sends[2].attempts.insert(0, attempt(Outcome::Fault));
    story.counts(one(LOST));
}

#[test]
fn a_refused_message_that_is_there_is_one_too_many() {
    let mut story = Story::new();
    story.sends[2].attempts = vec![attempt(Outcome::Failed)];
    story.counts(one(DOUBLED));
}

#[test]
fn a_message_that_nobody_sent_is_one_too_many() {
    let mut story = Story::new();
    story.sends.pop();
    story.counts(one(DOUBLED));
}

#[test]
fn a_system_message_stands_beside_the_event_that_it_tells() {
    let mut story = Story::new();
    story.says();
    story.sends.pop();
    story.log.messages[3].is_system = true;
    story.counts(one(DOUBLED));
    let position = story.removes(BOB);
    story.hears(heard(position));
    story.counts([0; 5]);
}

#[test]
fn a_key_with_two_messages_is_doubled() {
    let mut story = Story::new();
    story.log.messages[2].key = story.log.messages[1].key;
    story.sends.pop();
    story.counts(one(DOUBLED));
}

#[test]
fn a_key_with_two_answers_is_doubled() {
    let mut story = Story::new();
    let mut other = message(2);
    other.content = "something else".into();
    story.sends[1].attempts.push(attempt(Outcome::Ok(Box::new(other))));
    story.counts(one(DOUBLED));
}

#[test]
fn a_hole_in_a_chat_is_a_loss() {
    let mut story = Story::new();
    let message = &mut story.log.messages[2];
    message.seq = Seq(4);
    let Outcome::Ok(answer) = &mut story.sends[2].attempts[0].outcome else { unreachable!() };
    answer.seq = Seq(4);
    story.counts(one(LOST));
}

#[test]
fn a_seq_that_is_there_twice_is_doubled() {
    let mut story = Story::new();
    story.log.messages[2].seq = Seq(2);
    let Outcome::Ok(answer) = &mut story.sends[2].attempts[0].outcome else { unreachable!() };
    answer.seq = Seq(2);
    story.counts(one(DOUBLED));
}

#[test]
fn a_chat_whose_events_have_another_order_is_found() {
    let mut story = Story::new();
    story.log.entries[1].message = Some(MessageId(2));
    story.log.entries[2].message = Some(MessageId(1));
    story.counts(one(LOST));
}

#[test]
fn a_hole_in_the_log_is_a_loss() {
    let mut story = Story::new();
    story.appends("WorkspaceUpdated", None, None);
    story.appends("WorkspaceUpdated", None, None);
    story.hears(heard(6));
    story.log.entries.remove(4);
    story.counts(one(LOST));
}

#[test]
fn an_event_that_a_stream_skipped_or_never_came_to_is_missed() {
    for gone in [2, 3] {
        let mut story = Story::new();
        story.streams[0].heard.remove(gone);
        story.counts(one(MISSED));
    }
}

#[test]
fn an_event_with_other_contents_or_of_another_commit_is_missed() {
    let mut story = Story::new();
    story.streams[0].heard[2].what = What::Event(Receipt::new(cursor(3), b"something else"));
    story.counts(one(MISSED));
    let other = Cursor { position: Position(3), .."0000000f-1".parse().unwrap() };
    story.streams[0].heard[2].what = What::Event(Receipt::new(other, &3_i64.to_be_bytes()));
    story.counts(one(MISSED));
}

#[test]
fn an_event_that_comes_again_or_late_is_repeated() {
    let mut story = Story::new();
    story.hears(What::Lost);
    story.hears(What::Ready(Position(4)));
    story.hears(heard(4));
    story.counts(one(REPEATED));

    let mut story = Story::new();
    story.streams[0].heard.swap(2, 3);
    // What was skipped does not count as heard when it comes too late.
    story.counts([0, 0, 1, 1, 0]);
}

#[test]
fn a_reset_excuses_what_lies_before_it() {
    let mut story = Story::new();
    story.streams[0].heard[2].what = What::Reset(Position(3));
    story.counts([0; 5]);
}

#[test]
fn what_a_failover_lost_is_excused_only_to_those_who_were_reset() {
    let mut story = Story::new();
    story.log.entries.pop();
    story.log.messages.pop();
    // It was acknowledged, and Bob has heard it.
    story.counts([1, 0, 0, 0, 1]);
    story.durability = Durability::UpToReset;
    story.counts(one(LEAKED));
    story.hears(What::Lost);
    story.hears(What::Reset(Position(3)));
    story.counts([0; 5]);
    assert_eq!(story.verdict().told, 1);
    story.durability = Durability::Everything;
    story.counts([1, 0, 0, 0, 1]);
}

#[test]
fn an_event_for_others_is_leaked() {
    let mut story = Story::new();
    let position = story.appends("ReadStateUpdated", None, Some(ALICE));
    story.counts([0; 5]);
    story.hears(heard(position));
    story.counts(one(LEAKED));
}

#[test]
fn an_event_that_is_not_there_is_leaked() {
    let mut story = Story::new();
    story.hears(heard(5));
    story.counts(one(LEAKED));
}

#[test]
fn a_removed_member_has_the_event_of_it_and_nothing_later() {
    let mut story = Story::new();
    let removal = story.removes(BOB);
    story.counts(one(MISSED));
    story.hears(heard(removal));
    story.counts([0; 5]);
    story.says();
    story.counts(one(LEAKED));
}

#[test]
fn what_a_removed_member_sends_is_leaked() {
    let mut story = Story::new();
    let removal = story.removes(ALICE);
    story.hears(heard(removal));
    story.says();
    story.counts(one(LEAKED));
}

#[test]
fn what_a_signed_out_session_sends_is_leaked() {
    let mut story = Story::new();
    story.signs_alice_out();
    story.says();
    story.counts(one(LEAKED));
    story.sends[3].session = LAPTOP;
    story.counts([0; 5]);
}

#[test]
fn what_comes_after_the_end_of_a_stream_is_leaked() {
    let mut story = Story::new();
    story.appends("UserUpdated", None, None);
    story.log.entries.last_mut().unwrap().ends = vec![Ends::Person(BOB)];
    story.hears(heard(5));
    story.streams[0].end = StreamEnd::Refused;
    story.counts([0; 5]);
    story.says();
    story.counts(one(LEAKED));
    story.streams[0].heard.pop();
    story.streams[0].end = StreamEnd::Live;
    // It is open, and so it has to have everything, too.
    story.counts([0, 0, 1, 0, 1]);
}

#[test]
fn a_stream_that_is_refused_for_no_reason_is_found() {
    let mut story = Story::new();
    story.streams[0].end = StreamEnd::Refused;
    story.counts(one(MISSED));
}
