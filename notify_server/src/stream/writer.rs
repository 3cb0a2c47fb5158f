//! A stream's socket: writes all pending frames with few system calls, and detects a client that
//! leaves.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fechatter_core::http::StallDetectingSocket;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::frame::Frame;
use crate::workspace::outbox::{Next, Outbox};

/// The maximum number of frames in one write.
const MAX_SLICES: usize = 64;
/// The number of frames for which memory is kept while nothing is pending: there are thousands of
/// streams, and nearly always one frame at a time.
const KEPT_FRAMES: usize = 4;

/// Writes to one client.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: StallDetectingSocket,
    pending: VecDeque<Frame>,
    blocked: bool,
    is_chunked: bool,
}

/// The client has closed the connection, or does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Writer {
    /// Creates a writer that first writes the response's head. The body is chunked, unless the
    /// client uses HTTP/1.0.
    pub(crate) fn new(
        socket: StallDetectingSocket,
        response_head: Vec<u8>,
        is_chunked: bool,
    ) -> Self {
        Self { socket, pending: [Frame::raw(response_head)].into(), blocked: false, is_chunked }
    }

    /// Adds frames to the pending ones, to be written next.
    pub(crate) fn enqueue(&mut self, mut frames: VecDeque<Frame>) {
        self.unchunk(&mut frames);
        if self.pending.is_empty() {
            self.pending = frames;
        } else {
            self.pending.extend(frames);
        }
    }

    /// Moves frames from the outbox to the pending ones. All pending frames must have been written.
    pub(crate) fn poll_fill_from(
        &mut self,
        outbox: &Outbox,
        context: &mut Context<'_>,
    ) -> Poll<Next> {
        let mut pending = std::mem::take(&mut self.pending);
        let next = outbox.poll_next(context, &mut pending);
        self.unchunk(&mut pending);
        self.pending = pending;
        next
    }

    fn unchunk(&self, frames: &mut VecDeque<Frame>) {
        if !self.is_chunked {
            for frame in frames {
                *frame = frame.text();
            }
        }
    }

    /// Returns true if the socket is blocked: the client has not made room for the pending frames.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Writes all pending frames.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.pending.is_empty() {
            let written = self.poll_write(context);
            self.blocked = written.is_pending();
            match ready!(written) {
                Ok(written) if written > 0 => self.forget(written),
                _ => return Poll::Ready(Err(Gone)),
            }
        }
        self.pending.shrink_to(KEPT_FRAMES);
        Poll::Ready(Ok(()))
    }

    /// Waits until the client leaves. Any bytes after the request are discarded.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        let mut bytes = [0; 512];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            let outcome = ready!(Pin::new(&mut self.socket).poll_read(context, &mut read));
            if outcome.is_err() || read.filled().is_empty() {
                return Poll::Ready(Gone);
            }
        }
    }

    /// Writes all pending frames, unless the client leaves.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        poll_fn(|context| match self.poll_gone(context) {
            Poll::Ready(gone) => Poll::Ready(Err(gone)),
            Poll::Pending => self.poll_flush(context),
        })
        .await
    }

    /// Writes the pending frames and ends the response.
    pub(crate) async fn end(mut self) {
        if self.is_chunked {
            self.pending.push_back(Frame::last_chunk());
        }
        if self.flush().await.is_ok() {
            let _ = self.socket.shutdown().await;
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if let [frame] = self.pending.make_contiguous() {
            return socket.poll_write(context, frame.as_ref());
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = slices.iter_mut().zip(&self.pending).map(|(slice, frame)| {
            *slice = IoSlice::new(frame.as_ref());
        });
        let filled = filled.count();
        socket.poll_write_vectored(context, &slices[..filled])
    }

    fn forget(&mut self, mut written: usize) {
        while let Some(frame) = self.pending.front_mut() {
            if written < frame.len() {
                frame.advance(written);
                return;
            }
            written -= frame.len();
            self.pending.pop_front();
        }
    }
}
