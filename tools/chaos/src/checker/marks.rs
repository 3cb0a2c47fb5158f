//! How far people have read, as their streams tell them: it is no event, and comes past the log.

use std::{collections::HashMap, time::Instant};

use fechatter_core::{ChatId, Seq, UserId};

use super::{Verdict, log::Log};
use crate::history::{Change, ChangeKind, Heard, Stream, StreamEnd, What};

/// A mark that a person's streams have to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Due {
    pub chat: ChatId,
    /// At least so far.
    pub seq: Seq,
    /// A stream that began earlier tells it.
    pub marked_at: Instant,
}

/// The last marks that people set themselves.
#[must_use]
pub fn due(log: &Log, changes: &[Change]) -> HashMap<UserId, Vec<Due>> {
    let mut due: HashMap<UserId, Vec<Due>> = HashMap::new();
    for change in changes {
        let ChangeKind::Read(seq) = change.kind else { continue };
        let mark = log.marks.get(&(change.chat, change.person));
        let first = change.attempts.iter().find(|attempt| attempt.is_ok());
        let is_last = mark.and_then(|mark| mark.marked) == Some(seq);
        if let Some(attempt) = first.filter(|_| is_last) {
            let marked_at = attempt.invoked;
            due.entry(change.person).or_default().push(Due { chat: change.chat, seq, marked_at });
        }
    }
    due
}

/// Returns the marks that a stream has not told yet.
#[must_use]
pub fn untold(heard: &[Heard], due: &[Due]) -> Vec<Due> {
    let began = heard.iter().find(|heard| matches!(heard.what, What::Ready(_)));
    let Some(began) = began.map(|heard| heard.at) else { return Vec::new() };
    let mut told: HashMap<ChatId, Seq> = HashMap::new();
    for heard in heard {
        if let What::Mark(chat, seq) = heard.what {
            let furthest = told.entry(chat).or_insert(seq);
            *furthest = seq.max(*furthest);
        }
    }
    let is_told = |due: &Due| told.get(&due.chat).is_some_and(|seq| *seq >= due.seq);
    due.iter().filter(|due| due.marked_at > began && !is_told(due)).copied().collect()
}

/// Every stream that is open has told the last marks of its reader, unless they were set before it began.
#[must_use]
pub fn check(log: &Log, changes: &[Change], streams: &[Stream]) -> Verdict {
    let due = due(log, changes);
    let mut verdict = Verdict::default();
    for stream in streams.iter().filter(|stream| stream.end == StreamEnd::Live && !stream.stalled) {
        let Some(due) = due.get(&stream.reader) else { continue };
        for Due { chat, seq, .. } in untold(&stream.heard, due) {
            let reader = stream.reader;
            verdict
                .missed
                .push(format!("{reader} was not told that they have read {seq} of {chat}"));
        }
    }
    verdict
}
