//! The accept loop.
//!
//! `axum::serve` lets a half-sent header hold its connection for ever; this loop does not.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

/// The connection's other end, in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The two sockets of a server.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For operators and their tools.
    pub operations: TcpListener,
}

impl Listeners {
    /// Binds both addresses.
    ///
    /// # Errors
    /// Names the address that cannot be had.
    pub async fn bind(public: SocketAddr, operations: SocketAddr) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            let bound = TcpListener::bind(address).await;
            bound.with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self { public: bind(public).await?, operations: bind(operations).await? })
    }
}

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in hand may take to finish once the end has come.
const DRAIN: Duration = Duration::from_secs(15);

/// How much of an unwanted body is read, and for how long.
const MAX_DRAINED: usize = 16 * 1024 * 1024;
const DRAIN_BODY: Duration = Duration::from_secs(5);

/// Serves connections until the token is cancelled, then lets the requests in hand finish, for at
/// most 15 s. Responses without an end must themselves end on the token.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                connections.spawn(serve_connection(socket, peer, router.clone(), shutdown.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: nothing to do but let some close.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "requests were cut off at the end");
    }
}

/// A request's body that is read to its end even when nobody wants it.
///
/// An answer given before the body was read would otherwise be lost: the socket is closed with
/// bytes unread, and the kernel tells the client of a broken connection instead of the answer.
struct Drained(Option<Incoming>);

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let unread = self.0.take().filter(|body| !body.is_end_stream());
        if let Some(mut body) = unread {
            tokio::spawn(timeout(DRAIN_BODY, async move {
                let mut left = MAX_DRAINED;
                while let Some(Ok(frame)) = body.frame().await {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                    if left == 0 {
                        return;
                    }
                }
            }));
        }
    }
}

async fn serve_connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    // Without this, small frames wait for the client's acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| axum::body::Body::new(Drained(Some(body))));
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection broke off");
    }
}
