//! Every kind of violation is found, and a good history is not accused.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::Utc;
use fechatter_core::{
    ChatId, MessageId, Position, Seq, SessionId, Timestamp, UserId,
    log::Cursor,
    message::{Mentions, Message, MessageKind},
};
use uuid::Uuid;

use super::{
    Durability, Verdict, check,
    log::{Ends, Entry, Log, Mark, MessageChange, Period, Stored},
    marks,
};
use crate::history::{
    Attempt, Calls, Change, ChangeKind, Heard, Outcome, Receipt, Send, Stream, StreamEnd, What,
    digest,
};

const LUNCH: ChatId = ChatId(1);
const ALICE: UserId = UserId(1);
const BOB: UserId = UserId(2);
const PHONE: SessionId = SessionId(Uuid::from_u128(1));
const LAPTOP: SessionId = SessionId(Uuid::from_u128(2));

/// Alice (on her phone) has sent three messages to Bob (at his laptop), who heard them: positions 2 to 4.
struct Story {
    log: Log,
    calls: Calls,
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
        let mut story = Self {
            log,
            calls: Calls::default(),
            streams: vec![bob],
            durability: Durability::Everything,
        };
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
        entry.shows = Some(message.id);
        self.log.messages.push(Stored {
            id: message.id,
            chat: LUNCH,
            seq: message.seq,
            sender: ALICE,
            key: message.idempotency_key,
            content: message.content.clone(),
            is_deleted: false,
            is_system: false,
        });
        self.calls.sends.push(Send {
            chat: LUNCH,
            sender: ALICE,
            session: PHONE,
            key: message.idempotency_key,
            content: message.content.clone(),
            attempts: vec![attempt(Outcome::Ok(Box::new(message)))],
        });
        self.hears(heard(position));
    }

    /// Alice makes a change, and is told what came of it.
    fn changes(&mut self, kind: ChangeKind, outcome: Outcome<()>) -> &mut Change {
        self.calls.changes.push(Change {
            chat: LUNCH,
            person: ALICE,
            session: PHONE,
            kind,
            attempts: vec![attempt(outcome)],
        });
        self.calls.changes.last_mut().unwrap()
    }

    /// Alice edits a message, and Bob hears of it.
    fn edits(&mut self, id: MessageId, content: &str) {
        self.changes(ChangeKind::Edit(id, content.into()), Outcome::Ok(()));
        self.message(id).content = content.into();
        let position = self.appends("MessageUpdated", Some(LUNCH), None);
        let entry = self.log.entries.last_mut().unwrap();
        (entry.shows, entry.change) = (Some(id), Some(MessageChange::Edited(id)));
        self.hears(shown(position, content));
    }

    /// Alice deletes a message, and Bob hears of it.
    fn deletes(&mut self, id: MessageId) {
        self.changes(ChangeKind::Delete(id), Outcome::Ok(()));
        let message = self.message(id);
        (message.is_deleted, message.content) = (true, String::new());
        let position = self.appends("MessageDeleted", Some(LUNCH), None);
        self.log.entries.last_mut().unwrap().change = Some(MessageChange::Deleted(id));
        self.hears(heard(position));
    }

    /// Alice reacts to a message, and Bob hears of it.
    fn reacts(&mut self, message: MessageId) {
        let kind = ChangeKind::React { message, emoji: "👍", is_added: true };
        self.changes(kind, Outcome::Ok(()));
        self.log.reactions.insert((message, ALICE, "👍".into()));
        let position = self.appends("ReactionAdded", Some(LUNCH), None);
        let change = Some(MessageChange::Reaction(Some(ALICE)));
        self.log.entries.last_mut().unwrap().change = change;
        self.hears(heard(position));
    }

    /// Alice archives or unarchives the chat, and Bob hears of it.
    fn archives(&mut self, is_archived: bool) {
        self.changes(ChangeKind::Archive(is_archived), Outcome::Ok(()));
        let position = self.appends("ChatUpdated", Some(LUNCH), None);
        self.log.entries.last_mut().unwrap().archives = Some(is_archived);
        self.log.archived.clear();
        self.log.archived.extend(is_archived.then_some(LUNCH));
        self.hears(heard(position));
    }

    /// Somebody has read so far, as it is stored.
    fn marks(&mut self, user: UserId, marked: Option<Seq>, reached: Seq) {
        self.log.marks.insert((LUNCH, user), Mark { marked, reached });
    }

    fn message(&mut self, id: MessageId) -> &mut Stored {
        self.log.messages.iter_mut().find(|message| message.id == id).unwrap()
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
        check(&self.log, &self.calls, &self.streams, self.durability)
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
        digest: Some(digest),
        message: None,
        change: None,
        shows: None,
        archives: None,
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

/// An event that shows a message with this text.
fn shown(position: i64, content: &str) -> What {
    let receipt = Receipt::new(cursor(position), &position.to_be_bytes());
    What::Event(Receipt { text: Some(digest(content.as_bytes())), ..receipt })
}

fn attempt<T>(outcome: Outcome<T>) -> Attempt<T> {
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
    story.calls.sends.push(Send {
        key: message.idempotency_key,
        attempts: vec![attempt(Outcome::Unknown), attempt(Outcome::Ok(Box::new(message)))],
        ..story.calls.sends[0].clone()
    });
    story.counts(one(LOST));
}

#[test]
fn an_acknowledged_message_with_other_contents_is_lost() {
    let mut story = Story::new();
    story.log.messages[1].content = "something else".into();
    story.counts(one(LOST));
    story.log.messages[1].content = "message 2".into();
    story.calls.sends[1].content = "something else".into();
    // The answer has a text that was not sent, and so has the database.
    story.counts([2, 0, 0, 0, 0]);
}

#[test]
fn an_unknown_message_may_be_there_or_not() {
    let mut story = Story::new();
    story.calls.sends[2].attempts = vec![attempt(Outcome::Unknown)];
    story.counts([0; 5]);
    let key = Uuid::from_u128(99);
    let unknown = Send { key, ..story.calls.sends[2].clone() };
    story.calls.sends.push(unknown);
    story.counts([0; 5]);
    // Once it was uncertain, a refusal makes it no less so.
    story.calls.sends[2].attempts.push(attempt(Outcome::Failed));
    story.counts([0; 5]);
}

#[test]
fn a_fault_inside_a_server_counts_even_if_all_is_well_in_the_end() {
    let mut story = Story::new();
    story.calls.sends[2].attempts.insert(0, attempt(Outcome::Fault));
    story.counts(one(LOST));
}

#[test]
fn a_refused_message_that_is_there_is_one_too_many() {
    let mut story = Story::new();
    story.calls.sends[2].attempts = vec![attempt(Outcome::Failed)];
    story.counts(one(DOUBLED));
}

#[test]
fn a_message_that_nobody_sent_is_one_too_many() {
    let mut story = Story::new();
    story.calls.sends.pop();
    story.counts(one(DOUBLED));
}

#[test]
fn a_system_message_stands_beside_the_event_that_it_tells() {
    let mut story = Story::new();
    story.says();
    story.calls.sends.pop();
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
    story.calls.sends.pop();
    story.counts(one(DOUBLED));
}

#[test]
fn a_key_with_two_answers_is_doubled() {
    let mut story = Story::new();
    let mut other = message(2);
    other.content = "something else".into();
    story.calls.sends[1].attempts.push(attempt(Outcome::Ok(Box::new(other))));
    story.counts(one(DOUBLED));
}

#[test]
fn a_hole_in_a_chat_is_a_loss() {
    let mut story = Story::new();
    let message = &mut story.log.messages[2];
    message.seq = Seq(4);
    let Outcome::Ok(answer) = &mut story.calls.sends[2].attempts[0].outcome else { unreachable!() };
    answer.seq = Seq(4);
    story.counts(one(LOST));
}

#[test]
fn a_seq_that_is_there_twice_is_doubled() {
    let mut story = Story::new();
    story.log.messages[2].seq = Seq(2);
    let Outcome::Ok(answer) = &mut story.calls.sends[2].attempts[0].outcome else { unreachable!() };
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
    story.calls.sends[3].session = LAPTOP;
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

const FIRST: MessageId = MessageId(1);

#[test]
fn changes_that_were_made_and_told_are_good() {
    let mut story = Story::new();
    story.reacts(FIRST);
    story.edits(FIRST, "edited");
    story.edits(FIRST, "edited again");
    story.deletes(MessageId(2));
    story.archives(true);
    story.archives(false);
    story.marks(ALICE, None, Seq(3));
    story.counts([0; 5]);
    assert_eq!(story.verdict().acknowledged, 3 + 6);
}

#[test]
fn an_acknowledged_edit_that_is_not_there_is_lost() {
    let mut story = Story::new();
    story.edits(FIRST, "edited");
    story.message(FIRST).content = "message 1".into();
    story.counts(one(LOST));
    // After a later edit that may still be executed, either is right.
    let late = ChangeKind::Edit(FIRST, "later".into());
    story.changes(late, Outcome::Unknown);
    story.counts(one(LOST));
    story.message(FIRST).content = "later".into();
    story.counts([0; 5]);
    story.message(FIRST).content = "edited".into();
    story.counts([0; 5]);
}

#[test]
fn an_edit_without_its_event_is_lost_and_one_with_two_is_doubled() {
    let mut story = Story::new();
    story.edits(FIRST, "edited");
    let event = story.log.entries.last_mut().unwrap();
    (event.change, event.shows) = (None, None);
    story.counts(one(LOST));

    let mut story = Story::new();
    story.edits(FIRST, "edited");
    story.edits(FIRST, "edited again");
    story.calls.changes.remove(0);
    // Nobody knows the first text that Bob heard, either.
    story.counts([0, 1, 1, 0, 0]);
}

#[test]
fn a_refused_edit_that_is_there_is_one_too_many() {
    let mut story = Story::new();
    story.changes(ChangeKind::Edit(FIRST, "refused".into()), Outcome::Failed);
    story.counts([0; 5]);
    story.message(FIRST).content = "refused".into();
    story.counts(one(DOUBLED));
}

#[test]
fn a_fault_inside_a_server_at_a_change_counts() {
    let mut story = Story::new();
    story.changes(ChangeKind::Delete(FIRST), Outcome::Fault);
    story.counts(one(LOST));
}

#[test]
fn a_deleted_message_stays_deleted_and_one_that_nobody_deleted_stays() {
    let mut story = Story::new();
    story.deletes(FIRST);
    story.counts([0; 5]);
    // Its text is back: there is an event of the deletion, too.
    let message = story.message(FIRST);
    (message.is_deleted, message.content) = (false, "message 1".into());
    story.counts([2, 0, 0, 0, 0]);

    let mut story = Story::new();
    story.message(FIRST).is_deleted = true;
    story.counts([2, 0, 0, 0, 0]);
}

#[test]
fn a_text_after_its_edit_or_deletion_is_leaked() {
    for deletes in [false, true] {
        let mut story = Story::new();
        if deletes {
            story.deletes(FIRST);
        } else {
            story.edits(FIRST, "edited");
        }
        story.counts([0; 5]);
        let position = story.appends("MessageUpdated", Some(LUNCH), None);
        story.log.entries.last_mut().unwrap().shows = Some(FIRST);
        story.hears(shown(position, "message 1"));
        story.counts(one(LEAKED));
    }
}

#[test]
fn a_text_that_was_replaced_before_the_connection_began_is_leaked() {
    for deletes in [false, true] {
        let mut story = Story::new();
        if deletes {
            story.deletes(FIRST);
        } else {
            story.edits(FIRST, "edited");
        }
        // Bob comes for the first time, to before everything.
        story.streams[0].heard[1].what = shown(2, "message 1");
        let soon = Instant::now();
        story.streams[0].heard.insert(0, Heard { at: soon, what: What::Opened(soon) });
        story.counts([0; 5]);
        let later = soon + Duration::from_secs(5);
        story.streams[0].heard[0].what = What::Opened(later);
        story.counts(one(LEAKED));
        let text = if deletes { "" } else { "edited" };
        story.streams[0].heard[2].what = shown(2, text);
        story.counts([0; 5]);
    }
}

#[test]
fn a_text_that_a_message_never_had_is_missed() {
    let mut story = Story::new();
    story.edits(FIRST, "edited");
    story.streams[0].heard[1].what = shown(2, "something else");
    story.counts(one(MISSED));
}

#[test]
fn a_reaction_to_a_message_that_was_deleted_need_not_be_told() {
    let mut story = Story::new();
    story.reacts(FIRST);
    let reaction = story.log.entries.last_mut().unwrap();
    (reaction.digest, reaction.change) = (None, Some(MessageChange::Reaction(None)));
    story.log.reactions.clear();
    story.deletes(FIRST);
    story.counts([0; 5]);
    story.streams[0].heard.remove(4);
    story.counts([0; 5]);
}

#[test]
fn a_reaction_that_is_not_there_is_lost_and_one_that_nobody_added_is_one_too_many() {
    let mut story = Story::new();
    story.reacts(FIRST);
    story.log.reactions.clear();
    story.counts(one(LOST));

    let mut story = Story::new();
    story.log.reactions.insert((FIRST, BOB, "👍".into()));
    story.counts(one(DOUBLED));
    let refused = ChangeKind::React { message: FIRST, emoji: "👍", is_added: true };
    story.changes(refused, Outcome::Failed).person = BOB;
    story.counts(one(DOUBLED));
    story.calls.changes[0].attempts.push(attempt(Outcome::Unknown));
    story.counts([0; 5]);
}

#[test]
fn an_archived_chat_that_is_not_is_lost() {
    let mut story = Story::new();
    story.archives(true);
    story.log.archived.clear();
    story.counts(one(LOST));
}

#[test]
fn what_is_written_in_an_archived_chat_is_one_too_many() {
    let deeds: [fn(&mut Story); 4] = [
        |story| story.says(),
        |story| story.edits(FIRST, "edited"),
        |story| story.deletes(FIRST),
        |story| story.reacts(FIRST),
    ];
    for deed in deeds {
        let mut story = Story::new();
        story.archives(true);
        deed(&mut story);
        story.counts(one(DOUBLED));
    }
}

#[test]
fn what_a_removed_member_changes_is_leaked() {
    let deeds: [fn(&mut Story); 3] = [
        |story| story.edits(FIRST, "edited"),
        |story| story.deletes(FIRST),
        |story| story.reacts(FIRST),
    ];
    for deed in deeds {
        let mut story = Story::new();
        let removal = story.removes(ALICE);
        story.hears(heard(removal));
        deed(&mut story);
        story.counts(one(LEAKED));
    }
}

#[test]
fn a_mark_before_what_was_read_is_lost_and_one_behind_it_is_one_too_many() {
    let mut story = Story::new();
    story.changes(ChangeKind::Read(Seq(2)), Outcome::Ok(())).person = BOB;
    story.marks(BOB, Some(Seq(2)), Seq(2));
    story.counts([0; 5]);
    story.marks(BOB, Some(Seq(1)), Seq(1));
    story.counts(one(LOST));
    story.marks(BOB, Some(Seq(3)), Seq(3));
    story.counts(one(DOUBLED));
}

#[test]
fn the_last_mark_of_somebody_is_told_to_their_streams() {
    let mut story = Story::new();
    story.changes(ChangeKind::Read(Seq(2)), Outcome::Ok(())).person = BOB;
    story.marks(BOB, Some(Seq(2)), Seq(2));
    let missed =
        |story: &Story| marks::check(&story.log, &story.calls.changes, &story.streams).missed.len();
    assert_eq!(missed(&story), 1);
    story.hears(What::Mark(LUNCH, Seq(1)));
    assert_eq!(missed(&story), 1);
    story.hears(What::Mark(LUNCH, Seq(2)));
    assert_eq!(missed(&story), 0);
}
