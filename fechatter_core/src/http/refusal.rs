//! Answers to connections that are not served.

use std::future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Version};
use axum::response::IntoResponse;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use uuid::Uuid;

use super::error::ApiError;
use super::{layers, takeover};

/// How long a refused client may take to read its answer and close.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a refused client has for the beginning of its request, before it is answered anyway.
const UNTIL_REQUEST: Duration = Duration::from_millis(250);
/// How much of its request is read, for closing with bytes unread would break the connection before
/// the client has the answer.
const MAX_DISCARDED: usize = 256 * 1024;

/// Answers with this error whatever the client asks, and closes.
pub(super) async fn refuse(socket: TcpStream, error: ApiError, _permit: OwnedSemaphorePermit) {
    // Many clients take an answer that comes before their request for an error.
    let _ = timeout(UNTIL_REQUEST, socket.peek(&mut [0])).await;
    // It is short and the first that is written, so the socket takes it whole or not at all.
    if matches!(timeout(PATIENCE, socket.writable()).await, Ok(Ok(())))
        && socket.try_write(&answer(error)).is_ok()
    {
        close(socket).await;
    }
}

/// Closes a connection so that the client gets what has been written to it.
pub(super) async fn close(socket: TcpStream) {
    let _ = timeout(PATIENCE, finish(socket)).await;
}

/// Says that nothing more comes, and reads until the client has closed too.
async fn finish(mut socket: TcpStream) -> io::Result<()> {
    future::poll_fn(|context| Pin::new(&mut socket).poll_shutdown(context)).await?;
    let mut discarded = 0;
    let mut buffer = [0; 4096];
    while discarded < MAX_DISCARDED {
        socket.readable().await?;
        match socket.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => discarded += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer(error: ApiError) -> Vec<u8> {
    let request_id = Uuid::now_v7().to_string();
    let body = serde_json::to_vec(&error.body(&request_id)).unwrap_or_default();
    let (mut parts, _) = error.into_response().into_parts();
    layers::protect(&mut parts.headers);
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(request_id) = HeaderValue::try_from(request_id) {
        parts.headers.insert(layers::REQUEST_ID, request_id);
    }
    let mut answer = takeover::last_head(Version::HTTP_11, parts);
    answer.extend(body);
    answer
}
