//! A batch: many small changes in one statement, which is also their one commit.

use std::sync::Arc;

use fechatter_core::commit::durably;
use fechatter_core::log::{Announcement, Cursor, Log, Stamp};
use fechatter_core::message::Mentions;
use fechatter_core::{ChatId, MessageId, Position, Seq, Timestamp, UserId, WorkspaceId};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::models::chat::preference::PreferenceChange;
use crate::models::file::Attached;
use crate::models::message::Outgoing;
use crate::models::message::change::{Action, Change};
use crate::models::session::actor::Actor;

/// A small write.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Changes a message.
    Change(Change),
    /// Sends a message.
    Send(Outgoing),
    /// Changes a person's preferences.
    Prefer(PreferenceChange),
}

/// Two commands with the same key conflict: a batch must not have both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    ExistingMessage(ChatId, MessageId),
    Reaction(ChatId, MessageId, String, UserId),
    NewMessage(ChatId, UserId, Uuid),
    Preferences(WorkspaceId, UserId, Option<ChatId>),
}

/// The result of one command of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent {
        id: MessageId,
        seq: Seq,
        created_at: Timestamp,
    },
    /// It was sent before, under the same idempotency key.
    Replayed(MessageId),
    /// The message or the preferences were changed. `count` is for reactions: the number of people who now react with the
    /// emoji.
    Changed {
        count: Option<i64>,
    },
    /// It was already as the change would make it.
    Unchanged {
        count: Option<i64>,
    },
    Refused(Refusal),
    /// Another writer held the lock of the workspace's log, so the command was not attempted.
    Locked,
}

/// The reason why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The idempotency key was used for another message.
    Mismatch,
    SessionEnded,
    WorkspaceSuspended,
    Suspended,
    NotFound,
    Forbidden,
    Archived,
    /// The message that it replies to is not in the chat, or is deleted.
    ReplyNotFound,
    /// One of its files does not exist, or is not the sender's to send.
    FileNotFound,
    TooManyReactions,
    PreferencesTooLarge,
}

/// The treatment of logs that another writer has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Skip the commands for these logs.
    Skip,
    /// Wait until these logs are unlocked.
    Wait,
}

impl From<Refusal> for AppError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Mismatch => Self::IdempotencyMismatch,
            Refusal::SessionEnded => Self::SessionEnded,
            Refusal::WorkspaceSuspended => Self::WorkspaceSuspended,
            Refusal::Suspended => Self::Suspended,
            Refusal::NotFound => Self::NotFound,
            Refusal::Forbidden => Self::Forbidden,
            Refusal::Archived => Self::Archived,
            Refusal::ReplyNotFound => Self::ReplyNotFound,
            Refusal::FileNotFound => Self::FileNotFound,
            Refusal::TooManyReactions => Self::TooManyReactions,
            Refusal::PreferencesTooLarge => Self::TooLarge("preferences have at most 8 KiB"),
        }
    }
}

impl Command {
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::Change(change) => change.actor,
            Self::Send(message) => message.actor,
            Self::Prefer(change) => change.actor,
        }
    }

    pub(crate) fn key(&self) -> Key {
        let user_id = self.actor().user_id();
        match self {
            Self::Change(Change { chat_id, message_id, action, .. }) => match action {
                Action::Edit(..) | Action::Delete => Key::ExistingMessage(*chat_id, *message_id),
                Action::AddReaction(emoji) | Action::RemoveReaction(emoji) => {
                    Key::Reaction(*chat_id, *message_id, emoji.clone(), user_id)
                }
            },
            Self::Send(message) => {
                Key::NewMessage(message.chat_id, user_id, message.idempotency_key)
            }
            Self::Prefer(change) => {
                Key::Preferences(change.actor.workspace_id(), user_id, change.chat_id)
            }
        }
    }

    /// Returns the size of its text and files in bytes, of files about. Columns of fixed size are not included.
    pub(crate) fn bytes(&self) -> usize {
        // A file has a hash, a name and a description.
        let files = self.attached().map_or(0, |attached| attached.files.len());
        self.text().len() + files * 1_024
    }

    /// Returns the message that it changes or replies to.
    pub(crate) fn target(&self) -> Option<MessageId> {
        match self {
            Self::Change(change) => Some(change.message_id),
            Self::Send(message) => message.reply_to_id,
            Self::Prefer(_) => None,
        }
    }

    /// Returns true if it deletes its target. A batch must not have such a command together with
    /// another one that has the same target.
    pub(crate) fn is_delete(&self) -> bool {
        matches!(self, Self::Change(Change { action: Action::Delete, .. }))
    }

    /// Returns its kind in SQL.
    fn kind(&self) -> &'static str {
        match self {
            Self::Change(change) => match change.action {
                Action::Edit(..) => "edit",
                Action::Delete => "delete",
                Action::AddReaction(_) => "add_reaction",
                Action::RemoveReaction(_) => "remove_reaction",
            },
            Self::Send(_) => "send",
            Self::Prefer(PreferenceChange { chat_id: Some(_), .. }) => "set_chat_preferences",
            Self::Prefer(PreferenceChange { chat_id: None, .. }) => "set_preferences",
        }
    }

    fn chat_id(&self) -> Option<ChatId> {
        match self {
            Self::Change(change) => Some(change.chat_id),
            Self::Send(message) => Some(message.chat_id),
            Self::Prefer(change) => change.chat_id,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Change(change) => change.action.text(),
            Self::Send(message) => &message.content,
            Self::Prefer(change) => &change.values,
        }
    }

    /// Returns its files.
    fn attached(&self) -> Option<&Attached> {
        match self {
            Self::Send(message) => Some(&message.attached),
            Self::Change(_) | Self::Prefer(_) => None,
        }
    }

    /// Returns the people whom its text mentions.
    fn mentions(&self) -> Option<&Mentions> {
        match self {
            Self::Change(Change { action: Action::Edit(_, mentions), .. }) => Some(mentions),
            Self::Change(_) | Self::Prefer(_) => None,
            Self::Send(message) => Some(&message.mentions),
        }
    }

    fn idempotency(&self) -> Option<(Uuid, &[u8])> {
        match self {
            Self::Change(_) | Self::Prefer(_) => None,
            Self::Send(message) => Some((message.idempotency_key, message.digest.as_ref())),
        }
    }

    /// Returns its place in the order of kinds in a batch.
    fn rank(&self) -> u8 {
        match self {
            Self::Change(change) => match change.action {
                Action::Edit(..) => 0,
                Action::Delete => 1,
                Action::AddReaction(_) => 2,
                Action::RemoveReaction(_) => 3,
            },
            Self::Send(_) => 4,
            Self::Prefer(_) => 5,
        }
    }

    fn outcome(
        &self,
        name: &str,
        (message, number): (Option<MessageId>, Option<i64>),
        at: Timestamp,
    ) -> Option<Outcome> {
        Some(match (name, self) {
            ("written", Self::Send(_)) => {
                Outcome::Sent { id: message?, seq: Seq(number?), created_at: at }
            }
            ("replayed", Self::Send(_)) => Outcome::Replayed(message?),
            ("reply_not_found", Self::Send(_)) => Outcome::Refused(Refusal::ReplyNotFound),
            ("file_not_found", Self::Send(_)) => Outcome::Refused(Refusal::FileNotFound),
            ("mismatch", Self::Send(_)) => Outcome::Refused(Refusal::Mismatch),
            ("too_large", Self::Prefer(_)) => Outcome::Refused(Refusal::PreferencesTooLarge),
            ("written", Self::Change(_) | Self::Prefer(_)) => Outcome::Changed { count: number },
            ("unchanged", Self::Change(_) | Self::Prefer(_)) => {
                Outcome::Unchanged { count: number }
            }
            ("forbidden", Self::Change(_)) => Outcome::Refused(Refusal::Forbidden),
            ("too_many_reactions", Self::Change(_)) => Outcome::Refused(Refusal::TooManyReactions),
            ("session_ended", _) => Outcome::Refused(Refusal::SessionEnded),
            ("workspace_suspended", _) => Outcome::Refused(Refusal::WorkspaceSuspended),
            ("suspended", _) => Outcome::Refused(Refusal::Suspended),
            ("not_found", _) => Outcome::Refused(Refusal::NotFound),
            ("archived", _) => Outcome::Refused(Refusal::Archived),
            ("locked", _) => Outcome::Locked,
            _ => return None,
        })
    }
}

/// Carries out a batch and commits it. The outcomes are in the order of the batch. Each [`Key`] may
/// occur only once.
///
/// The statement checks sessions, active people and memberships under the locks of the logs, so
/// that no message of a person comes after their removal.
///
/// # Errors
/// After an error, nothing was written, or it is unknown whether the batch was written. A command that
/// is refused or skipped is not an error.
pub(crate) async fn write(
    log: &Log,
    db: &mut PgConnection,
    batch: &[Arc<Command>],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    if let [command] = batch
        && let Command::Send(message) = &**command
        && message.is_plain()
    {
        let (outcome, announcement) = send_one(db, command, message, locking).await?;
        match announcement {
            Some(announcement) => log.announce_message(&announcement),
            None if matches!(outcome, Outcome::Sent { .. }) => {
                log.announce(vec![message.actor.workspace_id()]);
            }
            None => {}
        }
        return Ok(vec![outcome]);
    }
    let outcomes = write_many(db, batch, locking).await?;
    let makes_event =
        |outcome: &Outcome| matches!(outcome, Outcome::Sent { .. } | Outcome::Changed { .. });
    let written = batch.iter().zip(&outcomes).filter(|(_, outcome)| makes_event(outcome));
    log.announce(written.map(|(command, _)| command.actor().workspace_id()).collect());
    Ok(outcomes)
}

/// Writes one message by a shorter statement with the same outcomes. Also returns the announcement
/// for readers.
async fn send_one(
    db: &mut PgConnection,
    command: &Command,
    message: &Outgoing,
    locking: Locking,
) -> Result<(Outcome, Option<Announcement>)> {
    let (workspace_id, stamp) = (message.actor.workspace_id(), Stamp::random());
    // The row arrives before the statement commits. `fetch_all` waits for the end of the response, which
    // the database sends only after the commit.
    let answer = sqlx::query!(
        r#"select outcome as "outcome!", message_id as "id: MessageId", seq,
                  coalesce(sent_at, clock_timestamp()) as "created_at!: Timestamp",
                  log_position as "position: Position", stamp_before as "stamp_before: Stamp"
           from send_message($1, $2, $3, $4, $5, $6, $7, $8, $9)"#,
        workspace_id as _,
        message.actor.user_id() as _,
        message.actor.session_id() as _,
        message.chat_id as _,
        message.content,
        message.idempotency_key,
        message.digest.as_ref(),
        stamp as _,
        locking == Locking::Wait
    )
    .fetch_all(db);
    let answer = durably(answer).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    let numbers = (answer.id, answer.seq);
    let outcome = command.outcome(&answer.outcome, numbers, answer.created_at);
    let outcome = outcome.ok_or_else(unrecognized_outcome)?;
    let Outcome::Sent { id, seq, created_at } = outcome else { return Ok((outcome, None)) };
    let Some((stamp_before, position)) = answer.stamp_before.zip(answer.position) else {
        return Ok((outcome, None));
    };
    let before = Cursor { stamp: stamp_before, position: Position(position.0 - 1) };
    let message = message.clone().into_message(id, seq, created_at);
    let announcement =
        Announcement::new(workspace_id, [before, Cursor { stamp, position }], message);
    Ok((outcome, announcement.ok()))
}

/// Carries out any number of commands.
async fn write_many(
    db: &mut PgConnection,
    batch: &[Arc<Command>],
    locking: Locking,
) -> Result<Vec<Outcome>> {
    let mut ranked: Vec<_> = batch.iter().enumerate().collect();
    ranked.sort_by_key(|(_, command)| command.rank());
    let (places, commands): (Vec<_>, Vec<_>) = ranked.into_iter().unzip();
    let kinds: Vec<_> = commands.iter().map(|command| command.kind()).collect();
    let actors: Vec<_> = commands.iter().map(|command| command.actor()).collect();
    let workspaces: Vec<_> = actors.iter().map(Actor::workspace_id).collect();
    let people: Vec<_> = actors.iter().map(Actor::user_id).collect();
    let sessions: Vec<_> = actors.iter().map(Actor::session_id).collect();
    let chats: Vec<_> = commands.iter().map(|command| command.chat_id()).collect();
    let targets: Vec<_> = commands.iter().map(|command| command.target()).collect();
    let texts: Vec<_> = commands.iter().map(|command| command.text()).collect();
    let (keys, digests): (Vec<_>, Vec<_>) =
        commands.iter().map(|command| command.idempotency().unzip()).unzip();
    let (mention_items, mentioned) = mentions(&commands);
    let (file_items, files) = files(&commands);
    let missing_items: Vec<i32> = (1..)
        .zip(&commands)
        .filter(|(_, command)| command.attached().is_some_and(|attached| attached.is_missing))
        .map(|(item, _)| item)
        .collect();
    let answer = sqlx::query!(
        r#"select outcomes as "outcomes!", message_ids as "ids!: Vec<Option<MessageId>>",
                  coalesce(numbers, '{}') as "numbers!: Vec<Option<i64>>",
                  written_at as "at!: Timestamp"
           from write_batch(
                   $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"#,
        &kinds as _,
        &workspaces as _,
        &people as _,
        &sessions as _,
        &chats as _,
        &targets as _,
        &texts as _,
        &keys as _,
        &digests as _,
        &mention_items,
        &mentioned as _,
        &file_items,
        &files as _,
        &missing_items,
        Stamp::random() as _,
        locking == Locking::Wait
    )
    .fetch_all(db);
    let answer = durably(answer).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    let numbers = answer.numbers.into_iter().chain(std::iter::repeat(None));
    let columns = answer.outcomes.iter().zip(answer.ids.into_iter().zip(numbers));
    let outcomes = places.into_iter().zip(commands).zip(columns);
    let mut outcomes = outcomes
        .map(|((place, command), (name, numbers))| {
            let outcome = command.outcome(name, numbers, answer.at);
            outcome.map(|outcome| (place, outcome)).ok_or_else(unrecognized_outcome)
        })
        .collect::<Result<Vec<_>>>()?;
    outcomes.sort_unstable_by_key(|(place, _)| *place);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Returns the people whom the texts of commands mention, `None` for everybody, and before them the
/// places of their commands, counted from 1.
fn mentions(commands: &[&Arc<Command>]) -> (Vec<i32>, Vec<Option<UserId>>) {
    let all = (1..).zip(commands).filter_map(|(item, command)| Some((item, command.mentions()?)));
    let all = all.flat_map(|(item, mentions)| {
        let everybody = mentions.all.then_some(None);
        let people = mentions.user_ids.iter().copied().map(Some);
        people.chain(everybody).map(move |person| (item, person))
    });
    all.unzip()
}

/// Returns the files of commands, and before them the places of their commands, counted from 1.
fn files<'a>(commands: &[&'a Arc<Command>]) -> (Vec<i32>, Vec<Json<&'a Value>>) {
    let all = (1..).zip(commands).filter_map(|(item, command)| Some((item, command.attached()?)));
    all.flat_map(|(item, attached)| attached.files.iter().map(move |file| (item, Json(file))))
        .unzip()
}

fn unrecognized_outcome() -> AppError {
    sqlx::Error::Protocol("an unrecognized outcome of a command".into()).into()
}

#[cfg(test)]
mod tests;
