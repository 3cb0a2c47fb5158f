//! Chats: their four types, and how they are created, changed and deleted.

pub(crate) mod directory;
pub(crate) mod lookup;
pub(crate) mod member;
pub(crate) mod member_role;
pub(crate) mod membership;
pub(crate) mod notice;
pub(crate) mod preference;
pub(crate) mod read_mark;
pub(crate) mod sidebar;

use aws_lc_rs::digest::{SHA256, digest};
use fechatter_core::chat::{Chat, ChatType};
use fechatter_core::config::LimitsConfig;
use fechatter_core::event::Event;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::message::{SystemNotice, SystemNoticeType};
use fechatter_core::user::Role;
use fechatter_core::{ChatId, UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{AppError, OnConstraint, Result};
use crate::models::chat::membership::{LockedMember, MAX_USERS_PER_REQUEST, Member};
use crate::models::session::current_user::CurrentUser;
use crate::utils::json::{Change, not_null};
use crate::utils::key::{key, skeleton_key, unique_key};
use crate::utils::text::{ChatName, Description};

/// The indexes that keep a public channel's name unique, by each of its unique keys.
const UNIQUE_NAME: [&str; 2] = ["chats_public_name_unique", "chats_public_name_skeleton"];

/// The request to create a chat.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatDraft {
    name: Option<ChatName>,
    chat_type: ChatType,
    #[schema(max_items = 500)]
    members: Option<Vec<UserId>>,
    description: Option<Description>,
    idempotency_key: Option<Uuid>,
}

/// The changes that a chat's owner and admins may make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = ChatName, required = false)]
    name: Option<ChatName>,
    #[serde(default)]
    #[schema(value_type = Option<Description>)]
    description: Change<Description>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = ChatType, required = false)]
    chat_type: Option<ChatType>,
}

/// The result of creating a chat.
#[derive(Debug)]
pub(crate) enum Created {
    New(Chat),
    /// The Single of these two people existed before.
    Existing(Chat),
    /// The same request, with the same idempotency key, was answered before.
    Replayed(Chat),
}

impl ChatDraft {
    /// Returns the number of people in the request.
    pub(crate) fn id_count(&self) -> usize {
        self.members.as_ref().map_or(0, Vec::len)
    }

    /// Returns the first members of the chat besides its creator, by the rules of its type.
    fn others(&self, creator: UserId) -> Result<Vec<UserId>> {
        let mut others = self.members.clone().unwrap_or_default();
        if others.len() > MAX_USERS_PER_REQUEST {
            return Err(AppError::invalid("members", "must have at most 500 people"));
        }
        others.sort_unstable();
        others.dedup();
        others.retain(|id| *id != creator);
        match self.chat_type {
            ChatType::Single if others.len() != 1 => {
                Err(AppError::InvalidMembers("a Single has exactly one other person"))
            }
            ChatType::Group if others.len() < 2 => {
                Err(AppError::InvalidMembers("a Group begins with at least three people"))
            }
            ChatType::PublicChannel => Ok(Vec::new()),
            _ => Ok(others),
        }
    }

    /// Returns a digest that distinguishes a retry from another request with the same key.
    fn digest(&self) -> Vec<u8> {
        let fields = (
            self.name.as_ref().map(ChatName::as_str),
            self.chat_type,
            &self.members,
            self.description.as_ref().map(Description::as_str),
        );
        digest(&SHA256, format!("{fields:?}").as_bytes()).as_ref().to_vec()
    }
}

impl ChatChanges {
    /// Returns the type that the chat will have, if this member may make all of these changes.
    fn check(&self, member: &Member) -> Result<ChatType> {
        member.require_not_single()?;
        member.require_role(Role::Admin)?;
        if self.name.as_ref().is_some_and(ChatName::is_empty) {
            return Err(AppError::invalid("name", "must have 1 to 128 characters"));
        }
        let chat_type = self.chat_type.unwrap_or(member.chat_type);
        if can_become(member.chat_type, chat_type) {
            Ok(chat_type)
        } else {
            Err(AppError::invalid("chat_type", "is not a type to which this chat can be converted"))
        }
    }
}

/// Creates a chat with its creator as owner.
pub(crate) async fn create(
    log: &Log,
    limits: &LimitsConfig,
    user: &CurrentUser,
    draft: ChatDraft,
) -> Result<Created> {
    let others = draft.others(user.id)?;
    let is_unnamed = draft.name.as_ref().is_none_or(ChatName::is_empty);
    if is_unnamed && draft.chat_type != ChatType::Single {
        return Err(AppError::invalid("name", "must have 1 to 128 characters"));
    }
    let workspace_id = user.workspace_id;
    let pair = match (draft.chat_type, &others[..]) {
        (ChatType::Single, [peer]) => Some((user.id.min(*peer), user.id.max(*peer))),
        _ => None,
    };
    let mut db = log.db().acquire().await?;
    if replay(&mut db, user, &draft).await?.is_none() {
        if let (ChatType::PublicChannel, Some(name)) = (draft.chat_type, &draft.name) {
            refuse_taken(&mut db, workspace_id, None, name).await?;
        }
        match pair {
            None => membership::check_active(&mut db, workspace_id, &others).await?,
            // If there is nothing to write, the log is not locked.
            Some(pair) => {
                if let Some(chat) = find_complete_single(&mut db, workspace_id, pair).await? {
                    return Ok(Created::Existing(chat));
                }
            }
        }
    }
    drop(db);
    let (mut writer, user) = user.lock(log).await?;
    if let Some(chat) = replay(writer.db(), &user, &draft).await? {
        // If commits wait for a standby, this commit makes the replay wait for it too, as for
        // messages.
        writer.commit().await?;
        return Ok(Created::Replayed(chat));
    }
    if let Some(pair) = pair
        && let Some(id) = find_single(writer.db(), workspace_id, pair).await?
    {
        let chat = readmit(writer, &user, id, pair).await?;
        return Ok(Created::Existing(chat));
    }
    membership::check_active(writer.db(), workspace_id, &others).await?;
    check_owned(writer.db(), workspace_id, user.id, limits).await?;
    let id = insert(&mut writer, &user, &draft, others.len() + 1, pair).await?;
    let position = writer.next_position(workspace_id)?;
    sqlx::query!(
        "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
         select $1, $2, user_id, $3
         from unnest(array[$4::bigint] || $5::bigint[]) as user_id",
        workspace_id as _,
        id as _,
        position as _,
        user.id as _,
        &others as _
    )
    .execute(writer.db())
    .await?;
    let chat = lookup::find(writer.db(), workspace_id, id).await?;
    writer.append(workspace_id, &Event::NewChat(chat.clone()))?;
    writer.commit().await?;
    Ok(Created::New(chat))
}

/// Refuses if the person owns the maximum number of chats in the workspace.
pub(crate) async fn check_owned(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    user_id: UserId,
    limits: &LimitsConfig,
) -> Result<()> {
    let owned = sqlx::query_scalar!(
        r#"select count(*) as "owned!"
           from (
               select 1 from chats
               where workspace_id = $1 and owner_id = $2 and deleted_at is null
               limit $3
           ) as counted"#,
        workspace_id as _,
        user_id as _,
        limits.chats_per_person
    )
    .fetch_one(db)
    .await?;
    if owned < limits.chats_per_person { Ok(()) } else { Err(AppError::LimitReached("chats")) }
}

/// Finds the Single of these two people, if both are members of it.
async fn find_complete_single(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    pair: (UserId, UserId),
) -> Result<Option<Chat>> {
    let Some(id) = find_single(&mut *db, workspace_id, pair).await? else { return Ok(None) };
    let chat = lookup::find(db, workspace_id, id).await?;
    Ok((chat.member_count == 2).then_some(chat))
}

/// Returns the Single of these two people. A person who left the workspace and returned to it
/// becomes a member again.
async fn readmit(
    mut writer: LogWriter,
    user: &CurrentUser,
    id: ChatId,
    (low, high): (UserId, UserId),
) -> Result<Chat> {
    let returned = sqlx::query_scalar!(
        "select w.user_id
         from workspace_members as w
         where w.workspace_id = $1
           and w.user_id in ($3, $4)
           and w.status = 'Active'
           and not exists (
               select 1 from chat_members as m
               where m.chat_id = $2 and m.user_id = w.user_id and m.left_position is null)",
        user.workspace_id as _,
        id as _,
        low as _,
        high as _
    )
    .fetch_all(writer.db())
    .await?;
    if !returned.is_empty() {
        membership::add_members(&mut writer, user.workspace_id, id, &returned, user.id).await?;
    }
    let chat = lookup::find(writer.db(), user.workspace_id, id).await?;
    writer.commit().await?;
    Ok(chat)
}

async fn insert(
    writer: &mut LogWriter,
    user: &CurrentUser,
    draft: &ChatDraft,
    member_count: usize,
    pair: Option<(UserId, UserId)>,
) -> Result<ChatId> {
    let name = draft.name.as_ref().map_or("", ChatName::as_str);
    let description = draft.description.as_ref().map(Description::as_str);
    sqlx::query_scalar!(
        "insert into chats (workspace_id, chat_type, name, name_key, name_unique, name_skeleton,
                            description, owner_id, member_count, single_low, single_high,
                            creator_id, creation_key, creation_digest)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $8, $12, $13)
         returning id",
        user.workspace_id as _,
        draft.chat_type as _,
        name,
        key(name),
        unique_key(name),
        skeleton_key(name),
        description.filter(|text| !text.is_empty()),
        user.id as _,
        i32::try_from(member_count).unwrap_or(i32::MAX),
        pair.map(|(low, _)| low) as _,
        pair.map(|(_, high)| high) as _,
        draft.idempotency_key,
        draft.idempotency_key.map(|_| draft.digest())
    )
    .fetch_one(writer.db())
    .await
    .on_constraint(&UNIQUE_NAME, AppError::ChatNameTaken)
}

/// Returns the chat that this request created before, in its current state.
async fn replay(
    db: &mut PgConnection,
    user: &CurrentUser,
    draft: &ChatDraft,
) -> Result<Option<Chat>> {
    let Some(creation_key) = draft.idempotency_key else { return Ok(None) };
    let earlier = sqlx::query!(
        "select id, creation_digest from chats
         where workspace_id = $1 and creator_id = $2 and creation_key = $3",
        user.workspace_id as _,
        user.id as _,
        creation_key
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(earlier) = earlier else { return Ok(None) };
    if earlier.creation_digest != Some(draft.digest()) {
        return Err(AppError::IdempotencyMismatch);
    }
    Member::find(&mut *db, *user, earlier.id).await?;
    lookup::find(db, user.workspace_id, earlier.id).await.map(Some)
}

async fn find_single(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    (low, high): (UserId, UserId),
) -> Result<Option<ChatId>> {
    let id = sqlx::query_scalar!(
        "select id from chats
         where workspace_id = $1 and single_low = $2 and single_high = $3 and deleted_at is null",
        workspace_id as _,
        low as _,
        high as _
    )
    .fetch_optional(db)
    .await?;
    Ok(id)
}

/// Refuses a name that another public channel has, before the log is locked for it.
async fn refuse_taken(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    besides: Option<ChatId>,
    name: &ChatName,
) -> Result<()> {
    let is_taken = sqlx::query_scalar!(
        r#"select exists (
               select 1 from chats
               where workspace_id = $1
                 and (name_unique = $3 or name_skeleton = $4)
                 and chat_type = 'PublicChannel'
                 and deleted_at is null
                 and id is distinct from $2
           ) as "is_taken!""#,
        workspace_id as _,
        besides as _,
        unique_key(name.as_str()),
        skeleton_key(name.as_str())
    )
    .fetch_one(db)
    .await?;
    if is_taken { Err(AppError::ChatNameTaken) } else { Ok(()) }
}

/// Renames, describes or converts a chat.
pub(crate) async fn update(log: &Log, member: Member, changes: ChatChanges) -> Result<Chat> {
    let workspace_id = member.user.workspace_id;
    if let (ChatType::PublicChannel, Some(name)) = (changes.check(&member)?, &changes.name) {
        let mut db = log.db().acquire().await?;
        refuse_taken(&mut db, workspace_id, Some(member.chat_id), name).await?;
    }
    let LockedMember { mut writer, member, .. } = member.lock(log).await?;
    let chat_type = changes.check(&member)?;
    let before = lookup::find(writer.db(), workspace_id, member.chat_id).await?;
    let name = changes.name.as_ref().map(ChatName::as_str);
    let (describes, description) = match &changes.description {
        Change::Leave => (false, None),
        Change::Clear => (true, None),
        Change::Set(text) => (true, Some(text.as_str()).filter(|text| !text.is_empty())),
    };
    sqlx::query!(
        "update chats
         set name = coalesce($2, name),
             name_key = coalesce($3, name_key),
             name_unique = coalesce($4, name_unique),
             name_skeleton = coalesce($5, name_skeleton),
             description = case when $6 then $7 else description end,
             chat_type = $8,
             updated_at = clock_timestamp()
         where id = $1",
        member.chat_id as _,
        name,
        name.map(key),
        name.map(unique_key),
        name.map(skeleton_key),
        describes,
        description,
        chat_type as _
    )
    .execute(writer.db())
    .await
    .on_constraint(&UNIQUE_NAME, AppError::ChatNameTaken)?;
    let after = lookup::find(writer.db(), workspace_id, member.chat_id).await?;
    let Some(notice) = describe(&before, &after) else { return Ok(before) };
    writer.append(workspace_id, &Event::ChatUpdated(after))?;
    notice::write(&mut writer, workspace_id, member.chat_id, member.user.id, notice).await?;
    let chat = lookup::find(writer.db(), workspace_id, member.chat_id).await?;
    writer.commit().await?;
    Ok(chat)
}

/// Returns the system message about the first of the changes of a chat, or none if it has not changed.
fn describe(before: &Chat, after: &Chat) -> Option<SystemNotice> {
    if after.name != before.name {
        let name = Some(after.name.clone());
        Some(SystemNotice { name, ..notice::about(SystemNoticeType::Renamed, &[]) })
    } else if after.chat_type != before.chat_type {
        Some(notice::about(SystemNoticeType::Converted, &[]))
    } else if after.description != before.description {
        Some(notice::about(SystemNoticeType::Described, &[]))
    } else {
        None
    }
}

fn can_become(from: ChatType, to: ChatType) -> bool {
    use ChatType::{Group, PrivateChannel, PublicChannel};
    from == to
        || matches!(
            (from, to),
            (Group | PublicChannel, PrivateChannel) | (PrivateChannel, PublicChannel)
        )
}

/// Archives a chat, or brings it back. Nobody can write to an archived chat or change its messages. An
/// archived chat that is archived again does not change.
pub(crate) async fn set_archived(log: &Log, member: Member, is_archived: bool) -> Result<Chat> {
    check_archiving(&member)?;
    let LockedMember { mut writer, member, .. } = member.lock(log).await?;
    check_archiving(&member)?;
    let workspace_id = member.user.workspace_id;
    let changed = sqlx::query!(
        "update chats
         set archived_at = case when $2 then clock_timestamp() end
         where id = $1 and (archived_at is not null) <> $2",
        member.chat_id as _,
        is_archived
    )
    .execute(writer.db())
    .await?;
    let chat = lookup::find(writer.db(), workspace_id, member.chat_id).await?;
    if changed.rows_affected() > 0 {
        writer.append(workspace_id, &Event::ChatUpdated(chat))?;
        let kind =
            if is_archived { SystemNoticeType::Archived } else { SystemNoticeType::Unarchived };
        let notice = notice::about(kind, &[]);
        notice::write(&mut writer, workspace_id, member.chat_id, member.user.id, notice).await?;
    }
    let chat = lookup::find(writer.db(), workspace_id, member.chat_id).await?;
    writer.commit().await?;
    Ok(chat)
}

fn check_archiving(member: &Member) -> Result<()> {
    member.require_not_single()?;
    member.require_role(Role::Admin)
}

/// Deletes a chat: from the commit on it is invisible, and its messages are purged.
pub(crate) async fn delete(log: &Log, member: Member) -> Result<()> {
    member.require_role(Role::Owner)?;
    let LockedMember { mut writer, member, .. } = member.lock(log).await?;
    member.require_role(Role::Owner)?;
    let workspace_id = member.user.workspace_id;
    let event = Event::ChatDeleted { id: member.chat_id };
    let position = writer.append(workspace_id, &event)?;
    sqlx::query!(
        "update chats set deleted_at = clock_timestamp() where id = $1",
        member.chat_id as _
    )
    .execute(writer.db())
    .await?;
    sqlx::query!(
        "update chat_members set left_position = $2 where chat_id = $1 and left_position is null",
        member.chat_id as _,
        position as _
    )
    .execute(writer.db())
    .await?;
    Ok(writer.commit().await?)
}
