//! What came through a stream against what was for its reader, computed by replaying the log.

use std::time::Instant;

use fechatter_core::Position;

use super::{
    Durability, Verdict,
    log::{Entry, Log},
    texts::{Texts, ToldChanges},
};
use crate::history::{Receipt, Stream, StreamEnd, What};

/// From its beginning, or from a reset on, a stream brings every event of its audience once and in order; nothing comes
/// after the one that ends it.
pub(super) fn check(log: &Log, stream: &Stream, texts: &Texts, durability: Durability) -> Verdict {
    let mut verdict = Verdict::default();
    let end = log.end_of(stream.reader, stream.session);
    let name = format!("stream of {}", stream.reader);
    if stream.end == StreamEnd::Refused && end.is_none() {
        verdict.missed.push(format!("the {name} was refused for no reason"));
    }
    if stream.end == StreamEnd::Live && end.is_some() {
        verdict.leaked.push(format!("the {name} is open after its end"));
    }
    let mut segment: Option<Segment> = None;
    let mut opened = None;
    for heard in &stream.heard {
        match heard.what {
            What::Opened(at) => opened = Some(at),
            // A connection that goes on says where; only the first one decides.
            What::Ready(position) => _ = segment.get_or_insert_with(|| Segment::after(position)),
            What::Reset(position) => {
                if let Some(mut segment) = segment.replace(Segment::after(position)) {
                    if durability == Durability::UpToReset {
                        segment.forget_lost(log);
                    }
                    segment.check(log, stream, texts, None, &mut verdict);
                }
            }
            What::Event(receipt) => {
                if end.is_some_and(|end| receipt.position > end) {
                    let position = receipt.position;
                    verdict.leaked.push(format!("the {name} had {position} after its end"));
                }
                if let Some(segment) = &mut segment {
                    segment.receipts.push((receipt, opened));
                }
            }
            What::Mark(..) | What::Lost => {}
        }
    }
    let head = log.entries.last().map(|entry| entry.cursor.position);
    let upto = head.filter(|_| stream.end == StreamEnd::Live);
    match segment {
        Some(segment) => segment.check(log, stream, texts, upto, &mut verdict),
        None if stream.end == StreamEnd::Live => {
            verdict.missed.push(format!("the {name} never began"));
        }
        None => {}
    }
    verdict
}

/// What came between a beginning or reset and the next one.
struct Segment {
    after: Position,
    /// Each with the time when its connection was asked for.
    receipts: Vec<(Receipt, Option<Instant>)>,
}

impl Segment {
    fn after(after: Position) -> Self {
        Self { after, receipts: Vec::new() }
    }

    /// The reset has told of what the log has no longer.
    fn forget_lost(&mut self, log: &Log) {
        self.receipts.retain(|(receipt, _)| {
            log.at(receipt.position).is_some_and(|entry| entry.cursor.stamp == receipt.stamp)
        });
    }

    /// Everything up to `upto`, or if there is none up to the last that came.
    fn check(
        &self,
        log: &Log,
        stream: &Stream,
        texts: &Texts,
        upto: Option<Position>,
        verdict: &mut Verdict,
    ) {
        let reader = stream.reader;
        let mut reached = self.after;
        let mut told = ToldChanges::default();
        for (receipt, opened) in &self.receipts {
            let position = receipt.position;
            if position <= reached {
                verdict.repeated.push(format!("{reader} had {position} after {reached}"));
                continue;
            }
            check_gap(log, stream, [reached.next(), position], verdict);
            reached = position;
            match log.at(position) {
                None => verdict.leaked.push(format!("{reader} had {position}, which is not there")),
                Some(entry) if !log.is_for(entry, reader) => {
                    verdict
                        .leaked
                        .push(format!("{reader} had {position}, a {} for others", entry.kind));
                }
                Some(entry) if !is_same(entry, receipt, texts) => {
                    verdict.missed.push(format!("{reader} had another event at {position}"));
                }
                Some(entry) => {
                    *verdict += told.check(texts, entry, receipt, *opened, reader);
                }
            }
        }
        if let Some(upto) = upto {
            check_gap(log, stream, [reached.next(), upto.next()], verdict);
        }
    }
}

/// True if an event came as it is in the log. An event that shows a message may have come before that message was
/// changed.
fn is_same(entry: &Entry, receipt: &Receipt, texts: &Texts) -> bool {
    let is_changed = entry.shows.is_some_and(|message| texts.is_changed(message));
    let is_same_data = entry.digest.is_none_or(|digest| digest == receipt.digest);
    entry.cursor.stamp == receipt.stamp && (is_changed || is_same_data)
}

/// Nothing for the reader stands from the one up to before the other.
fn check_gap(log: &Log, stream: &Stream, [from, to]: [Position; 2], verdict: &mut Verdict) {
    let first = log.entries.partition_point(|entry| entry.cursor.position < from);
    let skipped = log.entries[first..].iter().take_while(|entry| entry.cursor.position < to);
    // Reactions to a message that was deleted are not delivered any more.
    let skipped = skipped.filter(|entry| entry.digest.is_some());
    for entry in skipped.filter(|entry| log.is_for(entry, stream.reader)) {
        let (reader, position, kind) = (stream.reader, entry.cursor.position, &entry.kind);
        verdict.missed.push(format!("{reader} never had {position}, a {kind}"));
    }
}
