//! Reading: what stands in the log, in order, for everyone or for one person.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Cursor, Stamp};
use crate::message::{Mentions, Message, MessageKind};
use crate::{ChatId, MessageId, Position, Seq, Timestamp, UserId, WorkspaceId};

/// Positions of one log, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Range {
    pub workspace_id: WorkspaceId,
    pub from: Position,
    pub to: Position,
}

/// The newest event of a log.
pub type Head = Cursor;

/// One event as it stands in the log.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Entry {
    pub workspace_id: WorkspaceId,
    pub cursor: Cursor,
    pub kind: String,
    pub chat_id: Option<ChatId>,
    pub user_id: Option<UserId>,
    /// The people whose membership a `NewChat` began.
    pub joined: Vec<UserId>,
    /// The frame's `data`; none when the event's message is gone.
    pub data: Option<Bytes>,
}

/// The newest event of a workspace's log; every log has one from its workspace's creation on.
///
/// # Errors
/// When the database fails or there is no such log.
pub async fn head(db: impl PgExecutor<'_>, workspace_id: WorkspaceId) -> sqlx::Result<Head> {
    let row = sqlx::query!(
        r#"select position as "position: Position", stamp as "stamp: Stamp"
           from events
           where workspace_id = $1
           order by position desc
           limit 1"#,
        workspace_id as _
    )
    .fetch_one(db)
    .await?;
    Ok(Cursor { stamp: row.stamp, position: row.position })
}

/// Reads up to `limit` events of each range, in order of position.
///
/// With a `reader`, only what that person was to receive: by their membership at each event's
/// position, which is a look-up in `chat_members`.
///
/// # Errors
/// When the database fails or an event cannot be written as JSON.
pub async fn read(
    db: impl PgExecutor<'_>,
    ranges: &[Range],
    reader: Option<UserId>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let workspaces: Vec<_> = ranges.iter().map(|range| range.workspace_id).collect();
    let from: Vec<_> = ranges.iter().map(|range| range.from).collect();
    let to: Vec<_> = ranges.iter().map(|range| range.to).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"select e.workspace_id as "workspace_id!", e.position as "position!",
                  e.stamp as "stamp!", e.kind as "kind!", e.chat_id, e.user_id, e.message_id,
                  e.payload as "payload: Json<Box<RawValue>>", e.joined as "joined: Vec<UserId>",
                  e.seq, e.sender_id, e.message_kind, e.content, e.idempotency_key,
                  e.created_at, e.edited_at, e.deleted_at
           from unnest($1::bigint[], $2::bigint[], $3::bigint[])
               as range (workspace_id, first, last)
           cross join lateral (
               select *
               from log_entries as e
               where e.workspace_id = range.workspace_id
                 and e.position between range.first and range.last
                 and ($4::bigint is null
                      or (e.chat_id is null and e.user_id is null)
                      or e.user_id = $4
                      or exists (
                          select 1 from chat_members as m
                          where m.chat_id = e.chat_id
                            and m.user_id = $4
                            and m.joined_position <= e.position
                            and (m.left_position is null or m.left_position >= e.position)))
               order by e.position
               limit $5
           ) as e
           order by e.workspace_id, e.position"#,
        &workspaces as _,
        &from as _,
        &to as _,
        reader as _,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Row::into_entry).collect()
}

struct Row {
    workspace_id: WorkspaceId,
    position: Position,
    stamp: Stamp,
    kind: String,
    chat_id: Option<ChatId>,
    user_id: Option<UserId>,
    message_id: Option<MessageId>,
    payload: Option<Json<Box<RawValue>>>,
    joined: Option<Vec<UserId>>,
    seq: Option<Seq>,
    sender_id: Option<UserId>,
    message_kind: Option<MessageKind>,
    content: Option<String>,
    idempotency_key: Option<Uuid>,
    created_at: Option<Timestamp>,
    edited_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
}

/// An event about a message, of whatever kind, as clients receive it.
#[derive(Serialize)]
struct MessageEvent<'a> {
    event: &'a str,
    #[serde(flatten)]
    message: Message,
}

impl Row {
    fn into_entry(mut self) -> sqlx::Result<Entry> {
        let data = match self.payload.take() {
            Some(Json(payload)) => Some(Bytes::from(String::from(Box::<str>::from(payload)))),
            None => match self.message() {
                Some(message) => Some(
                    serde_json::to_vec(&MessageEvent { event: &self.kind, message })
                        .map_err(|error| sqlx::Error::Decode(error.into()))?
                        .into(),
                ),
                None => None,
            },
        };
        Ok(Entry {
            workspace_id: self.workspace_id,
            cursor: Cursor { stamp: self.stamp, position: self.position },
            kind: self.kind,
            chat_id: self.chat_id,
            user_id: self.user_id,
            joined: self.joined.unwrap_or_default(),
            data,
        })
    }

    fn message(&mut self) -> Option<Message> {
        Some(Message {
            id: self.message_id?,
            chat_id: self.chat_id?,
            sender_id: self.sender_id?,
            content: self.content.take()?,
            files: Vec::new(),
            created_at: self.created_at?,
            idempotency_key: self.idempotency_key?,
            seq: self.seq?,
            kind: self.message_kind?,
            reply_to_id: None,
            mentions: Mentions::default(),
            reactions: Vec::new(),
            attachments: Vec::new(),
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
        })
    }
}
