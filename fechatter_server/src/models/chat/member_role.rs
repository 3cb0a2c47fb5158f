//! Changes of a member: a new role, or the transfer of the chat's ownership.

use fechatter_core::chat::{Chat, ChatMember, ChatType};
use fechatter_core::config::LimitsConfig;
use fechatter_core::event::Event;
use fechatter_core::log::Log;
use fechatter_core::message::SystemNoticeType;
use fechatter_core::user::Role;
use fechatter_core::{ChatId, UserId};
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::chat;
use crate::models::chat::member::find_member;
use crate::models::chat::membership::{Member, check_active};
use crate::models::chat::{lookup, notice};
use crate::models::session::current_user::CurrentUser;
use crate::utils::json::not_null;

/// The body of `PATCH …/members/{member_id}`. A request without a body transfers the ownership.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberChange {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = MemberOperation, required = false)]
    operation: Option<MemberOperation>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = GivenRole, required = false)]
    role: Option<GivenRole>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MemberOperation {
    TransferOwnership,
}

/// A role that an owner can give.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GivenRole {
    /// May add and remove members, and change the chat.
    Admin,
    /// May read and send messages.
    Member,
}

/// The result of changing a member.
#[derive(Debug)]
pub(crate) enum Changed {
    Transferred,
    Role(ChatMember),
}

/// Transfers a chat to another member, or changes a member's role.
pub(crate) async fn change(
    (log, limits): (&Log, &LimitsConfig),
    user: CurrentUser,
    (chat_id, target): (ChatId, UserId),
    change: Option<MemberChange>,
) -> Result<Changed> {
    match change {
        None
        | Some(MemberChange { operation: Some(MemberOperation::TransferOwnership), role: None }) => {
            transfer((log, limits), user, chat_id, target).await?;
            Ok(Changed::Transferred)
        }
        Some(MemberChange { operation: None, role: Some(role) }) => {
            set_role(log, user, chat_id, target, role).await.map(Changed::Role)
        }
        Some(_) => Err(AppError::invalid("body", "needs either operation or role")),
    }
}

async fn transfer(
    (log, limits): (&Log, &LimitsConfig),
    user: CurrentUser,
    chat_id: ChatId,
    target: UserId,
) -> Result<()> {
    let workspace_id = user.workspace_id;
    let mut db = log.db().acquire().await?;
    if find_transferable(&mut db, user, chat_id, target).await?.is_none() {
        return Ok(());
    }
    drop(db);
    let (mut writer, user) = user.lock(log).await?;
    let Some(chat) = find_transferable(writer.db(), user, chat_id, target).await? else {
        return Ok(());
    };
    chat::check_owned(writer.db(), workspace_id, target, limits).await?;
    // The old owner becomes a plain member, because a transfer gives up all rights to the chat.
    sqlx::query!(
        "with demoted as (
             update chat_members set role = 'member'
             where chat_id = $1 and user_id in ($2, $3) and left_position is null
         )
         update chats set owner_id = $3, updated_at = clock_timestamp() where id = $1",
        chat_id as _,
        chat.created_by as _,
        target as _
    )
    .execute(writer.db())
    .await?;
    let updated = lookup::find(writer.db(), workspace_id, chat_id).await?;
    writer.append(workspace_id, &Event::ChatUpdated(updated))?;
    for person in [chat.created_by, target] {
        if let Some(member) = find_member(writer.db(), chat_id, person).await? {
            writer.append(workspace_id, &Event::MemberUpdated(member))?;
        }
    }
    let notice = notice::about(SystemNoticeType::Transferred, &[target]);
    notice::write(&mut writer, workspace_id, chat_id, user.id, notice).await?;
    Ok(writer.commit().await?)
}

/// Returns the chat if the caller may transfer it to this member, or none if this member already
/// owns it.
async fn find_transferable(
    db: &mut PgConnection,
    user: CurrentUser,
    chat_id: ChatId,
    target: UserId,
) -> Result<Option<Chat>> {
    let chat = find_if_may_transfer(&mut *db, user, chat_id).await?;
    if chat.chat_type == ChatType::Single {
        return Err(AppError::SingleIsFixed);
    }
    let new_owner =
        find_member(&mut *db, chat_id, target).await?.ok_or(AppError::NotAChatMember)?;
    if check_active(db, user.workspace_id, &[target]).await.is_err() {
        return Err(AppError::NotAChatMember);
    }
    Ok((new_owner.role != Role::Owner).then_some(chat))
}

/// Returns the chat if the caller may transfer it. The chat's owner may. If this owner is suspended
/// or has left, the workspace's owners and admins may, too.
async fn find_if_may_transfer(
    db: &mut PgConnection,
    user: CurrentUser,
    chat_id: ChatId,
) -> Result<Chat> {
    let membership = Member::find(&mut *db, user, chat_id).await;
    if let Ok(Member { role: Role::Owner, .. }) = membership {
        return lookup::find(db, user.workspace_id, chat_id).await;
    }
    if user.role >= Role::Admin {
        let chat = lookup::find(&mut *db, user.workspace_id, chat_id).await?;
        if chat.chat_type == ChatType::Single {
            return membership.and(Err(AppError::SingleIsFixed));
        }
        let active = check_active(&mut *db, user.workspace_id, &[chat.created_by]).await;
        let is_owner_member = find_member(db, chat_id, chat.created_by).await?.is_some();
        if matches!(active, Err(AppError::UserNotFound)) || !is_owner_member {
            return Ok(chat);
        }
    }
    match membership {
        // The ownership of a Single cannot be transferred by any person.
        Ok(member) => member.require_not_single().and(Err(AppError::Forbidden)),
        Err(error) => Err(error),
    }
}

async fn set_role(
    log: &Log,
    user: CurrentUser,
    chat_id: ChatId,
    target: UserId,
    role: GivenRole,
) -> Result<ChatMember> {
    let role = match role {
        GivenRole::Admin => Role::Admin,
        GivenRole::Member => Role::Member,
    };
    let mut db = log.db().acquire().await?;
    let before = find_changeable(&mut db, user, chat_id, target).await?;
    if before.role == role {
        return Ok(before);
    }
    drop(db);
    let (mut writer, user) = user.lock(log).await?;
    let before = find_changeable(writer.db(), user, chat_id, target).await?;
    sqlx::query!(
        "update chat_members set role = $3
         where chat_id = $1 and user_id = $2 and left_position is null",
        chat_id as _,
        target as _,
        role as _
    )
    .execute(writer.db())
    .await?;
    let after = ChatMember { role, ..before };
    let event = Event::MemberUpdated(after.clone());
    writer.append(user.workspace_id, &event)?;
    writer.commit().await?;
    Ok(after)
}

/// Returns the member, if the caller may change their role.
async fn find_changeable(
    db: &mut PgConnection,
    user: CurrentUser,
    chat_id: ChatId,
    target: UserId,
) -> Result<ChatMember> {
    let member = Member::find(&mut *db, user, chat_id).await?;
    member.require_not_single()?;
    member.require_role(Role::Owner)?;
    if target == member.owner_id {
        return Err(AppError::OwnerMustTransfer);
    }
    find_member(db, chat_id, target).await?.ok_or(AppError::NotAChatMember)
}
