//! A client that always comes back to its stream, to any of the servers, with its last cursor.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    Frame,
    connection::{Connection, OpenError, Target},
};

/// Nothing for so long, not even a heartbeat (each 15 s): the connection is dead.
const SILENCE: Duration = Duration::from_secs(40);

/// Where and as whom to listen.
#[derive(Debug, Clone)]
pub struct Follower {
    /// The servers, of which the next one is tried after a failure.
    pub addresses: Arc<[SocketAddr]>,
    /// Which one to begin with; any number will do.
    pub server: usize,
    /// The access token.
    pub token: Arc<str>,
    /// The last cursor; none is from now on.
    pub cursor: Option<String>,
    /// The wait before coming back is between this and twice as long.
    pub pause: Duration,
}

/// What happens to a follower.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The server has accepted the stream.
    Opened,
    /// An event.
    Frame(Frame<'a>),
    /// The stream has ended or broken off, or there was none to be had; the follower comes back.
    Lost,
}

/// Why a follower no longer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its token is no longer good, or its owner may no longer listen: the status.
    Refused(u16),
}

impl Follower {
    /// Listens until it is refused. Losing this future closes the stream; another one goes on from there.
    pub async fn follow(&mut self, mut hear: impl FnMut(Heard<'_>)) -> End {
        loop {
            if let Some(refused) = self.listen(&mut hear).await {
                return End::Refused(refused);
            }
            hear(Heard::Lost);
            self.server += 1;
            sleep(self.pause.mul_f64(rand::random_range(1.0..2.0))).await;
        }
    }

    async fn listen(&mut self, hear: &mut impl FnMut(Heard<'_>)) -> Option<u16> {
        let target = Target {
            address: self.addresses[self.server % self.addresses.len()],
            token: &self.token,
            cursor: self.cursor.as_deref(),
            receive_buffer: None,
        };
        let mut connection = match Connection::open(target).await {
            Ok(connection) => connection,
            Err(OpenError::Refused(status @ (401 | 403 | 404))) => return Some(status),
            Err(OpenError::Refused(_) | OpenError::Failed(_)) => return None,
        };
        hear(Heard::Opened);
        let cursor = &mut self.cursor;
        let mut hear = |frame: Frame<'_>| {
            if let Some(id) = frame.id {
                let cursor = cursor.get_or_insert_default();
                cursor.clear();
                cursor.push_str(id);
            } else if cursor.is_none() && frame.event == "Ready" {
                *cursor = starting_cursor(frame.data);
            }
            hear(Heard::Frame(frame));
        };
        while let Ok(Ok(true)) = timeout(SILENCE, connection.read(&mut hear)).await {}
        None
    }
}

/// What a stream's first event says of where it begins.
fn starting_cursor(ready: &[u8]) -> Option<String> {
    let ready: serde_json::Value = serde_json::from_slice(ready).ok()?;
    ready["cursor"].as_str().map(ToOwned::to_owned)
}
