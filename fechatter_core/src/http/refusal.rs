//! Error responses for connections that are refused.

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

/// The time that a refused client has to read its response and close.
const PATIENCE: Duration = Duration::from_secs(1);
/// The time to wait for the first bytes of a refused client's request before the error is sent.
const UNTIL_REQUEST: Duration = Duration::from_millis(250);
/// The maximum number of bytes of the request that are read and discarded: closing a socket with
/// unread bytes would reset the connection before the client has the response.
const MAX_DISCARDED: usize = 256 * 1024;

/// Sends this error without parsing the request, and closes the connection.
pub(super) async fn refuse(socket: TcpStream, error: ApiError, _permit: OwnedSemaphorePermit) {
    // Many clients treat a response that comes before their request as an error.
    let _ = timeout(UNTIL_REQUEST, socket.peek(&mut [0])).await;
    // The response is short and the first data on the socket, so the socket accepts all of it or
    // nothing.
    if matches!(timeout(PATIENCE, socket.writable()).await, Ok(Ok(())))
        && socket.try_write(&answer(error)).is_ok()
    {
        close(socket).await;
    }
}

/// Closes a connection so that the client receives all data written to it.
pub(super) async fn close(socket: TcpStream) {
    let _ = timeout(PATIENCE, finish(socket)).await;
}

/// Shuts down the sending side, and reads until the client has closed too.
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
