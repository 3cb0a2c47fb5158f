//! Who is in a chat, and what they may do there.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use fechatter_core::chat::{Chat, ChatMember, ChatType};
use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, UserStatus};
use fechatter_core::{ChatId, Position, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::AppState;
use crate::error::{AppError, Result};
use crate::middlewares::auth::CurrentUser;
use crate::models::chat;
use crate::models::departure::end_memberships;
use crate::utils::page;
use crate::utils::path::Id;

/// The most people that one call may name.
pub(crate) const MAX_NAMED: usize = 500;

/// The caller's membership of the chat in the path. A chat they are not in does not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) user: CurrentUser,
    pub(crate) chat_id: ChatId,
    pub(crate) chat_type: ChatType,
    pub(crate) owner_id: UserId,
    pub(crate) role: Role,
}

impl FromRequestParts<AppState> for Member {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let user = CurrentUser::from_request_parts(parts, state).await?;
        let Id(chat_id) = Id::from_request_parts(parts, state).await?;
        Self::find(&state.db, user, chat_id).await
    }
}

impl Member {
    pub(crate) async fn find(
        db: impl PgExecutor<'_>,
        user: CurrentUser,
        chat_id: ChatId,
    ) -> Result<Self> {
        let found = sqlx::query!(
            "select c.chat_type, c.owner_id, m.role
             from chats as c
             join chat_members as m on m.chat_id = c.id
             where c.workspace_id = $1
               and c.id = $2
               and c.deleted_at is null
               and m.user_id = $3
               and m.left_position is null",
            user.workspace_id as _,
            chat_id as _,
            user.id as _
        )
        .fetch_optional(db)
        .await?
        .ok_or(AppError::NotFound)?;
        let role = if found.owner_id == user.id { Role::Owner } else { found.role };
        Ok(Self { user, chat_id, chat_type: found.chat_type, owner_id: found.owner_id, role })
    }

    /// Locks the log and looks again: what was true when the request came may have changed.
    pub(crate) async fn lock(&self, log: &Log) -> Result<(LogWriter, Self)> {
        let (mut writer, user) = self.user.lock(log).await?;
        let member = Self::find(writer.db(), user, self.chat_id).await?;
        Ok((writer, member))
    }

    pub(crate) fn require_role(&self, role: Role) -> Result<()> {
        if self.role >= role { Ok(()) } else { Err(AppError::Forbidden) }
    }

    fn require_may_leave(&self) -> Result<()> {
        self.require_not_single()?;
        if self.role == Role::Owner { Err(AppError::OwnerMustTransfer) } else { Ok(()) }
    }

    pub(crate) fn require_not_single(&self) -> Result<()> {
        if self.chat_type == ChatType::Single { Err(AppError::SingleIsFixed) } else { Ok(()) }
    }
}

/// The members of a chat, oldest first, and where the next page begins; with neither cursor nor
/// limit all of them, as clients of the earlier Fechatter expect.
pub(crate) async fn list(
    db: &PgPool,
    member: &Member,
    cursor: Option<&str>,
    limit: Option<&str>,
) -> Result<(Vec<ChatMember>, Option<String>)> {
    let paged = cursor.is_some() || limit.is_some();
    let limit = page::limit(limit, if paged { 50 } else { i64::MAX - 1 })?;
    let [position, user_id] = cursor.map_or(Ok([0, 0]), page::read_cursor)?;
    let rows = sqlx::query!(
        "select user_id, role, joined_at, joined_position
         from chat_members
         where chat_id = $1
           and left_position is null
           and (joined_position, user_id) > ($2, $3)
         order by joined_position, user_id
         limit $4",
        member.chat_id as _,
        position,
        user_id,
        limit + 1
    )
    .fetch_all(db)
    .await?;
    let mut rows = rows;
    let next = page::cut(&mut rows, limit, |row| [row.joined_position.0, row.user_id.0]);
    let members = rows.into_iter().map(|row| ChatMember {
        chat_id: member.chat_id,
        user_id: row.user_id,
        joined_at: row.joined_at,
        role: if row.user_id == member.owner_id { Role::Owner } else { row.role },
    });
    Ok((members.collect(), next))
}

/// Adds people to a chat; returns those who were not in it. One who cannot be added stops all.
pub(crate) async fn add(log: &Log, member: Member, people: &[UserId]) -> Result<Vec<ChatMember>> {
    let mut db = log.db().acquire().await?;
    check_adding(&mut db, &member, people).await?;
    if newcomers(&mut *db, member.chat_id, people).await?.is_empty() {
        return Ok(Vec::new());
    }
    drop(db);
    let (mut writer, member) = member.lock(log).await?;
    check_adding(writer.db(), &member, people).await?;
    let user = member.user;
    let added = admit(&mut writer, user.workspace_id, member.chat_id, people, user.id).await?;
    writer.commit().await?;
    Ok(added)
}

/// Refuses unless the caller may add all of these people.
async fn check_adding(db: &mut PgConnection, member: &Member, people: &[UserId]) -> Result<()> {
    member.require_not_single()?;
    member.require_role(Role::Admin)?;
    check_active(db, member.user.workspace_id, people).await
}

/// Enters a public channel; one who is in the chat already stays so.
pub(crate) async fn join(log: &Log, user: CurrentUser, chat_id: ChatId) -> Result<ChatMember> {
    let mut db = log.db().acquire().await?;
    if let Some(member) = joined(&mut db, user, chat_id).await? {
        return Ok(member);
    }
    drop(db);
    let (mut writer, user) = user.lock(log).await?;
    if let Some(member) = joined(writer.db(), user, chat_id).await? {
        return Ok(member);
    }
    let joined = admit(&mut writer, user.workspace_id, chat_id, &[user.id], user.id).await?;
    writer.commit().await?;
    joined.into_iter().next().ok_or(AppError::NotFound)
}

/// The caller as a member of a chat; none of a public channel that they may join.
async fn joined(
    db: &mut PgConnection,
    user: CurrentUser,
    chat_id: ChatId,
) -> Result<Option<ChatMember>> {
    match Member::find(&mut *db, user, chat_id).await {
        Ok(member) => {
            member.require_not_single()?;
            one(db, chat_id, user.id).await?.ok_or(AppError::NotFound).map(Some)
        }
        Err(AppError::NotFound) => {
            chat::check_public(db, user.workspace_id, chat_id).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Leaves a chat.
pub(crate) async fn leave(log: &Log, member: Member) -> Result<()> {
    member.require_may_leave()?;
    let (mut writer, member) = member.lock(log).await?;
    member.require_may_leave()?;
    dismiss(&mut writer, &member, &[member.user.id], LeaveReason::Left).await?;
    Ok(writer.commit().await?)
}

/// Removes people from a chat. Admins remove neither the owner nor each other.
pub(crate) async fn remove(log: &Log, member: Member, people: &[UserId]) -> Result<()> {
    let mut db = log.db().acquire().await?;
    to_dismiss(&mut db, &member, people).await?;
    drop(db);
    let (mut writer, member) = member.lock(log).await?;
    let matched = to_dismiss(writer.db(), &member, people).await?;
    dismiss(&mut writer, &member, &matched, LeaveReason::Removed).await?;
    Ok(writer.commit().await?)
}

/// Those of these people who are in the chat, if the caller may remove them.
async fn to_dismiss(
    db: &mut PgConnection,
    member: &Member,
    people: &[UserId],
) -> Result<Vec<UserId>> {
    member.require_not_single()?;
    member.require_role(Role::Admin)?;
    let matched = sqlx::query!(
        "select user_id, role
         from chat_members
         where chat_id = $1 and user_id = any($2) and left_position is null
         order by joined_position, user_id",
        member.chat_id as _,
        people as _
    )
    .fetch_all(db)
    .await?;
    if matched.is_empty() {
        return Err(AppError::NoMembersMatched);
    }
    for person in &matched {
        let is_owner = person.user_id == member.owner_id;
        let is_other_admin = person.role == Role::Admin && person.user_id != member.user.id;
        if member.role == Role::Owner && is_owner {
            return Err(AppError::OwnerMustTransfer);
        }
        if member.role == Role::Admin && (is_owner || is_other_admin) {
            return Err(AppError::Forbidden);
        }
    }
    Ok(matched.into_iter().map(|person| person.user_id).collect())
}

/// Begins the memberships of those who are not in the chat, each at the position of its event. The
/// log is held; who may do so, the caller has checked.
pub(crate) async fn admit(
    writer: &mut LogWriter,
    workspace_id: WorkspaceId,
    chat_id: ChatId,
    people: &[UserId],
    actor_id: UserId,
) -> Result<Vec<ChatMember>> {
    let chat = chat::find(writer.db(), workspace_id, chat_id).await?;
    let newcomers = newcomers(writer.db(), chat_id, people).await?;
    let first = writer.next_position(workspace_id)?;
    let positions: Vec<_> = (first.0..).take(newcomers.len()).map(Position).collect();
    // Nobody's unread messages begin with what was said before they came.
    let joined = sqlx::query!(
        "insert into chat_members (workspace_id, chat_id, user_id, joined_position, last_read_seq)
         select $1, $2, newcomer.user_id, newcomer.position,
                coalesce((select max(seq) from messages where chat_id = $2), 0)
         from unnest($3::bigint[], $4::bigint[]) as newcomer (user_id, position)
         order by newcomer.position
         returning user_id, joined_at, joined_position",
        workspace_id as _,
        chat_id as _,
        &newcomers as _,
        &positions as _
    )
    .fetch_all(writer.db())
    .await?;
    let change = i32::try_from(joined.len()).unwrap_or(i32::MAX);
    resize(writer.db(), chat_id, change).await?;
    let member_count = chat.member_count + change;
    let chat = Chat { chat_members: Vec::new(), member_count, ..chat };
    let mut members = Vec::with_capacity(joined.len());
    for row in joined {
        // Whoever owns the chat still, although they had left the workspace.
        let is_owner = row.user_id == chat.created_by;
        let role = if is_owner { Role::Owner } else { Role::Member };
        let event = Event::UserJoinedChat {
            chat_id,
            user_id: row.user_id,
            joined_at: row.joined_at,
            role,
            actor_id,
            chat: chat.clone(),
        };
        writer.append(workspace_id, &event)?;
        members.push(ChatMember { chat_id, user_id: row.user_id, joined_at: row.joined_at, role });
    }
    Ok(members)
}

/// Those of these people who are not in the chat, in the order in which they are named.
async fn newcomers(
    db: impl PgExecutor<'_>,
    chat_id: ChatId,
    people: &[UserId],
) -> Result<Vec<UserId>> {
    let newcomers = sqlx::query_scalar!(
        r#"select user_id as "user_id!: UserId"
           from unnest($2::bigint[]) with ordinality as named (user_id, place)
           where not exists (
               select 1 from chat_members as m
               where m.chat_id = $1 and m.user_id = named.user_id and m.left_position is null)
           group by user_id
           order by min(place)"#,
        chat_id as _,
        people as _
    )
    .fetch_all(db)
    .await?;
    Ok(newcomers)
}

async fn dismiss(
    writer: &mut LogWriter,
    member: &Member,
    people: &[UserId],
    reason: LeaveReason,
) -> Result<()> {
    let memberships: Vec<_> = people.iter().map(|person| (member.chat_id, *person)).collect();
    let user = member.user;
    end_memberships(writer, user.workspace_id, &memberships, (user.id, reason)).await
}

async fn resize(db: &mut PgConnection, chat_id: ChatId, change: i32) -> Result<()> {
    sqlx::query!(
        "update chats set member_count = member_count + $2 where id = $1",
        chat_id as _,
        change
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One current member of a chat.
pub(crate) async fn one(
    db: impl PgExecutor<'_>,
    chat_id: ChatId,
    user_id: UserId,
) -> Result<Option<ChatMember>> {
    let found = sqlx::query!(
        "select m.joined_at, m.role, c.owner_id
         from chat_members as m
         join chats as c on c.id = m.chat_id
         where m.chat_id = $1 and m.user_id = $2 and m.left_position is null",
        chat_id as _,
        user_id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|row| ChatMember {
        chat_id,
        user_id,
        joined_at: row.joined_at,
        role: if row.owner_id == user_id { Role::Owner } else { row.role },
    }))
}

/// Refuses unless all of these people are active in the workspace.
pub(crate) async fn check_active(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    people: &[UserId],
) -> Result<()> {
    let missing = sqlx::query_scalar!(
        r#"select exists (
               select 1 from unnest($2::bigint[]) as named (user_id)
               where not exists (
                   select 1 from workspace_members as m
                   where m.workspace_id = $1 and m.user_id = named.user_id and m.status = $3)
           ) as "missing!""#,
        workspace_id as _,
        people as _,
        UserStatus::Active as _
    )
    .fetch_one(db)
    .await?;
    if missing { Err(AppError::UserNotFound) } else { Ok(()) }
}

/// Which of these chats somebody may add people to.
pub(crate) async fn may_add_to(
    db: &mut PgConnection,
    (workspace_id, user_id): (WorkspaceId, UserId),
    chats: &[ChatId],
) -> Result<Vec<ChatId>> {
    let allowed = sqlx::query_scalar!(
        "select c.id
         from chats as c
         join chat_members as m on m.chat_id = c.id
         where c.workspace_id = $1
           and c.id = any($3)
           and c.deleted_at is null
           and c.chat_type <> 'Single'
           and m.user_id = $2
           and m.left_position is null
           and (c.owner_id = $2 or m.role = 'admin')
         order by c.id",
        workspace_id as _,
        user_id as _,
        chats as _
    )
    .fetch_all(db)
    .await?;
    Ok(allowed)
}
