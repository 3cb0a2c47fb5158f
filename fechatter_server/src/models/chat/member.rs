//! The members of a chat: listing, adding and removing them.

use fechatter_core::chat::ChatMember;
use fechatter_core::event::LeaveReason;
use fechatter_core::log::Log;
use fechatter_core::message::SystemNoticeType;
use fechatter_core::user::{Role, User};
use fechatter_core::{ChatId, UserId};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::chat::membership::{self, Member};
use crate::models::chat::{lookup, notice};
use crate::models::session::current_user::CurrentUser;
use crate::utils::page::Page;

/// A member in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedMember {
    #[serde(flatten)]
    member: ChatMember,
    /// The person, if the request asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = User, required = false)]
    user: Option<User>,
}

/// Lists the members of a chat, or those of them whom a search has found, oldest first, with the
/// cursor of the next page.
pub(crate) async fn list(
    db: &PgPool,
    member: &Member,
    found: Option<&[UserId]>,
    with_users: bool,
    page: Page<2>,
) -> Result<(Vec<ListedMember>, Option<String>)> {
    let [position, user_id] = page.after.unwrap_or([0, 0]);
    let mut rows = sqlx::query!(
        r#"select m.user_id, m.role, m.joined_at, m.joined_position, person as "person?: User"
           from chat_members as m
           left join user_objects as person
               on $6 and person.workspace_id = m.workspace_id and person.id = m.user_id
           where m.chat_id = $1
             and m.left_position is null
             and (m.joined_position, m.user_id) > ($2, $3)
             and ($5::bigint[] is null or m.user_id = any($5))
           order by m.joined_position, m.user_id
           limit $4"#,
        member.chat_id as _,
        position,
        user_id,
        page.limit + 1,
        found as _,
        with_users
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| [row.joined_position.0, row.user_id.0]);
    let members = rows.into_iter().map(|row| ListedMember {
        member: ChatMember {
            chat_id: member.chat_id,
            user_id: row.user_id,
            joined_at: row.joined_at,
            role: if row.user_id == member.owner_id { Role::Owner } else { row.role },
        },
        user: row.person,
    });
    Ok((members.collect(), next))
}

/// Adds people to a chat, and returns those who were not in it. Adds none if one of them cannot be
/// added.
pub(crate) async fn add(log: &Log, member: Member, people: &[UserId]) -> Result<Vec<ChatMember>> {
    let mut db = log.db().acquire().await?;
    check_adding(&mut db, &member, people).await?;
    if membership::find_non_members(&mut *db, member.chat_id, people).await?.is_empty() {
        return Ok(Vec::new());
    }
    drop(db);
    let mut locked = member.lock(log).await?;
    check_adding(locked.writer.db(), &locked.member, people).await?;
    let Member { user, chat_id, .. } = locked.member;
    let (writer, workspace_id) = (&mut locked.writer, user.workspace_id);
    let added = membership::add_members(writer, workspace_id, chat_id, people, user.id).await?;
    if !added.is_empty() {
        let added: Vec<_> = added.iter().map(|member| member.user_id).collect();
        let notice = notice::about(SystemNoticeType::Added, &added);
        notice::write(writer, workspace_id, chat_id, user.id, notice).await?;
    }
    locked.commit().await?;
    Ok(added)
}

/// Refuses unless the caller may add all of these people.
async fn check_adding(db: &mut PgConnection, member: &Member, people: &[UserId]) -> Result<()> {
    member.require_not_single()?;
    member.require_role(Role::Admin)?;
    membership::check_active(db, member.user.workspace_id, people).await
}

/// Adds the caller to a public channel. Changes nothing if the caller is a member already.
pub(crate) async fn join(log: &Log, user: CurrentUser, chat_id: ChatId) -> Result<ChatMember> {
    let mut db = log.db().acquire().await?;
    if let Some(member) = find_own_membership(&mut db, user, chat_id).await? {
        return Ok(member);
    }
    drop(db);
    let (mut writer, user) = user.lock(log).await?;
    if let Some(member) = find_own_membership(writer.db(), user, chat_id).await? {
        return Ok(member);
    }
    let joined =
        membership::add_members(&mut writer, user.workspace_id, chat_id, &[user.id], user.id)
            .await?;
    let notice = notice::about(SystemNoticeType::Joined, &[user.id]);
    notice::write(&mut writer, user.workspace_id, chat_id, user.id, notice).await?;
    writer.commit().await?;
    joined.into_iter().next().ok_or(AppError::NotFound)
}

/// Returns the caller as a member of a chat, or none for a public channel that they may join.
async fn find_own_membership(
    db: &mut PgConnection,
    user: CurrentUser,
    chat_id: ChatId,
) -> Result<Option<ChatMember>> {
    match Member::find(&mut *db, user, chat_id).await {
        Ok(member) => {
            member.require_not_single()?;
            find_member(db, chat_id, user.id).await?.ok_or(AppError::NotFound).map(Some)
        }
        Err(AppError::NotFound) => {
            lookup::check_public(db, user.workspace_id, chat_id).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Leaves a chat.
pub(crate) async fn leave(log: &Log, member: Member) -> Result<()> {
    member.require_may_leave()?;
    let mut locked = member.lock(log).await?;
    locked.member.require_may_leave()?;
    let leaver = [locked.member.user.id];
    locked.tell(notice::about(SystemNoticeType::Left, &leaver)).await?;
    locked.end_memberships(&leaver, LeaveReason::Left).await?;
    locked.commit().await
}

/// Removes people from a chat. An admin can remove neither the owner nor another admin.
pub(crate) async fn remove(log: &Log, member: Member, people: &[UserId]) -> Result<()> {
    let mut db = log.db().acquire().await?;
    check_removal(&mut db, &member, people).await?;
    drop(db);
    let mut locked = member.lock(log).await?;
    let people = check_removal(locked.writer.db(), &locked.member, people).await?;
    locked.tell(notice::about(SystemNoticeType::Removed, &people)).await?;
    locked.end_memberships(&people, LeaveReason::Removed).await?;
    locked.commit().await
}

/// Returns those of these people who are in the chat, if the caller may remove them.
async fn check_removal(
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

/// Finds one current member of a chat.
pub(crate) async fn find_member(
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
