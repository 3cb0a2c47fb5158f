//! The accept loop.
//!
//! `axum::serve` lets a half-sent header hold its connection for ever; this loop does not.

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
use super::keep_alive::{Answering, InHand, KeepAlive, Patience};
use super::refusal;
use super::socket::Watched;
use super::takeover::{self, Taken, Takeover};

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
    pub fn bind(public: SocketAddr, operations: SocketAddr) -> anyhow::Result<Self> {
        let bind = |address: SocketAddr| {
            listen(address).with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self { public: bind(public)?, operations: bind(operations)? })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that is started anew gets its address back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that wait to be accepted, as far as the system allows: when thousands of clients come
/// back at once, each one beyond them loses seconds.
const BACKLOG: u32 = 16_384;
/// More headers than anybody sends; their size in all is limited further in.
const MAX_HEADERS: usize = 1_000;
/// The most that is held of a request's head, or of its body before somebody wants it. A head may
/// have 24 KiB, and what is a little larger is still answered in full.
const BUFFER: usize = 32 * 1024;
/// Connections that are being refused at a time; more are closed without an answer.
const REFUSALS: usize = 64;
/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How long requests in hand may take to finish once the end has come.
const DRAIN: Duration = Duration::from_secs(15);

/// Serves connections, as many as the limits allow, until the token is cancelled, then lets the
/// requests in hand finish, for at most 15 s. A connection too many is answered with an error and
/// closed. Responses without an end, and what [takes connections over](Takeover), must themselves
/// end on the token.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let idle = limits.idle;
    let connections = Connections::new(limits);
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => match connections.admit(peer.ip()) {
                Ok(place) => {
                    let open = OpenConnection::new(place, tasks.token());
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
                // Out of descriptors, most likely: nothing to do but let some close.
                warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "requests were cut off at the end");
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
    // Without this, small frames wait for the client's acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let (hand_over, mut handed_over) = oneshot::channel();
    let hand_over = Arc::new(Mutex::new(Some(hand_over)));
    let in_hand = InHand::default();
    let socket =
        KeepAlive::new(Watched::new(socket), in_hand.clone(), Patience { idle, head: HEAD });
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = in_hand.begin();
        let mut request = request.map(|body| axum::body::Body::new(Drained::new(body)));
        request.extensions_mut().insert(Peer(peer));
        let answer = answer(router.clone(), request, Arc::clone(&hand_over));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Answering::new(body, busy))) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Of a head that came with the request before: the socket cannot tell it from that one's body.
        .header_read_timeout(idle)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            Ok((takeover, (head, is_chunked))) = &mut handed_over => {
                let socket = connection.into_parts().io.into_inner().into_inner();
                takeover.go_on(Taken { socket, head, is_chunked, open });
                return;
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection broke off");
        if error.is_parse() {
            // hyper has answered; more of what it did not understand may be on its way.
            let socket = connection.into_parts().io.into_inner().into_inner();
            // Boxed: its buffer would be a part of every connection.
            Box::pin(refusal::close(socket.into_inner())).await;
        }
    }
}

type HandOver = Arc<Mutex<Option<oneshot::Sender<(Takeover, (Vec<u8>, bool))>>>>;

/// Answers a request, or hands its connection over: nothing is then answered here any more.
async fn answer(
    router: Router,
    request: Request,
    hand_over: HandOver,
) -> Result<Response, Infallible> {
    let (version, wants_body) = (request.version(), request.method() != Method::HEAD);
    let mut response = router.oneshot(request).await?;
    let takeover = Takeover::of(&mut response).filter(|_| wants_body);
    let Some(takeover) = takeover else { return Ok(response) };
    let head = takeover::head(version, response.into_parts().0);
    if let Some(hand_over) = hand_over.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = hand_over.send((takeover, head));
    }
    future::pending().await
}
