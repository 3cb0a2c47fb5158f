//! Connections that a response takes over: a stream needs only the socket, not the HTTP parser of
//! its request.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Version, response};
use axum::response::Response;
use chrono::Utc;

use super::connections::OpenConnection;
use super::socket::StallDetectingSocket;

/// A callback in the extensions of a response that takes over the connection. It is called with the
/// socket, and the body of the response is not sent. It must spawn its work, and end it when the
/// server shuts down.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<Callback>>>);

type Callback = Box<dyn FnOnce(TakenConnection) + Send>;

/// A connection after its last request.
pub struct TakenConnection {
    /// The socket. All bytes written to it until it is closed form the response.
    pub socket: StallDetectingSocket,
    /// The response's head, which must be written first.
    pub response_head: Vec<u8>,
    /// True if the body must be chunked (RFC 9112, section 7.1); else the body ends with the
    /// connection, as in HTTP/1.0.
    pub is_chunked: bool,
    /// Until this guard is dropped, the connection counts as open and the shutdown waits for it.
    pub connection_guard: OpenConnection,
}

impl Takeover {
    /// Creates a takeover that calls this function with the socket.
    pub fn new(callback: impl FnOnce(TakenConnection) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(callback)))))
    }

    /// Removes the takeover from a response.
    pub(super) fn of(response: &mut Response) -> Option<Self> {
        response.extensions_mut().remove()
    }

    pub(super) fn run(self, connection: TakenConnection) {
        let callback = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(callback) = callback {
            callback(connection);
        }
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover")
    }
}

/// Returns the head of a response without a length, and true if its body is chunked.
pub(super) fn head(version: Version, mut parts: response::Parts) -> (Vec<u8>, bool) {
    parts.headers.remove(CONTENT_LENGTH);
    let is_chunked = version >= Version::HTTP_11;
    if is_chunked {
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else {
        parts.headers.remove(TRANSFER_ENCODING);
    }
    (last_head(version, parts), is_chunked)
}

/// Returns the head of a connection's last response.
pub(super) fn last_head(version: Version, parts: response::Parts) -> Vec<u8> {
    let mut headers = parts.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let now = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(now) = HeaderValue::try_from(now) {
        headers.insert(DATE, now);
    }
    let mut head = format!("{version:?} {}\r\n", parts.status).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
