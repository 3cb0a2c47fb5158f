//! The bounded queue of frames for one stream. The bound keeps a slow reader from affecting other
//! streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use fechatter_core::log::Cursor;
use fechatter_core::stream_event::{GoodbyeReason, ResetReason};

use crate::frame::Frame;

const MAX_FRAMES: usize = 1_024;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The maximum number of frames, and of bytes, that a stream takes from its outbox for one write,
/// so that it does not delay other streams for long.
const MAX_FRAMES_PER_WRITE: usize = 64;
const MAX_BYTES_PER_WRITE: usize = 256 * 1024;

/// Counts the outboxes of a workspace that are more than half full. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct BackloggedOutboxes(Arc<AtomicUsize>);

/// A queue of frames, followed by the end of the stream.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    backlogged: BackloggedOutboxes,
}

#[derive(Debug, Default)]
struct Queue {
    // Holds little memory while it is empty, which is nearly always.
    frames: VecDeque<Frame>,
    bytes: usize,
    // True while this queue is included in the count of backlogged outboxes.
    is_backlogged: bool,
    // Separate from the frames, so that there is always room for it.
    end: Option<End>,
    // The waker of the stream's task, while it waits.
    waker: Option<Waker>,
    // True if the task waits for frames or the end, false if it waits only for the end.
    wants_frames: bool,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client may reconnect and resume.
    Goodbye(GoodbyeReason),
    /// The client cannot continue from its cursor; it starts over from this one.
    Reset(ResetReason, Cursor),
}

/// The result of taking from an outbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Frames,
    End(End),
}

/// The wakers of streams with new frames. Dropping it wakes these streams. Drop it after all frames
/// of a batch are queued, so that each stream wakes once.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Drop for Wakers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl End {
    /// Returns true if queued frames must not be sent any more.
    pub(crate) fn discards_queued_frames(self) -> bool {
        matches!(
            self,
            Self::Goodbye(
                GoodbyeReason::TokenExpired
                    | GoodbyeReason::SessionRevoked
                    | GoodbyeReason::Suspended
                    | GoodbyeReason::Removed
                    | GoodbyeReason::WorkspaceClosed
            )
        )
    }
}

impl BackloggedOutboxes {
    /// Returns true if an outbox is backlogged.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Outbox {
    /// Creates an empty outbox, which is counted in `backlogged` while it is backlogged.
    pub(crate) fn new(backlogged: BackloggedOutboxes) -> Self {
        Self { queue: Mutex::default(), backlogged }
    }

    /// Queues a frame. If there is no room, drops the queue and ends the stream instead; the
    /// client's next stream resumes with the dropped frames.
    pub(crate) fn push(&self, frame: Frame, wakers: &mut Wakers) {
        let queue = &mut *self.queue();
        if queue.end.is_some() {
            return;
        }
        let bytes = queue.bytes + frame.len();
        if queue.frames.is_empty() || (queue.frames.len() < MAX_FRAMES && bytes <= MAX_BYTES) {
            queue.frames.push_back(frame);
            queue.bytes = bytes;
        } else {
            queue.frames = VecDeque::new();
            queue.bytes = 0;
            queue.end = Some(End::Goodbye(GoodbyeReason::SlowConsumer));
        }
        queue.update_backlog_count(&self.backlogged);
        if queue.wants_frames {
            wakers.0.extend(queue.waker.take());
        }
    }

    /// Queues a frame that may be lost, unless the queue is more than half full.
    pub(crate) fn push_if_not_backlogged(&self, frame: &Frame, wakers: &mut Wakers) {
        if !self.queue().is_backlogged {
            self.push(frame.clone(), wakers);
        }
    }

    /// Ends the stream after the queued frames; the first end counts.
    pub(crate) fn end(&self, end: End, wakers: &mut Wakers) {
        let queue = &mut *self.queue();
        queue.end.get_or_insert(end);
        wakers.0.extend(queue.waker.take());
    }

    /// Returns the number of queued frames.
    pub(crate) fn len(&self) -> usize {
        self.queue().frames.len()
    }

    /// Moves queued frames into `out`, which must be empty, up to the limit for one write. The
    /// memory of `out` is reused for later frames.
    pub(crate) fn poll_next(
        &self,
        context: &mut Context<'_>,
        out: &mut VecDeque<Frame>,
    ) -> Poll<Next> {
        let queue = &mut *self.queue();
        if !queue.frames.is_empty() {
            queue.take(out);
            queue.update_backlog_count(&self.backlogged);
            return Poll::Ready(Next::Frames);
        }
        match queue.end {
            Some(end) => Poll::Ready(Next::End(end)),
            None => queue.wait(context, true),
        }
    }

    /// Waits for the end only, regardless of queued frames.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<End> {
        let queue = &mut *self.queue();
        match queue.end {
            Some(end) => Poll::Ready(end),
            None => queue.wait(context, false),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if self.queue().is_backlogged {
            self.backlogged.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Queue {
    fn take(&mut self, out: &mut VecDeque<Frame>) {
        if self.frames.len() <= MAX_FRAMES_PER_WRITE && self.bytes <= MAX_BYTES_PER_WRITE {
            self.bytes = 0;
            std::mem::swap(&mut self.frames, out);
            return;
        }
        let mut bytes = 0;
        let fitting = self.frames.iter().take(MAX_FRAMES_PER_WRITE).take_while(|frame| {
            bytes += frame.len();
            bytes <= MAX_BYTES_PER_WRITE
        });
        out.extend(self.frames.drain(..fitting.count().max(1)));
        self.bytes -= out.iter().map(Frame::len).sum::<usize>();
    }

    /// Updates the count of outboxes that are more than half full.
    fn update_backlog_count(&mut self, backlogged: &BackloggedOutboxes) {
        let is_backlogged = self.frames.len() > MAX_FRAMES / 2 || self.bytes > MAX_BYTES / 2;
        if is_backlogged && !self.is_backlogged {
            backlogged.0.fetch_add(1, Ordering::Relaxed);
        } else if !is_backlogged && self.is_backlogged {
            backlogged.0.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_backlogged = is_backlogged;
    }

    fn wait<T>(&mut self, context: &Context<'_>, wants_frames: bool) -> Poll<T> {
        self.wants_frames = wants_frames;
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Poll<Polled> = Poll::Ready(Err(End::Goodbye(GoodbyeReason::SlowConsumer)));
    const REVOKED: End = End::Goodbye(GoodbyeReason::SessionRevoked);

    fn frame(length: usize) -> Frame {
        Frame::raw(vec![b'x'; length])
    }

    type Polled = Result<VecDeque<Frame>, End>;

    fn frames<const N: usize>(lengths: [usize; N]) -> Poll<Polled> {
        Poll::Ready(Ok(lengths.map(frame).into()))
    }

    impl Outbox {
        fn push_frame(&self, frame: Frame) {
            self.push(frame, &mut Wakers::default());
        }

        fn ends(&self, end: End) {
            self.end(end, &mut Wakers::default());
        }

        fn next(&self) -> Poll<Polled> {
            let mut out = VecDeque::new();
            let next = self.poll_next(&mut Context::from_waker(Waker::noop()), &mut out);
            next.map(|next| match next {
                Next::Frames => Ok(out),
                Next::End(end) => Err(end),
            })
        }
    }

    #[test]
    fn frames_come_in_order_and_then_the_first_end() {
        let outbox = Outbox::default();
        outbox.push_frame(frame(1));
        outbox.push_frame(frame(2));
        outbox.ends(REVOKED);
        outbox.ends(End::Goodbye(GoodbyeReason::Draining));
        outbox.push_frame(frame(3));

        assert_eq!(outbox.next(), frames([1, 2]));
        assert_eq!(outbox.next(), Poll::Ready(Err(REVOKED)));
    }

    #[test]
    fn more_than_1024_frames_end_the_stream_with_a_goodbye() {
        let outbox = Outbox::default();
        (0..MAX_FRAMES).for_each(|_| outbox.push_frame(frame(1)));
        assert_eq!(outbox.next(), frames([1; MAX_FRAMES_PER_WRITE]));
        (0..MAX_FRAMES_PER_WRITE).for_each(|_| outbox.push_frame(frame(1)));
        assert_eq!(outbox.len(), MAX_FRAMES);

        outbox.push_frame(frame(1));
        outbox.push_frame(frame(1));
        assert_eq!(outbox.next(), SLOW);
    }

    #[test]
    fn more_than_4_mib_end_the_stream_with_a_goodbye() {
        let outbox = Outbox::default();
        outbox.push_frame(frame(MAX_BYTES));
        assert_eq!(outbox.next(), frames([MAX_BYTES]));

        outbox.push_frame(frame(MAX_BYTES));
        outbox.push_frame(frame(1));
        assert_eq!(outbox.next(), SLOW);
    }

    #[test]
    fn poll_next_returns_at_most_64_frames_or_256_kib() {
        let outbox = Outbox::default();
        for length in [MAX_BYTES_PER_WRITE - 1, 1, 1, MAX_BYTES_PER_WRITE] {
            outbox.push_frame(frame(length));
        }

        assert_eq!(outbox.next(), frames([MAX_BYTES_PER_WRITE - 1, 1]));
        assert_eq!(outbox.next(), frames([1]));
        assert_eq!(outbox.next(), frames([MAX_BYTES_PER_WRITE]));
        assert!(outbox.next().is_pending());
        (0..MAX_BYTES)
            .step_by(MAX_BYTES_PER_WRITE)
            .for_each(|_| outbox.push_frame(frame(MAX_BYTES_PER_WRITE)));
        assert_eq!(
            outbox.len(),
            MAX_BYTES / MAX_BYTES_PER_WRITE,
            "removed frames free their space"
        );
    }

    #[test]
    fn an_outbox_is_backlogged_while_it_is_more_than_half_full() {
        let backlogged = BackloggedOutboxes::default();
        let outboxes: [Outbox; 3] = std::array::from_fn(|_| Outbox::new(backlogged.clone()));
        let [by_frames, by_bytes, by_end] = &outboxes;
        (0..=MAX_FRAMES / 2).for_each(|_| by_frames.push_frame(frame(1)));
        by_bytes.push_frame(frame(MAX_BYTES));
        assert_eq!(backlogged.0.load(Ordering::Relaxed), 2);

        assert_eq!(by_frames.next(), frames([1; MAX_FRAMES_PER_WRITE]));
        assert!(backlogged.any());
        assert_eq!(by_bytes.next(), frames([MAX_BYTES]));
        assert!(!backlogged.any());

        by_end.push_frame(frame(MAX_BYTES));
        assert!(backlogged.any());
        by_end.push_frame(frame(1));
        assert!(!backlogged.any(), "it has ended");

        by_bytes.push_frame(frame(MAX_BYTES));
        assert!(backlogged.any());
        drop(outboxes);
        assert!(!backlogged.any());
    }

    #[test]
    fn poll_end_is_woken_by_the_end_and_not_by_frames() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let woken = std::sync::Arc::new(Count(0.into()));
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let count = || woken.0.load(std::sync::atomic::Ordering::SeqCst);
        let outbox = Outbox::default();

        assert!(outbox.poll_end(&mut Context::from_waker(&waker)).is_pending());
        outbox.push_frame(frame(1));
        assert_eq!(count(), 0);
        outbox.ends(REVOKED);
        assert_eq!(count(), 1);
        let ended = outbox.poll_end(&mut Context::from_waker(&waker));
        assert_eq!(ended, Poll::Ready(REVOKED));
        assert_eq!(outbox.next(), frames([1]));
    }
}
