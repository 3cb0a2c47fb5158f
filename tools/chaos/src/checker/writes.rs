//! The calls, and the order of what they wrote.

use std::collections::{HashMap, HashSet};

use fechatter_core::{ChatId, MessageId, Seq, UserId};
use uuid::Uuid;

use super::{
    Durability, Verdict,
    log::{Ends, Log, MessageChange, Stored},
};
use crate::history::{Outcome, Send};

/// Positions are 1 to n, seqs are 1 to n in each chat, and both run in the same order: every message has one event.
pub(super) fn check_order(log: &Log) -> Verdict {
    let mut verdict = Verdict::default();
    for (entry, expected) in log.entries.iter().zip(1..) {
        if entry.cursor.position.0 != expected {
            verdict.lost.push(format!("position {expected} is {}", entry.cursor.position));
            break;
        }
    }
    let mut told: HashMap<ChatId, Vec<MessageId>> = HashMap::new();
    for entry in &log.entries {
        if let Some((chat, message)) = entry.chat.zip(entry.message) {
            told.entry(chat).or_default().push(message);
        }
    }
    for chat in log.messages.chunk_by(|one, other| one.chat == other.chat) {
        let place = chat[0].chat;
        for (message, seq) in chat.iter().zip(1..) {
            match message.seq.cmp(&Seq(seq)) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => {
                    verdict.lost.push(format!("seq {seq} of chat {place} is {}", message.seq));
                    break;
                }
                std::cmp::Ordering::Less => {
                    verdict
                        .doubled
                        .push(format!("seq {} of chat {place} is twice there", message.seq));
                    break;
                }
            }
        }
        let ids: Vec<_> = chat.iter().map(|message| message.id).collect();
        let events = told.remove(&place).unwrap_or_default();
        if ids != events {
            verdict.lost.push(format!("chat {place} and its events have different orders"));
        }
    }
    for chat in told.keys() {
        verdict.lost.push(format!("chat {chat} has events without messages"));
    }
    verdict
}

/// Acknowledged ⊆ present, unknown ∈ {0, 1}, failed ∉ present, and one key has one message and one answer.
pub(super) fn check_calls(log: &Log, sends: &[Send], durability: Durability) -> Verdict {
    let mut stored: HashMap<(ChatId, UserId, Uuid), Vec<&Stored>> = HashMap::new();
    for message in log.messages.iter().filter(|message| !message.is_system) {
        stored.entry((message.chat, message.sender, message.key)).or_default().push(message);
    }
    let mut verdict = Verdict::default();
    for send in sends {
        let Send { key, chat, sender, .. } = send;
        let found = stored.remove(&(*chat, *sender, *key)).unwrap_or_default();
        if found.len() > 1 {
            verdict.doubled.push(format!("{key} is there {} times", found.len()));
        }
        if send.attempts.iter().any(|attempt| attempt.outcome == Outcome::Fault) {
            verdict.lost.push(format!("{key} met a fault inside a server"));
        }
        if let Some(acknowledged) = send.acknowledged() {
            verdict.acknowledged += 1;
            match found.first() {
                None if durability == Durability::UpToReset => verdict.told += 1,
                None => verdict.lost.push(format!("{key} was acknowledged and is not there")),
                // Its text may have been changed since: see the changes.
                Some(found) if !found.is(acknowledged) || acknowledged.content != send.content => {
                    verdict.lost.push(format!("{key} is not what was acknowledged"));
                }
                Some(_) => {}
            }
            // Said again after a loss it is another message.
            if durability == Durability::UpToReset {
                continue;
            }
            let answers = send.attempts.iter().filter_map(|attempt| attempt.message());
            if answers.into_iter().any(|answer| answer != acknowledged) {
                verdict.doubled.push(format!("{key} has two different answers"));
            }
        } else if send.failed() && !found.is_empty() {
            verdict.doubled.push(format!("{key} was refused and is there"));
        } else if durability == Durability::Everything
            && found.iter().any(|found| found.content != send.content)
        {
            verdict.lost.push(format!("{key} is not what was sent"));
        }
    }
    for (_, _, key) in stored.keys() {
        verdict.doubled.push(format!("{key} was never sent and is there"));
    }
    verdict.doubled.extend(groundless_system_messages(log));
    verdict
}

/// The system messages that do not stand beside the event that they tell.
fn groundless_system_messages(log: &Log) -> Vec<String> {
    let is_system = |id| log.messages.iter().any(|message| message.id == id && message.is_system);
    let mut groundless = Vec::new();
    for (number, entry) in log.entries.iter().enumerate() {
        let Some(id) = entry.message.filter(|id| is_system(*id)) else { continue };
        let beside = [number.checked_sub(1), Some(number + 1)];
        let mut beside = beside.into_iter().flatten().filter_map(|place| log.entries.get(place));
        if !beside.any(|event| event.chat == entry.chat && event.message.is_none()) {
            groundless.push(format!("system message {id} tells nothing"));
        }
    }
    groundless
}

/// Nobody writes anything after the event that removed, suspended or signed them out, or while the chat is archived.
pub(super) fn check_writers(log: &Log, sends: &[Send]) -> Verdict {
    let mut verdict = Verdict::default();
    let sessions: HashMap<_, _> = sends.iter().map(|send| (send.key, send.session)).collect();
    let messages: HashMap<_, _> =
        log.messages.iter().map(|message| (message.id, message)).collect();
    let (mut ended, mut archived) = (HashSet::new(), HashSet::new());
    for entry in &log.entries {
        ended.extend(entry.ends.iter().copied());
        let Some(chat) = entry.chat else { continue };
        match entry.archives {
            Some(true) => _ = archived.insert(chat),
            Some(false) => _ = archived.remove(&chat),
            None => {}
        }
        let message = |id| messages.get(&id).copied();
        let sent = entry.message.and_then(message);
        let (writer, deed) = match (sent, entry.change) {
            (Some(sent), _) => (Some(sent.sender), format!("sent {}", sent.id)),
            (None, Some(MessageChange::Edited(id))) => {
                (message(id).map(|message| message.sender), format!("edited {id}"))
            }
            (None, Some(MessageChange::Deleted(id))) => {
                (message(id).map(|message| message.sender), format!("deleted {id}"))
            }
            (None, Some(MessageChange::Reaction(person))) => (person, "reacted".to_owned()),
            (None, None) => continue,
        };
        let Some(writer) = writer else { continue };
        let position = entry.cursor.position;
        if !log.is_member(writer, chat, position) {
            verdict
                .leaked
                .push(format!("{writer} {deed} in chat {chat} at {position} without being in it"));
        }
        let session = sent.and_then(|sent| sessions.get(&sent.key).copied()).map(Ends::Session);
        let ends = [Some(Ends::Person(writer)), session];
        if ends.into_iter().flatten().any(|end| ended.contains(&end)) {
            verdict.leaked.push(format!("{writer} {deed} at {position} after their end"));
        }
        if archived.contains(&chat) && !sent.is_some_and(|sent| sent.is_system) {
            verdict
                .doubled
                .push(format!("{writer} {deed} at {position} in chat {chat}, which is archived"));
        }
    }
    verdict
}
