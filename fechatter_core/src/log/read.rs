//! Reads the events of the log in order, for all readers or for one person.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use sqlx::types::Json;

use super::cursor::{Cursor, Stamp};
use crate::event::{self, Effect};
use crate::message::{Message, MessageObject};
use crate::{ChatId, MessageId, Position, SessionId, UserId, WorkspaceId};

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

/// One event as it is stored in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Entry {
    pub workspace_id: WorkspaceId,
    pub cursor: Cursor,
    pub kind: String,
    /// `None` if a newer version has written an effect that this version does not know.
    pub effect: Option<Effect>,
    pub chat_id: Option<ChatId>,
    pub user_id: Option<UserId>,
    pub message_id: Option<MessageId>,
    /// The people who join the chat.
    pub joined: Vec<UserId>,
    /// The frame's `data`; `None` if the event's message is gone.
    pub data: Option<Bytes>,
    /// True if the data is the event's message in its present state.
    pub shows_message: bool,
    /// The message in its present state, as JSON, if the event changes or removes the message and
    /// the message still exists.
    pub message: Option<Bytes>,
    /// Of an event whose message is a reply, the message that it answers: a [`Parent`] as JSON.
    ///
    /// [`Parent`]: crate::message::Parent
    pub parent: Option<Bytes>,
}

/// Returns the newest event of a workspace's log. Every log has at least one event, because the
/// creation of a workspace writes one.
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

/// The result of looking up a cursor in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The log contains the event of the cursor.
    It,
    /// The event was pruned: the log begins at a later position.
    Pruned,
    /// The log has another event at this position, or has not reached it: the cursor is from
    /// another log.
    Other,
}

/// Looks up an event in its log, and the event at a later position, if there is one.
///
/// A reader that calls this after reading the events in between knows that it has read all of them,
/// and from the right log: logs lose events at their beginning only, and two logs that have one
/// event in common have all earlier ones in common.
///
/// # Errors
/// When the database fails or there is no such log.
pub async fn look_again(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    cursor: Cursor,
    later: Position,
) -> sqlx::Result<(Found, Option<Cursor>)> {
    let row = sqlx::query!(
        r#"select (
                      select stamp from events where workspace_id = $1 and position = $2
                  ) as "stamp: Stamp",
                  (
                      select stamp from events where workspace_id = $1 and position = $3
                  ) as "later: Stamp",
                  case when not exists (
                      select 1 from events where workspace_id = $1 and position = $2
                  ) then (
                      select min(position) from events where workspace_id = $1
                  ) end as "floor: Position""#,
        workspace_id as _,
        cursor.position as _,
        later as _
    )
    .fetch_one(db)
    .await?;
    let found = match row.stamp {
        Some(stamp) if stamp == cursor.stamp => Found::It,
        None if row.floor.is_some_and(|floor| cursor.position < floor) => Found::Pruned,
        _ => Found::Other,
    };
    Ok((found, row.later.map(|stamp| Cursor { stamp, position: later })))
}

/// Counts the events of a range that a person was to receive, up to `limit`.
///
/// # Errors
/// When the database fails.
pub async fn count_for(
    db: impl PgExecutor<'_>,
    range: Range,
    reader: UserId,
    limit: i64,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        // Most events of a long log belong to chats that the reader has never been in. This
        // condition skips them without a look-up for each event.
        r#"select count(*) as "count!"
           from (
               select 1
               from events_for($1, $2, $3, $4) as e
               where e.chat_id is null
                  or e.user_id = $4
                  or e.chat_id in (
                      select chat_id from chat_members
                      where workspace_id = $1 and user_id = $4 and left_position is null
                      union all
                      select chat_id from chat_members
                      where workspace_id = $1 and user_id = $4 and left_position >= $2
                  )
               limit $5
           ) as theirs"#,
        range.workspace_id as _,
        range.from as _,
        range.to as _,
        reader as _,
        limit
    )
    .fetch_one(db)
    .await
}

/// Settings for a connection that [reads](read) repeatedly, because planning the query can take
/// longer than running it. The one generic plan suits all ranges, even if it was made while the
/// tables were empty. Left alone, PostgreSQL plans each read anew: it expects more ranges than there
/// are, and so thinks that the generic plan is expensive.
pub const PLAN_ONCE: [(&str, &str); 2] =
    [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];

/// Reads up to `limit` events of each range, in order of position.
///
/// With a `reader`, returns only the events that this person was to receive, according to their
/// membership at each event's position. This needs a look-up in `chat_members`.
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
        r#"select e.workspace_id as "workspace_id!: WorkspaceId",
                  e.position as "position!: Position", e.stamp as "stamp!: Stamp",
                  e.kind as "kind!", e.effect as "effect!", e.person_id as "person_id: UserId",
                  e.session_ids as "session_ids: Vec<SessionId>", e.chat_id as "chat_id: ChatId", e.user_id as "user_id: UserId",
                  e.message_id as "message_id: MessageId",
                  e.payload as "payload: Json<Box<RawValue>>", e.joined as "joined: Vec<UserId>",
                  e.message as "message: MessageObject", e.parent as "parent: Json<Box<RawValue>>"
           from unnest($1::bigint[], $2::bigint[], $3::bigint[])
               as range (workspace_id, first, last)
           cross join lateral (
               select *
               from log_entries_for(range.workspace_id, range.first, range.last, $4) as e
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
    effect: String,
    person_id: Option<UserId>,
    session_ids: Option<Vec<SessionId>>,
    chat_id: Option<ChatId>,
    user_id: Option<UserId>,
    message_id: Option<MessageId>,
    payload: Option<Json<Box<RawValue>>>,
    joined: Option<Vec<UserId>>,
    message: Option<MessageObject>,
    parent: Option<Json<Box<RawValue>>>,
}

/// An event that shows a message, of any kind, as clients receive it.
#[derive(Serialize)]
pub(super) struct MessageEvent<'a> {
    pub(super) event: &'a str,
    #[serde(flatten)]
    pub(super) message: Message,
    /// Of the new message that is a reply: the message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<&'a RawValue>,
}

fn json(value: &impl Serialize) -> sqlx::Result<Bytes> {
    let text = serde_json::to_vec(value).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(text.into())
}

impl Row {
    fn into_entry(mut self) -> sqlx::Result<Entry> {
        let effect = Effect::of_columns(&self.effect, self.person_id, self.session_ids.take());
        let message = self.message.take().map(Message::from);
        let is_changed = matches!(effect, Some(Effect::ChangesMessage | Effect::RemovesMessage));
        let changed = message.as_ref().filter(|_| is_changed).map(json).transpose()?;
        let shows_message = self.payload.is_none();
        // If a message is gone, only the event that removes it keeps its data.
        let is_told = self.message_id.is_none()
            || effect == Some(Effect::RemovesMessage)
            || message.as_ref().is_some_and(|message| message.deleted_at.is_none());
        let data = match self.payload.take() {
            Some(_) if !is_told => None,
            Some(Json(payload)) => Some(Bytes::from(String::from(Box::<str>::from(payload)))),
            None => {
                let is_new = self.kind == event::NEW_MESSAGE;
                let parent = self.parent.as_ref().filter(|_| is_new).map(|Json(parent)| &**parent);
                message
                    .map(|message| json(&MessageEvent { event: &self.kind, message, parent }))
                    .transpose()?
            }
        };
        let parent =
            self.parent.map(|Json(parent)| Bytes::from(String::from(Box::<str>::from(parent))));
        Ok(Entry {
            workspace_id: self.workspace_id,
            cursor: Cursor { stamp: self.stamp, position: self.position },
            kind: self.kind,
            effect,
            chat_id: self.chat_id,
            user_id: self.user_id,
            message_id: self.message_id,
            joined: self.joined.unwrap_or_default(),
            data,
            shows_message,
            message: changed,
            parent,
        })
    }
}
