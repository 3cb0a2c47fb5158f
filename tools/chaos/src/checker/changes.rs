//! Messages, reactions, marks and archived chats as people's calls have left them.

use std::collections::{HashMap, HashSet};

use fechatter_core::{ChatId, MessageId, Position, Seq, UserId};

use super::{
    Durability, Verdict,
    log::{Log, MessageChange},
    texts::{Texts, Wrong},
};
use crate::history::{Change, ChangeKind, Conclusion, Outcome};

/// The mark of somebody who has read nothing.
const NOTHING: Seq = Seq(0);

/// Everything is as it was acknowledged; what is unknown was done or not; what was refused was not.
pub(super) fn check(
    log: &Log,
    changes: &[Change],
    texts: &Texts,
    durability: Durability,
) -> Verdict {
    let mut verdict = Verdict::default();
    for change in changes {
        if change.attempts.iter().any(|attempt| attempt.outcome == Outcome::Fault) {
            verdict.lost.push(format!("{:?} met a fault inside a server", change.kind));
        }
        verdict.acknowledged += usize::from(change.is_acknowledged());
    }
    verdict += check_texts(log, texts, durability);
    verdict += check_reactions(log, changes, durability);
    verdict += check_marks(log, changes, durability);
    verdict += check_archived(log, changes, durability);
    verdict
}

/// Each message has the text that it should have, and as many events as changes.
fn check_texts(log: &Log, texts: &Texts, durability: Durability) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut edits, mut deletions): (HashMap<_, usize>, HashMap<_, usize>) = Default::default();
    for entry in &log.entries {
        match entry.change {
            Some(MessageChange::Edited(id)) => *edits.entry(id).or_default() += 1,
            Some(MessageChange::Deleted(id)) => *deletions.entry(id).or_default() += 1,
            Some(MessageChange::Reaction(_)) | None => {}
        }
    }
    for message in log.messages.iter().filter(|message| !message.is_system) {
        let id = message.id;
        let content = (!message.is_deleted).then_some(&*message.content);
        match texts.check_end(id, content) {
            Some(Wrong::Refused) => {
                verdict.doubled.push(format!("the text of {id} was refused and is there"));
            }
            Some(Wrong::NotAcknowledged) => {
                verdict.lost.push(format!("the text of {id} is not what was acknowledged"));
            }
            None => {}
        }
        let deleted = deletions.get(&id).copied().unwrap_or_default();
        if deleted != usize::from(message.is_deleted) {
            verdict.lost.push(format!("{id} has {deleted} events of its deletion"));
        }
        let edited = edits.get(&id).copied().unwrap_or_default();
        let Some([least, most]) = texts.edits_of(id) else { continue };
        if edited < least && durability == Durability::Everything {
            verdict.lost.push(format!("{id} was edited {least} times and has {edited} events"));
        }
        if edited > most {
            verdict.doubled.push(format!("{id} was edited {most} times and has {edited} events"));
        }
    }
    verdict
}

/// The possible last states of a reaction or an archived chat, which people turn on and off.
#[derive(Debug, Default)]
struct Switch {
    ends: HashSet<bool>,
    /// By calls that may be executed at any time.
    late: HashSet<bool>,
}

impl Switch {
    fn turn(&mut self, is_on: bool, conclusion: Conclusion) {
        if matches!(conclusion, Conclusion::Done | Conclusion::DoneAndMayRepeat) {
            self.ends = HashSet::from([is_on]);
        }
        if matches!(conclusion, Conclusion::Unknown | Conclusion::DoneAndMayRepeat) {
            self.late.insert(is_on);
        }
    }

    fn may_be(&self, is_on: bool, durability: Durability) -> bool {
        let is_begin = self.ends.is_empty() && !is_on;
        let may_be_lost = durability == Durability::UpToReset;
        is_begin || may_be_lost || self.ends.contains(&is_on) || self.late.contains(&is_on)
    }
}

fn check_reactions(log: &Log, changes: &[Change], durability: Durability) -> Verdict {
    let mut reactions: HashMap<(MessageId, UserId, &str), Switch> = HashMap::new();
    for change in changes {
        if let ChangeKind::React { message, emoji, is_added } = change.kind {
            let switch = reactions.entry((message, change.person, emoji)).or_default();
            switch.turn(is_added, change.conclusion());
        }
    }
    let mut verdict = Verdict::default();
    for (message, person, emoji) in &log.reactions {
        match reactions.get(&(*message, *person, emoji)) {
            Some(switch) if switch.may_be(true, durability) => {}
            _ => verdict.doubled.push(format!("{person} did not react to {message} with {emoji}")),
        }
    }
    let shown: HashSet<_> =
        log.messages.iter().filter(|message| !message.is_deleted).map(|m| m.id).collect();
    for ((message, person, emoji), switch) in reactions {
        let is_there = log.reactions.contains(&(message, person, emoji.to_owned()));
        if shown.contains(&message) && !is_there && !switch.may_be(false, durability) {
            verdict.lost.push(format!("{person} reacted to {message} with {emoji}"));
        }
    }
    verdict
}

/// Nobody's mark is before what they have read, nor behind what they may have read or written.
fn check_marks(log: &Log, changes: &[Change], durability: Durability) -> Verdict {
    let mut read: HashMap<(ChatId, UserId), [Seq; 2]> = HashMap::new();
    for change in changes {
        let ChangeKind::Read(upto) = change.kind else { continue };
        let [least, most] = read.entry((change.chat, change.person)).or_insert([NOTHING; 2]);
        if change.is_acknowledged() && durability == Durability::Everything {
            *least = upto.max(*least);
        }
        if change.conclusion() != Conclusion::Refused {
            *most = upto.max(*most);
        }
    }
    let mut written: HashMap<(ChatId, UserId), Seq> = HashMap::new();
    for message in &log.messages {
        written.insert((message.chat, message.sender), message.seq);
    }
    let mut verdict = Verdict::default();
    for ((chat, person), mark) in &log.marks {
        // A new member has read what was there before.
        if !joined_at_its_creation(log, *chat, *person) {
            continue;
        }
        let [least, most] = read.get(&(*chat, *person)).copied().unwrap_or([NOTHING; 2]);
        let most = written.get(&(*chat, *person)).copied().unwrap_or(NOTHING).max(most);
        let reached = mark.reached;
        if reached < least {
            verdict.lost.push(format!("{person} has read {least} of chat {chat}, not {reached}"));
        }
        if reached > most {
            verdict.doubled.push(format!("{person} has read {most} of chat {chat}, not {reached}"));
        }
    }
    verdict
}

fn joined_at_its_creation(log: &Log, chat: ChatId, person: UserId) -> bool {
    let Some(periods) = log.members.get(&chat) else { return false };
    let created: Option<Position> = periods.iter().map(|period| period.joined).min();
    let theirs: Vec<_> = periods.iter().filter(|period| period.user == person).collect();
    matches!(*theirs, [period] if Some(period.joined) == created)
}

fn check_archived(log: &Log, changes: &[Change], durability: Durability) -> Verdict {
    let mut chats: HashMap<ChatId, Switch> = HashMap::new();
    for change in changes {
        if let ChangeKind::Archive(is_archived) = change.kind {
            chats.entry(change.chat).or_default().turn(is_archived, change.conclusion());
        }
    }
    let mut verdict = Verdict::default();
    for (chat, switch) in chats {
        let is_archived = log.archived.contains(&chat);
        if !switch.may_be(is_archived, durability) {
            verdict.lost.push(format!("chat {chat} is archived: {is_archived}"));
        }
    }
    verdict
}
