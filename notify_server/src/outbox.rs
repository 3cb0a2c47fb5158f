//! What one stream has yet to take: bounded, so that a slow reader costs nobody else anything.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fechatter_core::log::Cursor;
use tokio::sync::Notify;

use crate::frame::{GoodbyeReason, ResetReason};

const MAX_FRAMES: usize = 1_024;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Frames in order, and at last the end.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    // Beside the frames, so that there is always room for it.
    end: Option<End>,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client may come back and resume.
    Goodbye(GoodbyeReason),
    /// The client cannot go on from where it is; it starts over from this cursor.
    Reset(ResetReason, Cursor),
}

/// What a stream takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Frame(Bytes),
    End(End),
}

impl Outbox {
    /// Adds a frame. When there is no room, the stream ends instead, and what it had not taken yet
    /// is for its next one to resume with.
    pub(crate) fn push(&self, frame: Bytes) {
        self.update(|queue| {
            if queue.end.is_some() {
                return;
            }
            let bytes = queue.bytes + frame.len();
            if queue.frames.is_empty() || (queue.frames.len() < MAX_FRAMES && bytes <= MAX_BYTES) {
                queue.frames.push_back(frame);
                queue.bytes = bytes;
            } else {
                *queue = Queue::default();
                queue.end = Some(End::Goodbye(GoodbyeReason::SlowConsumer));
            }
        });
    }

    /// Ends the stream behind what is queued; the first end counts.
    pub(crate) fn end(&self, end: End) {
        self.update(|queue| {
            queue.end.get_or_insert(end);
        });
    }

    /// How many frames wait.
    pub(crate) fn len(&self) -> usize {
        self.with_queue(|queue| queue.frames.len())
    }

    /// Whether half of it is taken up.
    pub(crate) fn is_crowded(&self) -> bool {
        self.with_queue(|queue| queue.frames.len() > MAX_FRAMES / 2 || queue.bytes > MAX_BYTES / 2)
    }

    /// Waits for what comes next. Losing this future loses nothing.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let next = self.with_queue(|queue| match queue.frames.pop_front() {
                Some(frame) => {
                    queue.bytes -= frame.len();
                    Some(Next::Frame(frame))
                }
                None => queue.end.map(Next::End),
            });
            match next {
                Some(next) => return next,
                None => self.changed.notified().await,
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Queue)) {
        self.with_queue(change);
        self.changed.notify_one();
    }

    fn with_queue<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        change(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Next = Next::End(End::Goodbye(GoodbyeReason::SlowConsumer));
    const REVOKED: End = End::Goodbye(GoodbyeReason::SessionRevoked);

    fn frame(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    #[tokio::test]
    async fn frames_come_in_order_and_then_the_first_end() {
        let outbox = Outbox::default();
        outbox.push(frame(1));
        outbox.push(frame(2));
        outbox.end(REVOKED);
        outbox.end(End::Goodbye(GoodbyeReason::Draining));
        outbox.push(frame(3));

        assert_eq!(outbox.next().await, Next::Frame(frame(1)));
        assert_eq!(outbox.next().await, Next::Frame(frame(2)));
        assert_eq!(outbox.next().await, Next::End(REVOKED));
    }

    #[tokio::test]
    async fn more_than_1024_events_end_the_stream_with_a_goodbye() {
        let outbox = Outbox::default();
        (0..MAX_FRAMES).for_each(|_| outbox.push(frame(1)));
        assert_eq!(outbox.next().await, Next::Frame(frame(1)));
        outbox.push(frame(1));
        assert_eq!(outbox.next().await, Next::Frame(frame(1)));

        outbox.push(frame(1));
        outbox.push(frame(1));
        assert_eq!(outbox.next().await, SLOW);
    }

    #[tokio::test]
    async fn more_than_4_mib_end_the_stream_with_a_goodbye() {
        let outbox = Outbox::default();
        outbox.push(frame(MAX_BYTES));
        assert_eq!(outbox.next().await, Next::Frame(frame(MAX_BYTES)));

        outbox.push(frame(MAX_BYTES));
        outbox.push(frame(1));
        assert_eq!(outbox.next().await, SLOW);
    }
}
