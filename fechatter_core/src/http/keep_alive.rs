//! Time limits for a connection's next request, and for the rest of a request head.
//!
//! hyper has one time limit for both. But proxies keep idle connections for a minute or two and
//! respond with 502 if the server closes one as a request arrives, while an incomplete request must
//! end sooner.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::socket::StallDetectingSocket;

/// The time limits for a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// Between two requests.
    pub(super) idle: Duration,
    /// For the head of a request, and for the first byte of the connection's first request.
    pub(super) head: Duration,
}

/// True while a request of the connection is in progress: until its response is written. Clones
/// share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestInProgress(Arc<AtomicBool>);

/// A request that is in progress until this is dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest(RequestInProgress);

/// A socket that reports its end when the client exceeds a time limit.
#[derive(Debug)]
pub(super) struct KeepAlive {
    socket: StallDetectingSocket,
    in_progress: RequestInProgress,
    timeouts: ConnectionTimeouts,
    /// The deadline for a complete head, once a part of one has arrived.
    head_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A response's body, which keeps its request in progress until it is dropped.
#[derive(Debug)]
pub(super) struct TrackedBody<B> {
    body: B,
    _request: ActiveRequest,
}

impl RequestInProgress {
    pub(super) fn begin(&self) -> ActiveRequest {
        self.0.store(true, Ordering::Relaxed);
        ActiveRequest(self.clone())
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl KeepAlive {
    pub(super) fn new(
        socket: StallDetectingSocket,
        in_progress: RequestInProgress,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        let head_by = Some(Instant::now() + timeouts.head);
        Self { socket, in_progress, timeouts, head_by, timer: None }
    }

    pub(super) fn into_inner(self) -> StallDetectingSocket {
        self.socket
    }

    /// Waits until the time limit for the next request or the rest of a head is exceeded.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (head_by, idle) = (self.head_by, self.timeouts.idle);
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(sleep_until(head_by.unwrap_or_else(|| Instant::now() + idle)))
        });
        timer.as_mut().poll(context)
    }
}

impl AsyncRead for KeepAlive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        if self.in_progress.is_any() {
            (self.head_by, self.timer) = (None, None);
            return polled;
        }
        if polled.is_ready() {
            if self.head_by.is_none() {
                (self.head_by, self.timer) = (Some(Instant::now() + self.timeouts.head), None);
            }
            return polled;
        }
        // The server then sees the end of the input, as if the client had left.
        self.poll_late(context).map(Ok)
    }
}

impl AsyncWrite for KeepAlive {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl<B> TrackedBody<B> {
    pub(super) fn new(body: B, request: ActiveRequest) -> Self {
        Self { body, _request: request }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_mins(10);

    async fn connected(timeouts: ConnectionTimeouts) -> (TcpStream, KeepAlive, RequestInProgress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let in_progress = RequestInProgress::default();
        let socket = StallDetectingSocket::new(listener.accept().await.unwrap().0);
        (client, KeepAlive::new(socket, in_progress.clone(), timeouts), in_progress)
    }

    /// Returns true if the socket ends by itself while its client stays.
    async fn ends(socket: &mut KeepAlive) -> bool {
        let mut said = Vec::new();
        timeout(10 * SOON, socket.read_to_end(&mut said)).await.is_ok()
    }

    #[tokio::test]
    async fn an_incomplete_or_missing_head_has_a_shorter_timeout_than_the_next_request() {
        let (mut client, mut socket, _) =
            connected(ConnectionTimeouts { idle: LONG, head: SOON }).await;
        assert!(ends(&mut socket).await, "nothing was ever sent");

        let (mut other, mut socket, in_progress) =
            connected(ConnectionTimeouts { idle: LONG, head: SOON }).await;
        drop(in_progress.begin());
        other.write_all(b"GET / HT").await.unwrap();
        assert!(ends(&mut socket).await, "half a head is there");
        client.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn the_idle_timeout_applies_between_requests_and_no_timeout_during_one() {
        let (mut client, mut socket, in_progress) =
            connected(ConnectionTimeouts { idle: LONG, head: SOON }).await;
        let request = in_progress.begin();
        client.write_all(b"the head").await.unwrap();
        assert!(!ends(&mut socket).await, "a request is in progress");
        drop(request);
        assert!(!ends(&mut socket).await, "it waits for the next one");

        let (_client, mut socket, in_progress) =
            connected(ConnectionTimeouts { idle: SOON, head: LONG }).await;
        let request = in_progress.begin();
        assert!(!ends(&mut socket).await, "a request is in progress");
        drop(request);
        assert!(ends(&mut socket).await, "the next one does not come");
    }
}
