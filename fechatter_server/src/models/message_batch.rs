//! Many messages in one statement, which is also their one commit.

use std::sync::Arc;

use fechatter_core::commit::durably;
use fechatter_core::log::{Log, Stamp};
use fechatter_core::{MessageId, Seq, Timestamp};
use sqlx::PgConnection;

use crate::error::{AppError, Result};
use crate::models::message::Outgoing;

/// What became of one message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent {
        id: MessageId,
        seq: Seq,
        created_at: Timestamp,
    },
    /// It was sent before, under the same key.
    Replayed(MessageId),
    Refused(Refusal),
    /// Somebody else held the workspace's log: nothing was done about this message.
    Locked,
}

/// Why a message is not sent, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its key was used for something else.
    Mismatch,
    SessionEnded,
    Suspended,
    NotFound,
    Archived,
}

/// What to do about logs that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Leave their messages out.
    Skip,
    /// Wait for them.
    Wait,
}

impl From<Refusal> for AppError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Mismatch => Self::IdempotencyMismatch,
            Refusal::SessionEnded => Self::SessionEnded,
            Refusal::Suspended => Self::Suspended,
            Refusal::NotFound => Self::NotFound,
            Refusal::Archived => Self::Archived,
        }
    }
}

/// Sends a batch and commits. The outcomes are in its order. No key may be twice in it.
///
/// Whether sessions live, people are active and members, is asked under the locks of the logs:
/// nobody removed has a later message.
///
/// # Errors
/// When nothing was sent, or nobody knows.
pub(crate) async fn send(
    log: &Log,
    db: &mut PgConnection,
    batch: &[Arc<Outgoing>],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    let outcomes = match batch {
        [message] => vec![send_one(db, message, locking).await?],
        _ => send_many(db, batch, locking).await?,
    };
    let is_sent = |outcome: &Outcome| matches!(outcome, Outcome::Sent { .. });
    let sent = batch.iter().zip(&outcomes).filter(|(_, outcome)| is_sent(outcome));
    log.announce(sent.map(|(message, _)| message.sender.workspace_id).collect());
    Ok(outcomes)
}

/// The short way of [`send_many`], with the same outcomes.
pub(crate) async fn send_one(
    db: &mut PgConnection,
    message: &Outgoing,
    locking: Locking,
) -> Result<Outcome> {
    // All of the answer is read before any of it is believed: it comes before the commit.
    let answer = sqlx::query!(
        r#"select outcome as "outcome!", message_id as "id: MessageId", seq as "seq: Seq",
                  coalesce(sent_at, clock_timestamp()) as "created_at!: Timestamp"
           from send_message($1, $2, $3, $4, $5, $6, $7, $8, $9)"#,
        message.sender.workspace_id as _,
        message.sender.id as _,
        message.sender.session_id as _,
        message.chat_id as _,
        message.content,
        message.idempotency_key,
        message.digest.as_ref(),
        Stamp::random() as _,
        locking == Locking::Wait
    )
    .fetch_all(db);
    let answer = durably(answer).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    let outcome = outcome(&answer.outcome, answer.id, answer.seq, answer.created_at);
    outcome.ok_or_else(unknown_outcome)
}

/// Sends any number of messages.
pub(crate) async fn send_many(
    db: &mut PgConnection,
    batch: &[Arc<Outgoing>],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    let workspaces: Vec<_> = batch.iter().map(|message| message.sender.workspace_id).collect();
    let senders: Vec<_> = batch.iter().map(|message| message.sender.id).collect();
    let sessions: Vec<_> = batch.iter().map(|message| message.sender.session_id).collect();
    let chats: Vec<_> = batch.iter().map(|message| message.chat_id).collect();
    let contents: Vec<_> = batch.iter().map(|message| message.content.as_str()).collect();
    let keys: Vec<_> = batch.iter().map(|message| message.idempotency_key).collect();
    let digests: Vec<_> = batch.iter().map(|message| message.digest.as_ref()).collect();
    let answer = sqlx::query!(
        r#"select outcomes as "outcomes!", message_ids as "ids!: Vec<Option<MessageId>>",
                  seqs as "seqs!: Vec<Option<Seq>>", sent_at as "created_at!: Timestamp"
           from send_messages($1, $2, $3, $4, $5, $6, $7, $8, $9)"#,
        &workspaces as _,
        &senders as _,
        &sessions as _,
        &chats as _,
        &contents as _,
        &keys as _,
        &digests as _,
        Stamp::random() as _,
        locking == Locking::Wait
    )
    .fetch_all(db);
    let answer = durably(answer).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    let places = answer.ids.into_iter().zip(answer.seqs);
    let outcomes = answer.outcomes.iter().zip(places);
    let outcomes = outcomes.map(|(name, (id, seq))| outcome(name, id, seq, answer.created_at));
    outcomes.collect::<Option<_>>().ok_or_else(unknown_outcome)
}

fn unknown_outcome() -> AppError {
    sqlx::Error::Protocol("an unknown outcome of sending".into()).into()
}

fn outcome(
    name: &str,
    id: Option<MessageId>,
    seq: Option<Seq>,
    created_at: Timestamp,
) -> Option<Outcome> {
    Some(match name {
        "sent" => Outcome::Sent { id: id?, seq: seq?, created_at },
        "replayed" => Outcome::Replayed(id?),
        "mismatch" => Outcome::Refused(Refusal::Mismatch),
        "session_ended" => Outcome::Refused(Refusal::SessionEnded),
        "suspended" => Outcome::Refused(Refusal::Suspended),
        "not_found" => Outcome::Refused(Refusal::NotFound),
        "archived" => Outcome::Refused(Refusal::Archived),
        "locked" => Outcome::Locked,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
