//! A workspace as the database has it when everything is over.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use fechatter_core::{
    ChatId, MessageId, Position, Seq, SessionId, UserId, WorkspaceId,
    event::Effect,
    log::{self, Cursor, Range},
    message::Message,
};
use serde_json::Value;
use sqlx::{PgPool, Row, query, query_scalar};
use uuid::Uuid;

use crate::history::digest;

/// How many events are read at once.
const AT_ONCE: i64 = 2_000;

/// The log, who was in which chat when, the messages, and what people did with them.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Log {
    /// In order of position.
    pub entries: Vec<Entry>,
    pub members: HashMap<ChatId, Vec<Period>>,
    /// In order of chat and seq.
    pub messages: Vec<Stored>,
    /// To messages that are not deleted.
    pub reactions: HashSet<(MessageId, UserId, String)>,
    /// Of all who are in a chat.
    pub marks: HashMap<(ChatId, UserId), Mark>,
    pub archived: HashSet<ChatId>,
}

/// One event.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Entry {
    pub cursor: Cursor,
    pub kind: String,
    pub chat: Option<ChatId>,
    pub user: Option<UserId>,
    /// Of what streams are given. None if they are given nothing any more, because the message is deleted.
    pub digest: Option<u64>,
    /// The message that was sent.
    pub message: Option<MessageId>,
    /// The change of a message that was sent before, or the reaction to one.
    pub change: Option<MessageChange>,
    /// The message that the event shows in its present state.
    pub shows: Option<MessageId>,
    /// True if the chat is archived from here on, false if it is not; none for other events.
    pub archives: Option<bool>,
    pub ends: Vec<Ends>,
}

/// A change of a message that was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageChange {
    /// It has another text.
    Edited(MessageId),
    /// It is gone.
    Deleted(MessageId),
    /// A person's reaction was added or removed; the person is unknown if the message was deleted later.
    Reaction(Option<UserId>),
}

/// Whose streams and calls an event ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ends {
    /// A session's.
    Session(SessionId),
    /// A person's who was suspended, or is no longer in the workspace.
    Person(UserId),
}

/// A membership, both ends inclusive.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Period {
    pub user: UserId,
    pub joined: Position,
    pub left: Option<Position>,
}

/// How far somebody has read in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// As they marked it; none if they never did.
    pub marked: Option<Seq>,
    /// With what they wrote themselves after that.
    pub reached: Seq,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stored {
    pub id: MessageId,
    pub chat: ChatId,
    pub seq: Seq,
    pub sender: UserId,
    pub key: Uuid,
    pub content: String,
    pub is_deleted: bool,
    /// Written by a server about a change of the chat, and sent by nobody.
    pub is_system: bool,
}

impl Log {
    /// Reads all of a workspace.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read(db: &PgPool, workspace: WorkspaceId) -> Result<Self> {
        Ok(Self {
            entries: entries(db, workspace).await?,
            members: members(db, workspace).await?,
            messages: messages(db, workspace).await?,
            reactions: reactions(db, workspace).await?,
            marks: marks(db, workspace).await?,
            archived: archived(db, workspace).await?,
        })
    }

    /// The event at a position.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<&Entry> {
        let index = self.entries.partition_point(|entry| entry.cursor.position < position);
        self.entries.get(index).filter(|entry| entry.cursor.position == position)
    }

    /// Whether somebody is in a chat at a position.
    #[must_use]
    pub fn is_member(&self, user: UserId, chat: ChatId, at: Position) -> bool {
        self.members.get(&chat).is_some_and(|periods| {
            periods.iter().any(|period| {
                period.user == user
                    && period.joined <= at
                    && period.left.is_none_or(|left| at <= left)
            })
        })
    }

    /// Whether an event is for somebody.
    #[must_use]
    pub fn is_for(&self, entry: &Entry, user: UserId) -> bool {
        match (entry.chat, entry.user) {
            (None, None) => true,
            (_, Some(own)) if own == user => true,
            (Some(chat), _) => self.is_member(user, chat, entry.cursor.position),
            (None, Some(_)) => false,
        }
    }

    /// Where the first event stands that ends somebody's session, or all they do.
    #[must_use]
    pub fn end_of(&self, user: UserId, session: SessionId) -> Option<Position> {
        let theirs = [Ends::Person(user), Ends::Session(session)];
        let ends = |entry: &&Entry| entry.ends.iter().any(|ends| theirs.contains(ends));
        let end = self.entries.iter().find(ends);
        end.map(|entry| entry.cursor.position)
    }
}

impl Stored {
    /// True if an acknowledgement names this message, also if its text has changed since.
    pub(crate) fn is(&self, message: &Message) -> bool {
        self.id == message.id
            && self.chat == message.chat_id
            && self.seq == message.seq
            && self.sender == message.sender_id
            && self.key == message.idempotency_key
    }
}

async fn entries(db: &PgPool, workspace_id: WorkspaceId) -> Result<Vec<Entry>> {
    let head = log::head(db, workspace_id).await?.position;
    let mut entries = Vec::new();
    let mut sent = HashSet::new();
    let mut from = Position(1);
    while from <= head {
        let to = Position(from.0 + AT_ONCE - 1);
        let range = Range { workspace_id, from, to };
        for entry in log::read(db, &[range], None, AT_ONCE).await? {
            // The first event about a message is that it was sent.
            let message = entry.message_id.filter(|id| sent.insert(*id));
            entries.push(read_entry(entry, message)?);
        }
        from = to.next();
    }
    Ok(entries)
}

fn read_entry(entry: log::Entry, message: Option<MessageId>) -> Result<Entry> {
    let effect = entry.effect.with_context(|| format!("the effect of a {}", entry.kind))?;
    let ends = match &effect {
        Effect::EndsSessions(ids) => ids.iter().copied().map(Ends::Session).collect(),
        Effect::Suspends(id) | Effect::RemovesPerson(id) => vec![Ends::Person(*id)],
        _ => Vec::new(),
    };
    let data = entry.data.as_deref().filter(|_| !entry.shows_message);
    let told: Value = data.map(serde_json::from_slice).transpose()?.unwrap_or_default();
    let change = match (effect, entry.message_id) {
        (_, None) => None,
        (Effect::ChangesMessage, Some(id)) => Some(MessageChange::Edited(id)),
        (Effect::RemovesMessage, Some(id)) => Some(MessageChange::Deleted(id)),
        (_, Some(_)) if entry.shows_message || message.is_some() => None,
        (_, Some(_)) => Some(MessageChange::Reaction(told["user_id"].as_i64().map(UserId))),
    };
    Ok(Entry {
        cursor: entry.cursor,
        chat: entry.chat_id,
        user: entry.user_id,
        digest: entry.data.as_deref().map(digest),
        message,
        change,
        shows: entry.message_id.filter(|_| entry.shows_message),
        archives: (entry.kind == "ChatUpdated").then(|| !told["archived_at"].is_null()),
        kind: entry.kind,
        ends,
    })
}

async fn members(db: &PgPool, workspace: WorkspaceId) -> Result<HashMap<ChatId, Vec<Period>>> {
    let rows = query(
        "select chat_id, user_id, joined_position, left_position
         from chat_members
         where workspace_id = $1",
    );
    let mut members: HashMap<ChatId, Vec<Period>> = HashMap::new();
    for row in rows.bind(workspace).fetch_all(db).await? {
        let period = Period {
            user: row.get("user_id"),
            joined: row.get("joined_position"),
            left: row.get("left_position"),
        };
        members.entry(row.get("chat_id")).or_default().push(period);
    }
    Ok(members)
}

async fn messages(db: &PgPool, workspace: WorkspaceId) -> Result<Vec<Stored>> {
    let rows = query(
        "select id, chat_id, seq, sender_id, idempotency_key, content, kind,
                deleted_at is not null as is_deleted
         from messages
         where workspace_id = $1
         order by chat_id, seq",
    );
    let rows = rows.bind(workspace).fetch_all(db).await?;
    let stored = rows.iter().map(|row| Stored {
        id: row.get("id"),
        chat: row.get("chat_id"),
        seq: row.get("seq"),
        sender: row.get("sender_id"),
        key: row.get("idempotency_key"),
        content: row.get("content"),
        is_deleted: row.get("is_deleted"),
        is_system: row.get::<&str, _>("kind") == "system",
    });
    Ok(stored.collect())
}

async fn reactions(
    db: &PgPool,
    workspace: WorkspaceId,
) -> Result<HashSet<(MessageId, UserId, String)>> {
    let rows = query(
        "select r.message_id, r.user_id, r.emoji
         from message_reactions as r
         join messages as m on m.chat_id = r.chat_id and m.id = r.message_id
         where r.workspace_id = $1 and m.deleted_at is null",
    );
    let rows = rows.bind(workspace).fetch_all(db).await?;
    let reactions =
        rows.iter().map(|row| (row.get("message_id"), row.get("user_id"), row.get("emoji")));
    Ok(reactions.collect())
}

async fn marks(db: &PgPool, workspace: WorkspaceId) -> Result<HashMap<(ChatId, UserId), Mark>> {
    let rows = query(
        "select member.chat_id, member.user_id, mark.seq as marked, state.seq as reached
         from (
             select distinct chat_id, user_id
             from chat_members
             where workspace_id = $1 and left_position is null
         ) as member
         left join read_marks as mark
             on mark.workspace_id = $1
             and mark.user_id = member.user_id
             and mark.chat_id = member.chat_id
         cross join lateral read_states($1, member.user_id, array[member.chat_id], null, 0) as state",
    );
    let rows = rows.bind(workspace).fetch_all(db).await?;
    let marks = rows.iter().map(|row| {
        let mark = Mark { marked: row.get("marked"), reached: row.get("reached") };
        ((row.get("chat_id"), row.get("user_id")), mark)
    });
    Ok(marks.collect())
}

async fn archived(db: &PgPool, workspace: WorkspaceId) -> Result<HashSet<ChatId>> {
    let archived =
        query_scalar("select id from chats where workspace_id = $1 and archived_at is not null");
    Ok(archived.bind(workspace).fetch_all(db).await?.into_iter().collect())
}
