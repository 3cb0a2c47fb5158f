//! The caller's list of chats, which is one query for any number of chats.

use fechatter_core::chat::{ChatType, NotifyLevel, UNREAD_CAP};
use fechatter_core::message::MessageKind;
use fechatter_core::{ChatId, MessageId, Seq, Timestamp, UserId};
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::session::current_user::CurrentUser;

/// A chat in the list of one of its members.
// Every change of these fields needs an event whose audience includes the member, because
// `services/chat_lists.rs` caches lists until such an event. If an action of the member alone
// changes a new field, it needs an event for `Audience::User`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatSidebar {
    id: ChatId,
    /// The name of the chat. For a Single, it is the name of the other person.
    name: String,
    chat_type: ChatType,
    last_message: Option<LastMessage>,
    is_creator: bool,
    peer_id: Option<UserId>,
    #[schema(minimum = 0)]
    member_count: i32,
    last_seq: Seq,
    last_read_seq: Seq,
    #[schema(minimum = 0, maximum = 100)]
    unread_count: i64,
    unread_capped: bool,
    #[schema(minimum = 0, maximum = 100)]
    mention_count: i64,
    notify_level: NotifyLevel,
    muted_until: Option<Timestamp>,
    pinned_at: Option<Timestamp>,
    archived_at: Option<Timestamp>,
    /// The time of the last message of a person, or of the chat's creation if there is none.
    updated_at: Timestamp,
}

/// The newest message of a person in a chat. System messages do not count.
#[derive(Debug, Serialize, ToSchema)]
struct LastMessage {
    id: MessageId,
    content: String,
    sender_name: String,
    created_at: Timestamp,
    has_files: bool,
    sender_id: UserId,
    seq: Seq,
    kind: MessageKind,
    deleted_at: Option<Timestamp>,
}

impl ChatSidebar {
    /// Returns the people whom the entry shows: the other person of a Single, and the sender of the
    /// last message.
    pub(crate) fn people(&self) -> impl Iterator<Item = UserId> {
        let sender = self.last_message.as_ref().map(|message| message.sender_id);
        self.peer_id.into_iter().chain(sender)
    }
}

/// Lists the caller's chats: those that they have pinned, then the others, both latest activity
/// first. `only` selects a single chat; `archived` selects the archived chats (true) or the others
/// (false).
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    user: &CurrentUser,
    only: Option<ChatId>,
    archived: Option<bool>,
) -> Result<Vec<ChatSidebar>> {
    // The optional conditions use `coalesce`, because PostgreSQL estimates that `$3 is null or …` is
    // rarely true, and then tests all chats for a membership.
    let rows = sqlx::query!(
        r#"select c.id, c.name, c.chat_type, c.owner_id, c.member_count, c.archived_at,
                  c.created_at, newest.seq as "newest_seq?: Seq", state.seq as "last_read_seq!: Seq",
                  peer.user_id as "peer_id?: UserId", peer.fullname as "peer_name?",
                  last.id as "last_id?: MessageId", last.seq as "last_seq?: Seq",
                  last.sender_id as "sender_id?: UserId", last.kind as "kind?: MessageKind",
                  last.content as "content?", last.created_at as "sent_at?: Timestamp",
                  last.deleted_at as "deleted_at?: Timestamp", last.has_files as "has_files?", sender.fullname as "sender_name?",
                  state.unread as "unread!", state.mentions as "mentions!",
                  chosen.notify_level as "notify_level?: NotifyLevel",
                  chosen.muted_until as "muted_until?: Timestamp",
                  chosen.pinned_at as "pinned_at?: Timestamp"
           from chat_members as me
           join chats as c on c.id = me.chat_id
           left join workspace_members as peer
               on c.chat_type = 'Single'
               and peer.workspace_id = c.workspace_id
               and peer.user_id = case when c.single_low = $2 then c.single_high else c.single_low end
           left join lateral (
               select m.seq, coalesce(m.person_seq, m.seq) as person_seq
               from messages as m
               where m.chat_id = c.id
               order by m.seq desc
               limit 1
           ) as newest on true
           left join lateral (
               select m.id, m.seq, m.sender_id, m.kind, m.content, m.created_at, m.deleted_at,
                      m.has_files
               from message_objects as m
               where m.chat_id = c.id and m.seq = newest.person_seq
               limit 1
           ) as last on true
           left join workspace_members as sender
               on sender.workspace_id = c.workspace_id and sender.user_id = last.sender_id
           left join read_marks as mark
               on mark.workspace_id = $1 and mark.user_id = $2 and mark.chat_id = c.id
           cross join lateral read_state(
               c.id, $2, coalesce(mark.seq, 0), coalesce(mark.set_at_seq, 0),
               coalesce(newest.person_seq, 0), $5
           ) as state
           left join chat_preferences as chosen
               on chosen.workspace_id = $1 and chosen.user_id = $2 and chosen.chat_id = c.id
           where me.workspace_id = $1
             and me.user_id = $2
             and me.left_position is null
             and c.deleted_at is null
             and coalesce(c.id = $3::bigint, true)
             and coalesce((c.archived_at is not null) = $4::boolean, true)
           order by chosen.pinned_at is null, coalesce(last.created_at, c.created_at) desc, c.id desc"#,
        user.workspace_id as _,
        user.id as _,
        only as _,
        archived,
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let chats = rows.into_iter().map(|row| {
        let last_message = row.last_id.zip(row.last_seq).zip(row.sender_id).zip(row.sent_at);
        let last_message = last_message.zip(row.kind);
        ChatSidebar {
            id: row.id,
            name: row.peer_name.unwrap_or(row.name),
            chat_type: row.chat_type,
            last_message: last_message.map(|((((id, seq), sender_id), created_at), kind)| {
                LastMessage {
                    id,
                    content: row.content.unwrap_or_default(),
                    sender_name: row.sender_name.unwrap_or_default(),
                    created_at,
                    has_files: row.has_files.unwrap_or(false),
                    sender_id,
                    seq,
                    kind,
                    deleted_at: row.deleted_at,
                }
            }),
            is_creator: row.owner_id == user.id,
            peer_id: row.peer_id,
            member_count: row.member_count,
            last_seq: row.newest_seq.unwrap_or(Seq(0)),
            last_read_seq: row.last_read_seq,
            unread_count: row.unread.min(UNREAD_CAP),
            unread_capped: row.unread > UNREAD_CAP,
            mention_count: row.mentions.min(UNREAD_CAP),
            notify_level: row.notify_level.unwrap_or(NotifyLevel::All),
            muted_until: row.muted_until,
            pinned_at: row.pinned_at,
            archived_at: row.archived_at,
            updated_at: row.sent_at.unwrap_or(row.created_at),
        }
    });
    Ok(chats.collect())
}
