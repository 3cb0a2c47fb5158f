//! Messages: what is sent, and how it is read again.

use aws_lc_rs::digest::{SHA256, digest};
use fechatter_core::event::Event;
use fechatter_core::log::{Audience, Log, LogWriter};
use fechatter_core::message::{Mentions, Message, MessageKind};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::token::AuthUser;
use fechatter_core::user::UserStatus;
use fechatter_core::{ChatId, MessageId, Seq, Timestamp, UserId};
use serde::Deserialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::utils::text::Content;

/// What somebody wants to say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageDraft {
    #[schema(value_type = String)]
    content: Content,
    /// Nothing but an empty list so far.
    files: Option<Vec<String>>,
    idempotency_key: Option<Uuid>,
    /// Nothing but null so far.
    reply_to_id: Option<MessageId>,
}

/// A message on its way: who says what where.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    sender: AuthUser,
    chat_id: ChatId,
    content: String,
    idempotency_key: Uuid,
}

/// What sending came to.
#[derive(Debug)]
pub(crate) enum Sent {
    New(Message),
    /// It was sent before under this key; this is the message as it is now.
    Replayed(Message),
}

impl Outgoing {
    /// Who sends it.
    pub(crate) fn sender(&self) -> AuthUser {
        self.sender
    }
}

impl MessageDraft {
    /// The message that this draft makes, said by somebody in a chat. Without a key of the
    /// client's it gets one of ours.
    pub(crate) fn into_outgoing(self, sender: AuthUser, chat_id: ChatId) -> Result<Outgoing> {
        if self.files.is_some_and(|files| !files.is_empty()) {
            return Err(AppError::invalid("files", "must be empty"));
        }
        if self.reply_to_id.is_some() {
            return Err(AppError::invalid("reply_to_id", "must be absent"));
        }
        Ok(Outgoing {
            sender,
            chat_id,
            content: self.content.into_message()?,
            idempotency_key: self.idempotency_key.unwrap_or_else(Uuid::now_v7),
        })
    }
}

/// Sends one message in a transaction of its own. Whether the session lives, the person is active
/// and a member, is asked under the log's lock: nobody removed has a later message.
pub(crate) async fn send(log: &Log, outgoing: &Outgoing) -> Result<Sent> {
    let Outgoing { sender, chat_id, content, idempotency_key } = outgoing;
    let digest = digest(&SHA256, content.as_bytes());
    let (mut writer, place) = lock_and_check(log, outgoing).await?;
    if let Some((id, earlier)) = place.earlier {
        if earlier != digest.as_ref() {
            return Err(AppError::IdempotencyMismatch);
        }
        let message = find(writer.db(), *chat_id, id).await?;
        // The commit of the first time may have been cut off in its wait for a synchronous standby:
        // this one waits too.
        writer.commit().await?;
        return Ok(Sent::Replayed(message));
    }
    // Whoever speaks has read what was said before.
    let written = sqlx::query!(
        "with mark as (
             update chat_members set last_read_seq = $3
             where chat_id = $2 and user_id = $4 and left_position is null
         )
         insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning id, created_at",
        sender.workspace_id as _,
        chat_id as _,
        place.seq as _,
        sender.id as _,
        content,
        idempotency_key,
        digest.as_ref()
    )
    .fetch_one(writer.db())
    .await?;
    let row = Row {
        id: written.id,
        chat_id: *chat_id,
        sender_id: sender.id,
        content: content.clone(),
        created_at: written.created_at,
        idempotency_key: *idempotency_key,
        seq: place.seq,
        kind: MessageKind::User,
        edited_at: None,
        deleted_at: None,
    };
    let message = Message::from(row);
    let event = Event::NewMessage(message.clone());
    writer.append(sender.workspace_id, Audience::Chat(*chat_id), &event)?;
    writer.commit().await?;
    Ok(Sent::New(message))
}

/// Where a message goes, or what was sent under its key before.
struct Place {
    seq: Seq,
    earlier: Option<(MessageId, Vec<u8>)>,
}

/// The lock first, and then the check, in a statement of its own: it sees whatever was committed
/// while the lock was waited for.
async fn lock_and_check(log: &Log, outgoing: &Outgoing) -> Result<(LogWriter, Place)> {
    let workspace_id = outgoing.sender.workspace_id;
    if sabotage::is(Sabotage::LockWithCheck) {
        let mut writer = LogWriter::begin(log).await?;
        check_while_locking(writer.db(), outgoing).await?;
        writer.add_locks(&[workspace_id]).await?;
        let seq = next_seq(writer.db(), outgoing.chat_id).await?;
        return Ok((writer, Place { seq, earlier: None }));
    }
    let mut writer = LogWriter::lock(log, &[workspace_id]).await?;
    let place = check(writer.db(), outgoing).await?;
    Ok((writer, place))
}

/// What [`Sabotage::LockWithCheck`] does: the statement sees the memberships from before its wait.
async fn check_while_locking(db: &mut PgConnection, outgoing: &Outgoing) -> Result<()> {
    let member = sqlx::query_scalar!(
        r#"select true as "member!"
           from workspace_logs as l
           join chat_members as m on m.workspace_id = l.workspace_id
           where l.workspace_id = $1
             and m.chat_id = $2
             and m.user_id = $3
             and m.left_position is null
           for no key update of l"#,
        outgoing.sender.workspace_id as _,
        outgoing.chat_id as _,
        outgoing.sender.id as _
    )
    .fetch_optional(db)
    .await?;
    member.map(|_| ()).ok_or(AppError::NotFound)
}

async fn next_seq(db: &mut PgConnection, chat_id: ChatId) -> Result<Seq> {
    let seq = sqlx::query_scalar!(
        r#"select coalesce(max(seq), 0) + 1 as "seq!: Seq" from messages where chat_id = $1"#,
        chat_id as _
    )
    .fetch_one(db)
    .await?;
    Ok(seq)
}

async fn check(db: &mut PgConnection, outgoing: &Outgoing) -> Result<Place> {
    let found = sqlx::query!(
        r#"select w.status as "status: UserStatus",
                  exists (
                      select 1 from sessions as s
                      where s.id = $4
                        and s.user_id = $2
                        and s.revoked_at is null
                        and s.expires_at > clock_timestamp()
                  ) as "session_lives!",
                  c.id as "chat_id?: ChatId", c.archived_at as "archived_at?: Timestamp",
                  coalesce((select max(seq) from messages where chat_id = c.id), 0) + 1
                      as "seq!: Seq",
                  earlier.id as "earlier_id?: MessageId", earlier.digest as "digest?"
           from workspace_members as w
           left join chat_members as m
               on m.chat_id = $3 and m.user_id = w.user_id and m.left_position is null
           left join chats as c
               on c.id = m.chat_id and c.workspace_id = w.workspace_id and c.deleted_at is null
           left join messages as earlier
               on earlier.chat_id = c.id
               and earlier.sender_id = w.user_id
               and earlier.idempotency_key = $5
           where w.workspace_id = $1
             and w.user_id = $2
             and w.left_at is null"#,
        outgoing.sender.workspace_id as _,
        outgoing.sender.id as _,
        outgoing.chat_id as _,
        outgoing.sender.session_id as _,
        outgoing.idempotency_key
    )
    .fetch_optional(db)
    .await?
    .ok_or(AppError::SessionEnded)?;
    if !found.session_lives {
        Err(AppError::SessionEnded)
    } else if found.status == UserStatus::Suspended {
        Err(AppError::Suspended)
    } else if found.chat_id.is_none() {
        Err(AppError::NotFound)
    } else if found.archived_at.is_some() && found.earlier_id.is_none() {
        Err(AppError::Archived)
    } else {
        Ok(Place { seq: found.seq, earlier: found.earlier_id.zip(found.digest) })
    }
}

pub(crate) async fn find(
    db: impl PgExecutor<'_>,
    chat_id: ChatId,
    id: MessageId,
) -> Result<Message> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, chat_id, sender_id, content, created_at, idempotency_key, seq, kind, edited_at,
                  deleted_at
           from messages
           where chat_id = $1 and id = $2"#,
        chat_id as _,
        id as _
    )
    .fetch_optional(db)
    .await?;
    row.map(Message::from).ok_or(AppError::NotFound)
}

/// A message as it is stored.
pub(super) struct Row {
    pub(super) id: MessageId,
    pub(super) chat_id: ChatId,
    pub(super) sender_id: UserId,
    pub(super) content: String,
    pub(super) created_at: Timestamp,
    pub(super) idempotency_key: Uuid,
    pub(super) seq: Seq,
    pub(super) kind: MessageKind,
    pub(super) edited_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
}

impl From<Row> for Message {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            chat_id: row.chat_id,
            sender_id: row.sender_id,
            content: row.content,
            files: Vec::new(),
            created_at: row.created_at,
            idempotency_key: row.idempotency_key,
            seq: row.seq,
            kind: row.kind,
            reply_to_id: None,
            mentions: Mentions::default(),
            reactions: Vec::new(),
            attachments: Vec::new(),
            edited_at: row.edited_at,
            deleted_at: row.deleted_at,
        }
    }
}
