//! Invites to a workspace.

use crate::config::Config;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use fechatter_core::clock::Clock;
use fechatter_core::db::begin;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::message::SystemNoticeType;
use fechatter_core::user::Role;
use fechatter_core::{ChatId, InviteId, Timestamp, UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::chat::{membership, notice};
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::audit::{self, Action, Author};
use crate::utils::key::{code_digest, key};
use crate::utils::page::Page;
use crate::utils::text::Email;

/// The longest validity of an invite.
const MAX_DAYS: i64 = 365;

/// An invite, without its code.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invite {
    id: InviteId,
    email: Option<String>,
    role: Role,
    chat_ids: Vec<ChatId>,
    max_uses: i32,
    uses: i32,
    pub(crate) expires_at: Timestamp,
    created_by: UserId,
    created_at: Timestamp,
}

/// A new invite with its code, which is shown only once, to its creator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewInvite {
    #[serde(flatten)]
    pub(crate) invite: Invite,
    code: String,
    pub(crate) url: String,
}

/// The request to create an invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteDraft {
    email: Option<Email>,
    role: Option<Role>,
    chat_ids: Option<Vec<ChatId>>,
    #[schema(minimum = 1, maximum = 10_000, default = 1)]
    max_uses: Option<i32>,
    expires_at: Option<Timestamp>,
}

/// An invite as anybody who has its code sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InvitePreview {
    workspace_name: String,
    inviter_name: String,
    expires_at: Timestamp,
}

/// An invite that is being used.
pub(crate) struct Redeemed {
    pub(crate) role: Role,
    workspace_id: WorkspaceId,
    chat_ids: Vec<ChatId>,
    created_by: UserId,
}

/// Creates an invite with at most the caller's role, to chats that the caller may add people to.
pub(crate) async fn create(
    log: &Log,
    caller: &CurrentUser,
    config: &Config,
    clock: &Clock,
    draft: InviteDraft,
) -> Result<NewInvite> {
    draft.check(clock)?;
    let mut db = log.db().acquire().await?;
    check_inviting(&mut db, caller, &draft).await?;
    drop(db);
    let (mut writer, caller) = caller.lock(log).await?;
    check_inviting(writer.db(), &caller, &draft).await?;
    check_usable_invites_limit(writer.db(), &caller, config.limits.invites_per_person).await?;
    let inviter = (caller.workspace_id, caller.id);
    let author = Author::Person(caller.id);
    let invite = insert(writer.db(), inviter, author, config, draft).await?;
    writer.commit().await?;
    Ok(invite)
}

/// Creates an invite in a person's name. It can be used as long as they may give its role.
pub(crate) async fn insert(
    db: &mut PgConnection,
    (workspace_id, inviter): (WorkspaceId, UserId),
    author: Author<'_>,
    config: &Config,
    draft: InviteDraft,
) -> Result<NewInvite> {
    let code = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
    let email = draft.email.as_ref().map(Email::as_str);
    let (role, max_uses) = (draft.role(), draft.max_uses());
    let invite = sqlx::query_as!(
        Invite,
        "insert into invites (workspace_id, code_digest, email, email_key, role, chat_ids,
                              max_uses, expires_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, coalesce($8, clock_timestamp() + interval '7 days'), $9)
         returning id, email, role, chat_ids, max_uses, uses, expires_at, created_by, created_at",
        workspace_id as _,
        code_digest(&code),
        email,
        email.map(key),
        role as _,
        draft.chat_ids() as _,
        max_uses,
        draft.expires_at as _,
        inviter as _
    )
    .fetch_one(&mut *db)
    .await?;
    let created = Action::CreatedInvite { invite: invite.id, role, max_uses };
    audit::record(db, workspace_id, author, created).await?;
    let url = format!("{}/join/{code}", config.server.public_url);
    Ok(NewInvite { invite, code, url })
}

/// Refuses unless the caller may give this role and may add people to these chats.
async fn check_inviting(
    db: &mut PgConnection,
    caller: &CurrentUser,
    draft: &InviteDraft,
) -> Result<()> {
    if draft.role() > caller.role {
        return Err(AppError::Forbidden);
    }
    let chat_ids = draft.chat_ids();
    let allowed = membership::filter_chats_user_can_add_members_to(
        db,
        (caller.workspace_id, caller.id),
        chat_ids,
    )
    .await?;
    let all = chat_ids.iter().all(|id| allowed.contains(id));
    if all { Ok(()) } else { Err(AppError::NotFound) }
}

/// Fails if the caller already has `max` usable invites (not expired, with uses left).
async fn check_usable_invites_limit(
    db: impl PgExecutor<'_>,
    caller: &CurrentUser,
    max: i64,
) -> Result<()> {
    let usable = sqlx::query_scalar!(
        r#"select count(*) as "open!"
           from (
               select 1 from invites
               where workspace_id = $1
                 and created_by = $2
                 and expires_at > clock_timestamp()
                 and uses < max_uses
               limit $3
           ) as counted"#,
        caller.workspace_id as _,
        caller.id as _,
        max
    )
    .fetch_one(db)
    .await?;
    if usable < max { Ok(()) } else { Err(AppError::LimitReached("invites")) }
}

/// Lists the invites that the caller may see, newest first: all for an owner or admin, their own
/// for a member.
pub(crate) async fn list(
    db: &PgPool,
    caller: &CurrentUser,
    page: Page<1>,
) -> Result<(Vec<Invite>, Option<String>)> {
    let [before] = page.after.unwrap_or([i64::MAX]);
    let mut invites = sqlx::query_as!(
        Invite,
        "select id, email, role, chat_ids, max_uses, uses, expires_at, created_by, created_at
         from invites
         where workspace_id = $1
           and id < $2
           and (created_by = $3 or $4)
         order by id desc
         limit $5",
        caller.workspace_id as _,
        before,
        caller.id as _,
        caller.role >= Role::Admin,
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut invites, |invite| [invite.id.0]);
    Ok((invites, next))
}

/// Withdraws an invite that the caller may see.
pub(crate) async fn delete(db: &PgPool, caller: &CurrentUser, id: InviteId) -> Result<()> {
    let mut tx = begin(db, "begin").await?;
    let deleted = sqlx::query!(
        "delete from invites where workspace_id = $1 and id = $2 and (created_by = $3 or $4)",
        caller.workspace_id as _,
        id as _,
        caller.id as _,
        caller.role >= Role::Admin
    )
    .execute(&mut *tx)
    .await?;
    if deleted.rows_affected() == 0 {
        return Err(AppError::NotFound);
    }
    let author = Author::Person(caller.id);
    audit::record(&mut *tx, caller.workspace_id, author, Action::DeletedInvite(id)).await?;
    Ok(tx.commit().await?)
}

/// Returns the workspace of the invite with this code, if the invite exists.
pub(crate) async fn workspace_of(
    db: impl PgExecutor<'_>,
    digest: &[u8],
) -> Result<Option<WorkspaceId>> {
    let id = sqlx::query_scalar!("select workspace_id from invites where code_digest = $1", digest)
        .fetch_optional(db)
        .await?;
    Ok(id)
}

/// Returns what the holder of a code may see of its invite, if it can still be used.
pub(crate) async fn preview(db: &PgPool, code: &str) -> Result<InvitePreview> {
    let found = sqlx::query_as!(
        InvitePreview,
        r#"select w.name as "workspace_name!", inviter.fullname as inviter_name, i.expires_at
         from invites as i
         join workspace_objects as w on w.id = i.workspace_id and w.status = 'Active'
         join workspace_members as inviter
             on inviter.workspace_id = i.workspace_id and inviter.user_id = i.created_by
         where i.code_digest = $1
           and i.uses < i.max_uses
           and i.expires_at > clock_timestamp()
           and inviter.status = 'Active'
           and (i.role in ('member', inviter.role) or inviter.role = 'owner')"#,
        code_digest(code)
    )
    .fetch_optional(db)
    .await?;
    found.ok_or(AppError::NotFound)
}

/// Adds one use to the invite and returns it. Fails if the invite has expired or has no uses left,
/// if it is restricted to another e-mail address, or if its creator may no longer give its role.
pub(crate) async fn redeem(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    digest: &[u8],
    email: &str,
) -> Result<Redeemed> {
    let redeemed = sqlx::query_as!(
        Redeemed,
        "update invites
         set uses = uses + 1
         where workspace_id = $1
           and code_digest = $2
           and uses < max_uses
           and expires_at > clock_timestamp()
           and (email_key is null or email_key = $3)
           and exists (
               select 1 from workspace_members as inviter
               where inviter.workspace_id = $1
                 and inviter.user_id = invites.created_by
                 and inviter.status = 'Active'
                 and (invites.role in ('member', inviter.role) or inviter.role = 'owner')
           )
         returning role, workspace_id, chat_ids, created_by",
        workspace_id as _,
        digest,
        key(email)
    )
    .fetch_optional(db)
    .await?;
    redeemed.ok_or(AppError::InviteInvalid)
}

impl InviteDraft {
    /// The draft of an invite with this role, for this number of people.
    pub(crate) fn new(role: Role, max_uses: i32, email: Option<Email>) -> Self {
        Self { email, role: Some(role), chat_ids: None, max_uses: Some(max_uses), expires_at: None }
    }

    fn role(&self) -> Role {
        self.role.unwrap_or(Role::Member)
    }

    fn max_uses(&self) -> i32 {
        self.max_uses.unwrap_or(1)
    }

    fn chat_ids(&self) -> &[ChatId] {
        self.chat_ids.as_deref().unwrap_or_default()
    }

    /// Refuses numbers and times beyond the limits.
    pub(crate) fn check(&self, clock: &Clock) -> Result<()> {
        let now = clock.now();
        if self
            .expires_at
            .is_some_and(|Timestamp(at)| at <= now || at > now + TimeDelta::days(MAX_DAYS))
        {
            return Err(AppError::invalid("expires_at", "must be within the next 365 days"));
        }
        if !(1..=10_000).contains(&self.max_uses()) {
            return Err(AppError::invalid("max_uses", "must be a number from 1 to 10000"));
        }
        if self.chat_ids().len() > 100 {
            return Err(AppError::invalid("chat_ids", "must have at most 100 ids"));
        }
        Ok(())
    }

    /// Returns the number of chats in the request.
    pub(crate) fn id_count(&self) -> usize {
        self.chat_ids.as_ref().map_or(0, Vec::len)
    }
}

impl Redeemed {
    /// Adds the new person to the invite's chats that still exist and that the invite's creator may
    /// still add people to.
    pub(crate) async fn join_chats(&self, writer: &mut LogWriter, user_id: UserId) -> Result<()> {
        let inviter = (self.workspace_id, self.created_by);
        for chat_id in
            membership::filter_chats_user_can_add_members_to(writer.db(), inviter, &self.chat_ids)
                .await?
        {
            let (newcomer, workspace_id, actor) = ([user_id], self.workspace_id, self.created_by);
            let added =
                membership::add_members(writer, workspace_id, chat_id, &newcomer, actor).await?;
            if !added.is_empty() {
                let notice = notice::about(SystemNoticeType::Added, &newcomer);
                notice::write(writer, workspace_id, chat_id, actor, notice).await?;
            }
        }
        Ok(())
    }
}
