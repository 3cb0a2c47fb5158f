//! Reads the events of the log in order: either all events, or only those whose audience includes
//! one person.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgExecutor;
use sqlx::types::Json;

use super::cursor::{Cursor, Stamp};
use crate::event::{self, Effect};
use crate::message::{Message, MessageObject};
use crate::user::User;
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
    /// The chat whose members are the audience. If this and `user_id` are `None`, the audience is
    /// the whole workspace.
    pub chat_id: Option<ChatId>,
    /// A person who belongs to the audience, in addition to the members of the chat.
    pub user_id: Option<UserId>,
    /// The message that the event is about.
    pub message_id: Option<MessageId>,
    /// The people who join the chat.
    pub joined: Vec<UserId>,
    /// The `data` of the event's frame. `None` if the event is not delivered any more:
    ///
    /// - The event shows a message, and the message has no row or its chat is deleted.
    /// - The event has its own payload about a message (for example a reaction), and the message is
    ///   deleted, has no row, or its chat is deleted. This does not apply to the event that deletes
    ///   the message.
    ///
    /// A deleted message still has a row, with `deleted_at` and without its text.
    pub data: Option<Bytes>,
    /// True if the data is the event's message in its present state.
    pub shows_message: bool,
    /// The person, if the data is a person in their present state.
    pub shows_person: Option<UserId>,
    /// The object that the event changes, in its present state, as JSON: a message that is changed or
    /// deleted (unless it has no row or its chat is deleted), or a person.
    pub changed: Option<Bytes>,
    /// If the event's message is a reply: the message that it replies to, a [`Parent`] as JSON.
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
pub enum CursorLookup {
    /// The log contains the event of the cursor.
    Present,
    /// The event was pruned: the log begins at a later position.
    Pruned,
    /// The log has a different event at this position, or ends before it: the cursor is from
    /// another workspace, or its event was lost in a failover or a restore.
    Mismatch,
}

/// Looks up an event in its log, and the event at a later position, if there is one.
///
/// Call this after reading the events between `cursor` and `later`. If both events still exist, the
/// read was complete: retention deletes events only from the beginning of a log, and if two
/// histories of a log (before and after a failover or a restore) have the same event, they also
/// have the same events before it.
///
/// # Errors
/// When the database fails or there is no such log.
pub async fn look_up_cursor(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    cursor: Cursor,
    later: Position,
) -> sqlx::Result<(CursorLookup, Option<Cursor>)> {
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
    let lookup = match row.stamp {
        Some(stamp) if stamp == cursor.stamp => CursorLookup::Present,
        None if row.floor.is_some_and(|floor| cursor.position < floor) => CursorLookup::Pruned,
        _ => CursorLookup::Mismatch,
    };
    Ok((lookup, row.later.map(|stamp| Cursor { stamp, position: later })))
}

/// Counts the events of a range whose audience includes this person, up to `limit`.
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
/// With a `reader`, returns only the events whose audience includes this person, according to their
/// memberships at each event's position. This needs a look-up in `chat_members`.
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
                  e.message as "message: MessageObject", e.parent as "parent: Json<Box<RawValue>>",
                  e.person as "person: User"
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
    /// The person that the effect applies to. The audience is `chat_id` and `user_id`.
    person_id: Option<UserId>,
    session_ids: Option<Vec<SessionId>>,
    chat_id: Option<ChatId>,
    user_id: Option<UserId>,
    message_id: Option<MessageId>,
    payload: Option<Json<Box<RawValue>>>,
    joined: Option<Vec<UserId>>,
    message: Option<MessageObject>,
    parent: Option<Json<Box<RawValue>>>,
    person: Option<User>,
}

/// The JSON that clients receive for an event that contains a message (`NewMessage`,
/// `MessageUpdated`).
#[derive(Serialize)]
pub(super) struct MessageEvent<'a> {
    pub(super) event: &'a str,
    #[serde(flatten)]
    pub(super) message: Message,
    /// If the event is `NewMessage` and the message is a reply: the message that it replies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<&'a RawValue>,
}

/// The JSON that clients receive for an event that shows a person.
#[derive(Serialize)]
struct PersonEvent<'a> {
    event: &'a str,
    #[serde(flatten)]
    person: &'a User,
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
        let person = self.person.take();
        let changed = match (&message, &person) {
            (Some(message), _) if is_changed => Some(json(message)?),
            (_, Some(person)) => Some(json(person)?),
            _ => None,
        };
        let shows_message = self.payload.is_none() && person.is_none();
        // An event about a deleted message is not delivered, except the event that deletes it.
        let may_include_payload = self.message_id.is_none()
            || effect == Some(Effect::RemovesMessage)
            || message.as_ref().is_some_and(|message| message.deleted_at.is_none());
        let data = match self.payload.take() {
            Some(_) if !may_include_payload => None,
            Some(Json(payload)) => Some(Bytes::from(String::from(Box::<str>::from(payload)))),
            None if let Some(person) = &person => {
                Some(json(&PersonEvent { event: &self.kind, person })?)
            }
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
            shows_person: person.map(|person| person.id),
            changed,
            parent,
        })
    }
}
