//! Reads messages back after changes, many in one query.
//!
//! The callers of a batch get their answers at the same moment, and each then needs the message that
//! they have changed. While one query runs, the requests that arrive form the next one.

use std::collections::HashMap;

use fechatter_core::message::Message;
use fechatter_core::{ChatId, MessageId, UserId};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::error::{AppError, Result};
use crate::models::message::{self, reaction};

/// The maximum number of messages in one query.
const BATCH: usize = 256;
/// The maximum number of requests that wait for a query.
const MAX_WAITING: usize = 4_096;

/// Reads messages, many in one query. Clones share one task, which ends after the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub(crate) struct MessageReader {
    requests: mpsc::Sender<Request>,
    db: PgPool,
}

#[derive(Debug)]
struct Request {
    key: (ChatId, MessageId),
    answer: oneshot::Sender<Result<Message>>,
}

impl MessageReader {
    /// Starts the task.
    pub(crate) fn start(db: PgPool) -> Self {
        let (requests, arrivals) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(arrivals, db.clone()));
        Self { requests, db }
    }

    /// Returns a message as it is now, as this person sees it. It is not checked whether they may.
    ///
    /// # Errors
    /// [`AppError::NotFound`] if there is no such message, [`AppError::Busy`] if the database fails
    /// or too many requests wait.
    pub(crate) async fn find(
        &self,
        viewer: UserId,
        chat_id: ChatId,
        id: MessageId,
    ) -> Result<Message> {
        let (answer, answered) = oneshot::channel();
        let request = Request { key: (chat_id, id), answer };
        self.requests.try_send(request).map_err(|_| AppError::Busy)?;
        let mut message = answered.await.unwrap_or(Err(AppError::Busy))?;
        reaction::mark_own(&self.db, viewer, std::slice::from_mut(&mut message)).await?;
        Ok(message)
    }
}

async fn run(mut arrivals: mpsc::Receiver<Request>, db: PgPool) {
    let mut batch = Vec::new();
    while arrivals.recv_many(&mut batch, BATCH).await > 0 {
        let keys: Vec<_> = batch.iter().map(|request| request.key).collect();
        match message::find_many(&db, &keys).await {
            Ok(found) => {
                let found: HashMap<_, _> = found
                    .into_iter()
                    .map(|message| ((message.chat_id, message.id), message))
                    .collect();
                for Request { key, answer } in batch.drain(..) {
                    let _ = answer.send(found.get(&key).cloned().ok_or(AppError::NotFound));
                }
            }
            Err(error) => {
                warn!(%error, "changed messages could not be read");
                for request in batch.drain(..) {
                    let _ = request.answer.send(Err(AppError::Busy));
                }
            }
        }
    }
}
