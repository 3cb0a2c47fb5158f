//! Time limits for a connection's next request, and for the rest of a request head.
//!
//! hyper has one time limit for both. But proxies keep idle connections for a minute or two and
//! answer 502 if the server closes one as a request arrives, while an incomplete request must not
//! be waited for so long.

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

use super::socket::Watched;

/// The time limits for a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between two requests.
    pub(super) idle: Duration,
    /// For the head of a request, and for the first byte of the connection's first request.
    pub(super) head: Duration,
}

/// True while a request is being answered. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct InHand(Arc<AtomicBool>);

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(InHand);

/// A socket that reports its end when the client exceeds a time limit.
#[derive(Debug)]
pub(super) struct KeepAlive {
    socket: Watched,
    in_hand: InHand,
    patience: Patience,
    /// The deadline for a complete head, once a part of one has arrived.
    head_by: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A response's body, which keeps its request counted as being answered.
#[derive(Debug)]
pub(super) struct Answering<B> {
    body: B,
    _busy: Busy,
}

impl InHand {
    pub(super) fn begin(&self) -> Busy {
        self.0.store(true, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl KeepAlive {
    pub(super) fn new(socket: Watched, in_hand: InHand, patience: Patience) -> Self {
        let head_by = Some(Instant::now() + patience.head);
        Self { socket, in_hand, patience, head_by, timer: None }
    }

    pub(super) fn into_inner(self) -> Watched {
        self.socket
    }

    /// Waits until the time limit for the next request or the rest of a head is exceeded.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (head_by, idle) = (self.head_by, self.patience.idle);
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
        if self.in_hand.is_any() {
            (self.head_by, self.timer) = (None, None);
            return polled;
        }
        if polled.is_ready() {
            if self.head_by.is_none() {
                (self.head_by, self.timer) = (Some(Instant::now() + self.patience.head), None);
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

impl<B> Answering<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answering<B> {
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

    async fn connected(patience: Patience) -> (TcpStream, KeepAlive, InHand) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let in_hand = InHand::default();
        let socket = Watched::new(listener.accept().await.unwrap().0);
        (client, KeepAlive::new(socket, in_hand.clone(), patience), in_hand)
    }

    /// Returns true if the socket ends by itself while its client stays.
    async fn ends(socket: &mut KeepAlive) -> bool {
        let mut said = Vec::new();
        timeout(10 * SOON, socket.read_to_end(&mut said)).await.is_ok()
    }

    #[tokio::test]
    async fn half_a_head_and_silence_are_not_waited_for_as_long_as_the_next_request() {
        let (mut client, mut socket, _) = connected(Patience { idle: LONG, head: SOON }).await;
        assert!(ends(&mut socket).await, "nothing was ever sent");

        let (mut other, mut socket, in_hand) = connected(Patience { idle: LONG, head: SOON }).await;
        drop(in_hand.begin());
        other.write_all(b"GET / HT").await.unwrap();
        assert!(ends(&mut socket).await, "half a head is there");
        client.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn between_requests_a_client_may_wait_and_during_one_as_long_as_it_takes() {
        let (mut client, mut socket, in_hand) =
            connected(Patience { idle: LONG, head: SOON }).await;
        let busy = in_hand.begin();
        client.write_all(b"the head").await.unwrap();
        assert!(!ends(&mut socket).await, "a request is in hand");
        drop(busy);
        assert!(!ends(&mut socket).await, "it waits for the next one");

        let (_client, mut socket, in_hand) = connected(Patience { idle: SOON, head: LONG }).await;
        let busy = in_hand.begin();
        assert!(!ends(&mut socket).await, "a request is in hand");
        drop(busy);
        assert!(ends(&mut socket).await, "the next one does not come");
    }
}
