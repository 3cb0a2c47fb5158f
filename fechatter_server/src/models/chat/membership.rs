//! Memberships of chats: their rights, their beginning and their end.

use fechatter_core::chat::{Chat, ChatMember, ChatType};
use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::message::SystemNotice;
use fechatter_core::user::{Role, UserStatus};
use fechatter_core::{ChatId, Position, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor};

use crate::error::{AppError, Result};
use crate::models::chat::{lookup, notice, read_mark};
use crate::models::session::current_user::CurrentUser;

/// The maximum number of people in one request.
pub(crate) const MAX_USERS_PER_REQUEST: usize = 500;

/// The caller's membership of the chat in the path. A caller who is not in the chat gets
/// [`AppError::NotFound`], as for a chat that does not exist.
///
/// The rights of a member may change at any time, so every change requires a [`LockedMember`].
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) user: CurrentUser,
    pub(crate) chat_id: ChatId,
    pub(crate) chat_type: ChatType,
    pub(crate) owner_id: UserId,
    pub(crate) role: Role,
    is_archived: bool,
}

/// A membership that was looked up under the lock of the workspace's log, and the writer that holds
/// the lock. Its rights cannot change before the commit.
#[derive(Debug)]
pub(crate) struct LockedMember {
    pub(crate) writer: LogWriter,
    pub(crate) member: Member,
    _made_by_lock: (),
}

impl LockedMember {
    /// Ends memberships of the chat, each at the position of its event. The calling function has
    /// checked under the lock that these memberships are open and that the member may end them.
    pub(crate) async fn end_memberships(
        &mut self,
        people: &[UserId],
        reason: LeaveReason,
    ) -> Result<()> {
        let Member { user, chat_id, .. } = self.member;
        let memberships: Vec<_> = people.iter().map(|person| (chat_id, *person)).collect();
        let actor_and_reason = (user.id, reason);
        end_memberships(&mut self.writer, user.workspace_id, &memberships, actor_and_reason).await
    }

    /// Writes a system message about a change that the member makes in this transaction.
    pub(crate) async fn tell(&mut self, notice: SystemNotice) -> Result<()> {
        let Member { user, chat_id, .. } = self.member;
        notice::write(&mut self.writer, user.workspace_id, chat_id, user.id, notice).await
    }

    /// Writes the events and commits.
    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.writer.commit().await?)
    }
}

impl Member {
    pub(crate) async fn find(
        db: impl PgExecutor<'_>,
        user: CurrentUser,
        chat_id: ChatId,
    ) -> Result<Self> {
        let found = sqlx::query!(
            r#"select c.chat_type, c.owner_id, m.role, c.archived_at is not null as "is_archived!"
             from chats as c
             join chat_members as m on m.chat_id = c.id
             where c.workspace_id = $1
               and c.id = $2
               and c.deleted_at is null
               and m.user_id = $3
               and m.left_position is null"#,
            user.workspace_id as _,
            chat_id as _,
            user.id as _
        )
        .fetch_optional(db)
        .await?
        .ok_or(AppError::NotFound)?;
        let role = if found.owner_id == user.id { Role::Owner } else { found.role };
        Ok(Self {
            user,
            chat_id,
            chat_type: found.chat_type,
            owner_id: found.owner_id,
            role,
            is_archived: found.is_archived,
        })
    }

    /// Locks the log and looks the membership up again, because it may have changed since the
    /// request arrived.
    pub(crate) async fn lock(self, log: &Log) -> Result<LockedMember> {
        let (mut writer, user) = self.user.lock(log).await?;
        let member = Self::find(writer.db(), user, self.chat_id).await?;
        Ok(LockedMember { writer, member, _made_by_lock: () })
    }

    pub(crate) fn require_role(&self, role: Role) -> Result<()> {
        if self.role >= role { Ok(()) } else { Err(AppError::Forbidden) }
    }

    pub(crate) fn require_not_archived(&self) -> Result<()> {
        if self.is_archived { Err(AppError::Archived) } else { Ok(()) }
    }

    pub(crate) fn require_may_leave(&self) -> Result<()> {
        self.require_not_single()?;
        if self.role == Role::Owner { Err(AppError::OwnerMustTransfer) } else { Ok(()) }
    }

    pub(crate) fn require_not_single(&self) -> Result<()> {
        if self.chat_type == ChatType::Single { Err(AppError::SingleIsFixed) } else { Ok(()) }
    }
}

/// Begins the memberships of the people who are not yet in the chat, each at the position of its
/// event. The caller holds the log's lock and has checked the right to add people.
pub(crate) async fn add_members(
    writer: &mut LogWriter,
    workspace_id: WorkspaceId,
    chat_id: ChatId,
    people: &[UserId],
    actor_id: UserId,
) -> Result<Vec<ChatMember>> {
    let chat = lookup::find(writer.db(), workspace_id, chat_id).await?;
    let newcomers = find_non_members(writer.db(), chat_id, people).await?;
    let first_position = writer.next_position(workspace_id)?;
    let positions: Vec<_> = (first_position.0..).take(newcomers.len()).map(Position).collect();
    let joined = sqlx::query!(
        "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
         select $1, $2, newcomer.user_id, newcomer.position
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
    read_mark::begin(writer.db(), workspace_id, chat_id, &newcomers).await?;
    let added_count = i32::try_from(joined.len()).unwrap_or(i32::MAX);
    adjust_member_count(writer.db(), chat_id, added_count).await?;
    let member_count = chat.member_count + added_count;
    // The event does not repeat the list of members.
    let chat = Chat { chat_members: Vec::new(), member_count, ..chat };
    let mut members = Vec::with_capacity(joined.len());
    for row in joined {
        // `created_by` is the current owner, who may have left the workspace and joined it again.
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

/// Returns the users in `people` who are not in the chat, in the order of `people`, each once.
pub(crate) async fn find_non_members(
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

async fn adjust_member_count(db: &mut PgConnection, chat_id: ChatId, change: i32) -> Result<()> {
    sqlx::query!(
        "update chats set member_count = member_count + $2 where id = $1",
        chat_id as _,
        change
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends memberships, each at the position of its event. The caller holds the log's lock, and has
/// checked that the memberships are open and that the actor may end them.
pub(crate) async fn end_memberships(
    writer: &mut LogWriter,
    workspace_id: WorkspaceId,
    memberships: &[(ChatId, UserId)],
    (actor_id, reason): (UserId, LeaveReason),
) -> Result<()> {
    let (chats, people): (Vec<_>, Vec<_>) = memberships.iter().copied().unzip();
    let first_position = writer.next_position(workspace_id)?;
    let positions: Vec<_> = (first_position.0..).take(memberships.len()).map(Position).collect();
    let mut left = sqlx::query!(
        "update chat_members as m
         set left_position = leaver.position
         from unnest($1::bigint[], $2::bigint[], $3::bigint[])
             as leaver (chat_id, user_id, position)
         where m.chat_id = leaver.chat_id
           and m.user_id = leaver.user_id
           and m.left_position is null
         returning m.chat_id, m.user_id, m.joined_at, m.left_position",
        &chats as _,
        &people as _,
        &positions as _
    )
    .fetch_all(writer.db())
    .await?;
    left.sort_by_key(|row| row.left_position);
    sqlx::query!(
        "update chats as c
         set member_count = member_count - leavers.count
         from (
             select chat_id, count(*)::integer as count
             from unnest($1::bigint[]) as chat_id
             group by chat_id
         ) as leavers
         where c.id = leavers.chat_id",
        &chats as _
    )
    .execute(writer.db())
    .await?;
    for row in left {
        let event = Event::UserLeftChat {
            chat_id: row.chat_id,
            user_id: row.user_id,
            joined_at: row.joined_at,
            actor_id,
            reason,
        };
        writer.append(workspace_id, &event)?;
    }
    Ok(())
}

/// Returns [`AppError::UserNotFound`] unless all users in `people` are active in the workspace.
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

/// Returns the chats in `chats` to which the user may add members.
pub(crate) async fn filter_chats_user_can_add_members_to(
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
