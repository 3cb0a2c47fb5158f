//! The texts that messages had, as people's calls tell, and the ones that a stream may still show.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use fechatter_core::{MessageId, Position, UserId};

use super::{
    Durability, Verdict,
    log::{Entry, Log, MessageChange},
};
use crate::history::{Calls, Change, ChangeKind, Conclusion, Receipt, digest};

/// No stream that begins later than this after a change is told the text before it.
const KNOWN: Duration = Duration::from_secs(2);

/// The texts of all messages that were acknowledged.
#[derive(Debug, Default)]
pub(super) struct Texts {
    messages: HashMap<MessageId, Texted>,
    /// By the position of an event that tells of an edit: the number of edits of its message up to there.
    edits: HashMap<Position, usize>,
    /// All that anybody sent or edited a message to.
    all: HashSet<u64>,
    durability: Durability,
}

/// The texts of a message.
#[derive(Debug, Default)]
struct Texted {
    /// In the order in which it had them, the original one first. There may be some that it never had.
    versions: Vec<Version>,
    /// When its deletion was acknowledged.
    deleted_at: Option<Instant>,
    /// The indexes of the versions that it may have in the end; none is that it is deleted.
    ends: HashSet<Option<usize>>,
    /// The same for calls that may be executed at any time.
    late: HashSet<Option<usize>>,
    refused: HashSet<u64>,
    /// The least and the greatest number of edits.
    edits: [usize; 2],
    /// Each event that tells of an edit belongs to one version, in this order.
    is_event_an_edit: bool,
    /// Its data is not what it was when it was sent.
    is_changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    digest: u64,
    /// When this was acknowledged to be its text.
    known_at: Option<Instant>,
}

/// The changes that a stream has told its reader.
#[derive(Debug, Default)]
pub(super) struct ToldChanges {
    deleted: HashSet<MessageId>,
    edits: HashMap<MessageId, usize>,
}

impl Texts {
    pub(super) fn of(log: &Log, calls: &Calls, durability: Durability) -> Self {
        let mut texts = Self { durability, ..Self::default() };
        for send in &calls.sends {
            texts.all.insert(digest(send.content.as_bytes()));
            let Some((message, attempt)) = send.acknowledged().zip(send.acknowledgement()) else {
                continue;
            };
            let text = texts.messages.entry(message.id).or_default();
            text.ends = HashSet::from([Some(text.versions.len())]);
            let version = Version {
                digest: digest(send.content.as_bytes()),
                known_at: Some(attempt.returned),
            };
            text.versions.push(version);
        }
        for change in &calls.changes {
            if let ChangeKind::Edit(_, content) = &change.kind {
                texts.all.insert(digest(content.as_bytes()));
            }
            if let Some(text) = change.message().and_then(|id| texts.messages.get_mut(&id)) {
                text.apply(change);
            }
        }
        let mut counts: HashMap<MessageId, usize> = HashMap::new();
        for entry in &log.entries {
            if let Some(MessageChange::Edited(id)) = entry.change {
                let count = counts.entry(id).or_default();
                *count += 1;
                texts.edits.insert(entry.cursor.position, *count);
            }
        }
        for (id, text) in &mut texts.messages {
            let events = counts.get(id).copied().unwrap_or_default();
            text.is_event_an_edit = text.edits == [events; 2];
        }
        texts
    }

    /// True if a call that was not refused changes a message as it is shown.
    pub(super) fn is_changed(&self, message: MessageId) -> bool {
        self.messages.get(&message).is_some_and(|text| text.is_changed)
    }

    /// Compares the last text of a message with the calls, and returns the difference.
    pub(super) fn check_end(&self, message: MessageId, content: Option<&str>) -> Option<Wrong> {
        let text = self.messages.get(&message)?;
        let digest = content.map(|content| digest(content.as_bytes()));
        if digest.is_some_and(|digest| text.refused.contains(&digest)) {
            return Some(Wrong::Refused);
        }
        let may_end = match (digest, self.durability) {
            // A message that was lost has its id no longer to itself.
            (None, Durability::UpToReset) => true,
            (Some(digest), Durability::UpToReset) => self.all.contains(&digest),
            (None, Durability::Everything) => text.may_end(None),
            (Some(digest), Durability::Everything) => {
                text.index_of(digest).is_some_and(|index| text.may_end(Some(index)))
            }
        };
        (!may_end).then_some(Wrong::NotAcknowledged)
    }

    /// The least and the greatest number of edits of a message; none if nothing is known of it.
    pub(super) fn edits_of(&self, message: MessageId) -> Option<[usize; 2]> {
        self.messages.get(&message).map(|text| text.edits)
    }
}

/// See [`Texts::check_end`].
pub(super) enum Wrong {
    /// It was refused.
    Refused,
    /// Something else was acknowledged.
    NotAcknowledged,
}

impl Texted {
    fn apply(&mut self, change: &Change) {
        let conclusion = change.conclusion();
        let acknowledged = change.attempts.iter().find(|attempt| attempt.is_ok());
        let known_at = acknowledged.map(|attempt| attempt.returned);
        self.is_changed |= conclusion != Conclusion::Refused;
        let next = match &change.kind {
            ChangeKind::Edit(_, content) => {
                let digest = digest(content.as_bytes());
                if conclusion == Conclusion::Refused {
                    self.refused.insert(digest);
                    return;
                }
                self.versions.push(Version { digest, known_at });
                self.edits[0] += usize::from(known_at.is_some());
                self.edits[1] += change.attempts.len();
                Some(self.versions.len() - 1)
            }
            ChangeKind::Delete(_) => {
                self.deleted_at = self.deleted_at.or(known_at);
                None
            }
            ChangeKind::React { .. } | ChangeKind::Read(_) | ChangeKind::Archive(_) => return,
        };
        match conclusion {
            Conclusion::Done => self.ends = HashSet::from([next]),
            Conclusion::DoneAndMayRepeat => {
                self.ends = HashSet::from([next]);
                self.late.insert(next);
            }
            Conclusion::Unknown => _ = self.late.insert(next),
            Conclusion::Refused => {}
        }
        // Nothing changes a message that is deleted.
        if self.deleted_at.is_some() {
            self.late.clear();
        }
    }

    fn index_of(&self, digest: u64) -> Option<usize> {
        self.versions.iter().position(|version| version.digest == digest)
    }

    fn may_end(&self, index: Option<usize>) -> bool {
        self.ends.contains(&index) || self.late.contains(&index)
    }

    fn may_be_deleted(&self) -> bool {
        self.deleted_at.is_some() || self.late.contains(&None)
    }

    /// When the text of this index was no longer the message's.
    fn replaced_at(&self, index: usize) -> Option<Instant> {
        let later = self.versions[index + 1..].iter().map(|version| version.known_at);
        later.chain([self.deleted_at]).flatten().min()
    }
}

impl ToldChanges {
    /// Notes an event that came through a stream whose connection was asked for at `opened`. It may not show a text that
    /// the stream has told to be replaced, nor one that was replaced well before the connection began.
    pub(super) fn check(
        &mut self,
        texts: &Texts,
        entry: &Entry,
        receipt: &Receipt,
        opened: Option<Instant>,
        reader: UserId,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        match entry.change {
            Some(MessageChange::Deleted(id)) => _ = self.deleted.insert(id),
            Some(MessageChange::Edited(id)) => {
                if let Some(count) = texts.edits.get(&entry.cursor.position) {
                    self.edits.insert(id, *count);
                }
            }
            Some(MessageChange::Reaction(_)) | None => {}
        }
        let Some(id) = entry.shows.filter(|id| texts.is_changed(*id)) else { return verdict };
        let (Some(text), Some(shown)) = (texts.messages.get(&id), receipt.text) else {
            return verdict;
        };
        // After a loss, a system message may have got the id of another message.
        let may_be_another = texts.durability == Durability::UpToReset;
        if shown == digest(b"") && (text.may_be_deleted() || may_be_another) {
            return verdict;
        }
        let position = entry.cursor.position;
        let index = text.index_of(shown);
        if index.is_none() && !(may_be_another && texts.all.contains(&shown)) {
            verdict
                .missed
                .push(format!("{reader} had a text at {position} that message {id} never had"));
        }
        if self.deleted.contains(&id) {
            verdict
                .leaked
                .push(format!("{reader} had the text of {id} at {position}, deleted before"));
        }
        let Some(index) = index.filter(|_| !may_be_another) else { return verdict };
        let edits = self.edits.get(&id).copied().unwrap_or_default();
        if text.is_event_an_edit && index < edits {
            verdict
                .leaked
                .push(format!("{reader} had a text of {id} at {position} that was edited before"));
        }
        let replaced_at = text.replaced_at(index);
        if opened.zip(replaced_at).is_some_and(|(opened, replaced)| opened > replaced + KNOWN) {
            verdict.leaked.push(format!(
                "{reader} had a text of {id} at {position} that was replaced before they came"
            ));
        }
        verdict
    }
}
