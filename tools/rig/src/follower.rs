//! A client that reconnects to its stream with its last cursor, each time to the next server.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use crate::{
    Frame,
    connection::{Connection, OpenError, Target},
};

/// The maximum time without data. The servers send a heartbeat every 15 s, so the connection has
/// failed if nothing arrives for this long.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// A client that follows the event stream of a user.
#[derive(Debug, Clone)]
pub struct Follower {
    /// The addresses of the servers. After each stream, the follower connects to the next one.
    pub addresses: Arc<[SocketAddr]>,
    /// The index of the next server to connect to, modulo the number of addresses.
    pub server: usize,
    /// The access token.
    pub token: Arc<str>,
    /// The last cursor. With `None`, the stream begins at the newest event.
    pub cursor: Option<String>,
    /// The minimum wait before a reconnection. The wait is random, up to twice as long.
    pub pause: Duration,
}

/// A report of a follower to its callback.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The server accepted the stream, which the follower asked for at this time.
    Opened(Instant),
    /// A frame arrived.
    Frame(Frame<'a>),
    /// The stream ended or failed, or could not be opened. The follower will connect again.
    Lost,
}

/// Why a follower stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server refused the stream with this status (401, 403 or 404): the token is not valid any
    /// more, or the user may not read the stream any more.
    Refused(u16),
}

impl Follower {
    /// Reads the stream, and connects again when it ends, until the server refuses it. If this
    /// future is dropped, the stream is closed; the next call resumes from the last cursor.
    pub async fn follow(&mut self, mut on_heard: impl FnMut(Heard<'_>)) -> End {
        loop {
            if let Some(refused) = self.read_stream(&mut on_heard).await {
                return End::Refused(refused);
            }
            on_heard(Heard::Lost);
            self.server += 1;
            sleep(self.pause.mul_f64(rand::random_range(1.0..2.0))).await;
        }
    }

    /// Reads one stream to its end. Returns the status if the server refuses it finally.
    async fn read_stream(&mut self, on_heard: &mut impl FnMut(Heard<'_>)) -> Option<u16> {
        let target = Target {
            address: self.addresses[self.server % self.addresses.len()],
            token: &self.token,
            cursor: self.cursor.as_deref(),
            receive_buffer: None,
        };
        let asked_at = Instant::now();
        let mut connection = match Connection::open(target).await {
            Ok(connection) => connection,
            Err(OpenError::Refused(status @ (401 | 403 | 404))) => return Some(status),
            Err(OpenError::Refused(_) | OpenError::Failed(_)) => return None,
        };
        on_heard(Heard::Opened(asked_at));
        let cursor = &mut self.cursor;
        let mut on_frame = |frame: Frame<'_>| {
            if let Some(id) = frame.id {
                let cursor = cursor.get_or_insert_default();
                cursor.clear();
                cursor.push_str(id);
            } else if cursor.is_none() && frame.event == "Ready" {
                *cursor = starting_cursor(frame.data);
            }
            on_heard(Heard::Frame(frame));
        };
        while let Ok(Ok(true)) = timeout(READ_TIMEOUT, connection.read(&mut on_frame)).await {}
        None
    }
}

/// Returns the cursor in `Ready`, the first event of a stream: the position where the stream
/// begins.
fn starting_cursor(ready: &[u8]) -> Option<String> {
    let ready: serde_json::Value = serde_json::from_slice(ready).ok()?;
    ready["cursor"].as_str().map(ToOwned::to_owned)
}
