//! The one way in for messages.
//!
//! Each message has a transaction of its own. Callers see nothing of that: they hand in a message
//! and get its own result, once it is on disk.

use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::Log;
use tracing::warn;

use crate::error::Result;
use crate::models::message::{self, Outgoing, Sent};

/// Writes messages.
#[derive(Debug, Clone)]
pub(crate) struct MessageWriter {
    log: Log,
}

impl MessageWriter {
    pub(crate) fn new(log: Log) -> Self {
        Self { log }
    }

    /// Sends a message; answers when it is durable. A caller who goes away does not stop it.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Sent> {
        let log = self.log.clone();
        tokio::spawn(async move { send(&log, &outgoing).await }).await?
    }
}

async fn send(log: &Log, outgoing: &Outgoing) -> Result<Sent> {
    let sent = match message::send(log, outgoing).await {
        // The commit may have happened or not: the same key finds out, and sends once in all.
        Err(error) if error.is_unavailable() => {
            warn!(%error, "sending again under the same key");
            message::send(log, outgoing).await?
        }
        result => result?,
    };
    if let Sent::Replayed(message) = &sent {
        let event = EphemeralEvent::DuplicateMessageAttempted {
            idempotency_key: message.idempotency_key,
            chat_id: message.chat_id,
            sender_id: message.sender_id,
            message_id: message.id,
        };
        let sender = outgoing.sender();
        log.send_ephemeral(sender.workspace_id, sender.id, event);
    }
    Ok(sent)
}
