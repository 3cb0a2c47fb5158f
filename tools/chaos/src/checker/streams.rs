//! What came through a stream against what was for its reader, computed by replaying the log.

use fechatter_core::Position;

use super::{Durability, Verdict, log::Log};
use crate::history::{Receipt, Stream, StreamEnd, What};

/// From its beginning, or from a reset on, a stream brings every event of its audience once and in order; nothing comes
/// after the one that ends it.
pub(super) fn check(log: &Log, stream: &Stream, durability: Durability) -> Verdict {
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
    for heard in &stream.heard {
        match heard.what {
            // A connection that goes on says where; only the first one decides.
            What::Ready(position) => _ = segment.get_or_insert_with(|| Segment::after(position)),
            What::Reset(position) => {
                if let Some(mut segment) = segment.replace(Segment::after(position)) {
                    if durability == Durability::UpToReset {
                        segment.forget_lost(log);
                    }
                    segment.check(log, stream, None, &mut verdict);
                }
            }
            What::Event(receipt) => {
                if end.is_some_and(|end| receipt.position > end) {
                    let position = receipt.position;
                    verdict.leaked.push(format!("the {name} had {position} after its end"));
                }
                if let Some(segment) = &mut segment {
                    segment.receipts.push(receipt);
                }
            }
            What::Lost => {}
        }
    }
    let head = log.entries.last().map(|entry| entry.cursor.position);
    let upto = head.filter(|_| stream.end == StreamEnd::Live);
    match segment {
        Some(segment) => segment.check(log, stream, upto, &mut verdict),
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
    receipts: Vec<Receipt>,
}

impl Segment {
    fn after(after: Position) -> Self {
        Self { after, receipts: Vec::new() }
    }

    /// The reset has told of what the log has no longer.
    fn forget_lost(&mut self, log: &Log) {
        self.receipts.retain(|receipt| {
            log.at(receipt.position).is_some_and(|entry| entry.cursor.stamp == receipt.stamp)
        });
    }

    /// Everything up to `upto`, or if there is none up to the last that came.
    fn check(&self, log: &Log, stream: &Stream, upto: Option<Position>, verdict: &mut Verdict) {
        let reader = stream.reader;
        let mut reached = self.after;
        for receipt in &self.receipts {
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
                Some(entry)
                    if entry.digest != receipt.digest || entry.cursor.stamp != receipt.stamp =>
                {
                    verdict.missed.push(format!("{reader} had another event at {position}"));
                }
                Some(_) => {}
            }
        }
        if let Some(upto) = upto {
            check_gap(log, stream, [reached.next(), upto.next()], verdict);
        }
    }
}

/// Nothing for the reader stands from the one up to before the other.
fn check_gap(log: &Log, stream: &Stream, [from, to]: [Position; 2], verdict: &mut Verdict) {
    let first = log.entries.partition_point(|entry| entry.cursor.position < from);
    let skipped = log.entries[first..].iter().take_while(|entry| entry.cursor.position < to);
    for entry in skipped.filter(|entry| log.is_for(entry, stream.reader)) {
        let (reader, position, kind) = (stream.reader, entry.cursor.position, &entry.kind);
        verdict.missed.push(format!("{reader} never had {position}, a {kind}"));
    }
}
