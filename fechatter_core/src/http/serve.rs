//! The accept loop.
//!
//! `axum::serve` allows a half-sent header to hold its connection for ever; this loop does not.

use std::convert::Infallible;
use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::body::Drained;
use super::connections::{ConnectionLimits, Connections, OpenConnection};
use super::keep_alive::{ConnectionTimeouts, KeepAlive, RequestInProgress, TrackedBody};
use super::refusal;
use super::socket::StallDetectingSocket;
use super::takeover::{self, TakenConnection, Takeover};

/// The address of the connection's other end, in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The two listening sockets of a server.
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
    /// Names the address that cannot be bound.
    pub fn bind(public: SocketAddr, operations: SocketAddr) -> anyhow::Result<Self> {
        let bind = |address: SocketAddr| {
            listen(address).with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self { public: bind(public)?, operations: bind(operations)? })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server can bind its address again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The maximum number of connections that wait to be accepted, as far as the system allows: when
/// thousands of clients reconnect at once, a client above this limit waits several seconds until
/// its TCP stack retries.
const BACKLOG: u32 = 16_384;
/// The maximum number of headers of a request, which is higher than any client needs.
/// [`well_formed`](super::well_formed) limits their total size.
const MAX_HEADERS: usize = 1_000;
/// The buffer size for a request's head, and for its body until the handler reads it. A head may
/// have 24 KiB, and slightly larger ones still get a complete error response.
const BUFFER_BYTES: usize = 32 * 1024;
/// The maximum number of connections being refused at a time; further ones are closed without a
/// response.
const MAX_REFUSALS: usize = 64;
/// The time that a client has to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The time that open requests have to finish after the shutdown begins.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves connections, up to the limits, until the token is cancelled, then waits up to 15 s for
/// open requests to finish. A connection above the limits gets an error and is closed. Endless
/// responses and [takeovers](Takeover) must themselves end when the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let idle = limits.idle;
    let connections = Connections::new(limits);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => match connections.admit(peer.ip()) {
                Ok(slot) => {
                    let open = OpenConnection::new(slot, tasks.token());
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    let accepted = Accepted { socket, peer, open };
                    tasks.spawn(serve_connection(accepted, router, idle, shutdown));
                }
                Err(refused) => {
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        tasks.spawn(refusal::refuse(socket, refused.into(), permit));
                    }
                }
            },
            Err(error) => {
                // Most likely, file descriptors are exhausted: wait until some connections close.
                warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "requests were aborted at the shutdown timeout");
    }
}

/// A new connection.
struct Accepted {
    socket: TcpStream,
    peer: SocketAddr,
    open: OpenConnection,
}

async fn serve_connection(
    Accepted { socket, peer, open }: Accepted,
    router: Router,
    idle: Duration,
    shutdown: CancellationToken,
) {
    // Disables Nagle's algorithm: otherwise a small frame waits until the client acknowledges the
    // previous one.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY cannot be set");
    }
    let (takeover_tx, mut takeover_rx) = oneshot::channel();
    let takeover_tx = Arc::new(Mutex::new(Some(takeover_tx)));
    let in_progress = RequestInProgress::default();
    let socket = KeepAlive::new(
        StallDetectingSocket::new(socket),
        in_progress.clone(),
        ConnectionTimeouts { idle, head: HEAD_TIMEOUT },
    );
    let service = service_fn(move |request: Request<Incoming>| {
        let active = in_progress.begin();
        let mut request = request.map(|body| axum::body::Body::new(Drained::new(body)));
        request.extensions_mut().insert(Peer(peer));
        let answer = answer(router.clone(), request, Arc::clone(&takeover_tx));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| TrackedBody::new(body, active))) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // This timeout is only for a pipelined head: `KeepAlive` cannot see it, because it arrived
        // together with the previous request.
        .header_read_timeout(idle)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            Ok((takeover, (response_head, is_chunked))) = &mut takeover_rx => {
                let socket = connection.into_parts().io.into_inner().into_inner();
                takeover.run(TakenConnection {
                    socket,
                    response_head,
                    is_chunked,
                    connection_guard: open,
                });
                return;
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection failed");
        if error.is_parse() {
            // hyper has answered; the client may still be sending the rest of the invalid request.
            let socket = connection.into_parts().io.into_inner().into_inner();
            // Boxed, because its buffer would otherwise enlarge the future of every connection.
            Box::pin(refusal::close(socket.into_inner())).await;
        }
    }
}

type TakeoverSender = Arc<Mutex<Option<oneshot::Sender<(Takeover, (Vec<u8>, bool))>>>>;

/// Answers a request. If the response is a takeover, sends it to the task of the connection
/// instead, and never completes.
async fn answer(
    router: Router,
    request: Request,
    takeover_tx: TakeoverSender,
) -> Result<Response, Infallible> {
    let (version, wants_body) = (request.version(), request.method() != Method::HEAD);
    let mut response = router.oneshot(request).await?;
    let takeover = Takeover::of(&mut response).filter(|_| wants_body);
    let Some(takeover) = takeover else { return Ok(response) };
    let head = takeover::head(version, response.into_parts().0);
    if let Some(takeover_tx) = takeover_tx.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = takeover_tx.send((takeover, head));
    }
    future::pending().await
}
