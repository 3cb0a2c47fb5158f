//! Workspaces: creation, joining and changes.

pub(crate) mod audit;
pub(crate) mod avatar;
pub(crate) mod erasure;
pub(crate) mod invite;
pub(crate) mod lookup;
pub(crate) mod offboarding;
pub(crate) mod profile;
pub(crate) mod reset_link;
pub(crate) mod role;
pub(crate) mod setup;
pub(crate) mod status;

use crate::config::{Config, WorkspaceCreation};
use fechatter_core::chat::UNREAD_CAP;
use fechatter_core::db::begin;
use fechatter_core::event::Event;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{Role, User};
use fechatter_core::workspace::{JoinPolicy, Workspace};
use fechatter_core::{UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;

use crate::error::{AppError, OnConstraint, Result};
use crate::models::account::{user, words};
use crate::models::session;
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::audit::{Action, Author};
use crate::models::workspace::invite::Redeemed;
use crate::utils::json::not_null;
use crate::utils::key::{code_digest, skeleton_key, unique_key};
use crate::utils::text::WorkspaceName;

/// The indexes that keep a workspace's name unique, by each of its unique keys.
const UNIQUE_NAME: [&str; 2] = ["workspaces_name_unique", "workspaces_name_skeleton"];

/// A workspace of an account, with the account's role in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceWithRole {
    #[serde(flatten)]
    workspace: Workspace,
    role: Role,
    /// The number of the account's unread messages in it, counted up to 100.
    #[schema(minimum = 0, maximum = 100)]
    unread_count: i64,
    /// True if there are more than 100.
    unread_capped: bool,
    /// The number of these that mention the account's person or everybody, counted up to 100.
    #[schema(minimum = 0, maximum = 100)]
    mention_count: i64,
}

/// The changes that a workspace's owner or admin may make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspaceChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = WorkspaceName, required = false)]
    pub(crate) name: Option<WorkspaceName>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = JoinPolicy, required = false)]
    pub(crate) join_policy: Option<JoinPolicy>,
}

/// A request to join an existing workspace: by invite code or by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinRequest {
    invite_code: Option<String>,
    name: Option<WorkspaceName>,
}

/// Finds the workspace with this name. If the two keys match two workspaces, returns the one that
/// matches by `name_unique`.
pub(crate) async fn find_by_name(
    db: impl PgExecutor<'_>,
    name: &WorkspaceName,
) -> Result<Option<WorkspaceId>> {
    let id = sqlx::query_scalar!(
        "select id
         from workspaces
         where name_unique = $1
            or name_skeleton = $2
         order by name_unique = $1 desc
         limit 1",
        unique_key(name.as_str()),
        skeleton_key(name.as_str())
    )
    .fetch_optional(db)
    .await?;
    Ok(id)
}

/// Lists the workspaces in which an account is active. Those that have suspended it, or that are suspended
/// themselves, are left out.
pub(crate) async fn list(db: &PgPool, user_id: UserId) -> Result<Vec<WorkspaceWithRole>> {
    let rows = sqlx::query!(
        r#"select w as "workspace!: Workspace", m.role, read.unread as "unread!",
                  read.mentions as "mentions!"
           from workspace_members as m
           join workspace_objects as w on w.id = m.workspace_id and w.status = 'Active'
           cross join lateral (
               select coalesce(sum(unread), 0)::bigint as unread,
                      coalesce(sum(mentions), 0)::bigint as mentions
               from read_states(m.workspace_id, m.user_id, null, null, $2)
           ) as read
           where m.user_id = $1
             and m.status = 'Active'
           order by w.id"#,
        user_id as _,
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let workspaces = rows.into_iter().map(|row| WorkspaceWithRole {
        workspace: row.workspace,
        role: row.role,
        unread_count: row.unread.min(UNREAD_CAP),
        unread_capped: row.unread > UNREAD_CAP,
        mention_count: row.mentions.min(UNREAD_CAP),
    });
    Ok(workspaces.collect())
}

/// Creates a workspace with its log and its owner. Returns none if the name is taken.
pub(crate) async fn create(
    writer: &mut LogWriter,
    config: &Config,
    name: &WorkspaceName,
    owner: (UserId, &str),
) -> Result<Option<User>> {
    let (owner_id, fullname) = owner;
    check_owned(writer.db(), owner_id, config.limits.workspaces_per_person).await?;
    let created = sqlx::query_scalar!(
        "insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
         values ($1, $2, $3, $4, $5)
         on conflict do nothing
         returning id",
        name.as_str(),
        unique_key(name.as_str()),
        skeleton_key(name.as_str()),
        owner_id as _,
        config.accounts.join_policy as _
    )
    .fetch_optional(writer.db())
    .await?;
    let Some(id) = created else { return Ok(None) };
    writer.create_log(id).await?;
    insert_member(writer, id, (owner_id, fullname), Role::Owner).await.map(Some)
}

/// Refuses if an account owns the maximum number of workspaces.
async fn check_owned(db: &mut PgConnection, user_id: UserId, max: i64) -> Result<()> {
    // The lock makes concurrent requests of one account wait for each other.
    session::lock_account(&mut *db, user_id).await?;
    let owned = sqlx::query_scalar!(
        r#"select count(*) as "owned!"
           from workspace_members
           where user_id = $1 and role = 'owner' and left_at is null"#,
        user_id as _
    )
    .fetch_one(db)
    .await?;
    if owned < max { Ok(()) } else { Err(AppError::LimitReached("workspaces")) }
}

/// Creates a workspace for an account that already has one.
pub(crate) async fn create_another(
    log: &Log,
    config: &Config,
    caller: &CurrentUser,
    name: &WorkspaceName,
) -> Result<Workspace> {
    let mut writer = LogWriter::begin(log).await?;
    caller.recheck(writer.db()).await?;
    check_creation(writer.db(), config.accounts.workspace_creation, None).await?;
    let fullname = user::find(writer.db(), caller.workspace_id, caller.id).await?.fullname;
    let owner = create(&mut writer, config, name, (caller.id, &fullname)).await?;
    let owner = owner.ok_or(AppError::WorkspaceTaken)?;
    let workspace = lookup::find(writer.db(), owner.workspace_id).await?;
    let author = Author::Person(caller.id);
    audit::record(writer.db(), workspace.id, author, Action::CreatedWorkspace).await?;
    writer.commit().await?;
    Ok(workspace)
}

/// Adds an account to a workspace by invite or, if the workspace is open, by name. The flag is true
/// if the account was not in the workspace before.
pub(crate) async fn join(
    log: &Log,
    caller: &CurrentUser,
    request: JoinRequest,
) -> Result<(Workspace, bool)> {
    let (id, join_by) = find_target(log.db(), &request).await?;
    let mut db = log.db().acquire().await?;
    if is_in(&mut db, id, caller.id).await? {
        let workspace = lookup::find(&mut *db, id).await?;
        return if workspace.status.is_active() {
            Ok((workspace, false))
        } else {
            Err(AppError::WorkspaceSuspended)
        };
    }
    drop(db);
    let current = user::find(log.db(), caller.workspace_id, caller.id).await?;
    check_join(log.db(), id, &join_by, &current.email).await?;
    let mut writer = LogWriter::lock(log, &[id]).await?;
    session::lock_account(writer.db(), caller.id).await?;
    caller.recheck(writer.db()).await?;
    let is_new = !is_in(writer.db(), id, caller.id).await?;
    if is_new {
        let grant = authorize(writer.db(), id, &join_by, &current.email).await?;
        add_member(&mut writer, id, grant, (caller.id, &current.fullname)).await?;
    }
    let workspace = lookup::find(writer.db(), id).await?;
    writer.commit().await?;
    Ok((workspace, is_new))
}

async fn find_target(db: &PgPool, request: &JoinRequest) -> Result<(WorkspaceId, JoinBy)> {
    match (&request.invite_code, &request.name) {
        (Some(code), None) => {
            let digest = code_digest(code);
            let id = invite::workspace_of(db, &digest).await?;
            Ok((id.ok_or(AppError::InviteInvalid)?, JoinBy::Invite(digest)))
        }
        // An unknown name gets the same error as a closed workspace, so that outsiders cannot learn
        // which names exist.
        (None, Some(name)) => {
            let id = find_by_name(db, name).await?;
            Ok((id.ok_or(AppError::InviteRequired)?, JoinBy::Name))
        }
        _ => Err(AppError::invalid("body", "needs either invite_code or name")),
    }
}

/// Returns true if an account is in a workspace. Refuses an account that is suspended there, or
/// whose offboarding is unfinished.
pub(crate) async fn is_in(db: &mut PgConnection, id: WorkspaceId, user_id: UserId) -> Result<bool> {
    match user::find(&mut *db, id, user_id).await {
        Ok(user) => session::require_active(user).map(|_| true),
        Err(AppError::NotFound) => {
            offboarding::check_finished(db, id, user_id).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The way to join an existing workspace.
#[derive(Debug)]
pub(crate) enum JoinBy {
    /// By its name.
    Name,
    /// By the digest of an invite's code.
    Invite(Vec<u8>),
}

/// The right to join a workspace: the role and, for an invite, the invite with its chats.
pub(crate) struct JoinGrant {
    role: Role,
    invite: Option<Redeemed>,
}

/// Checks that the person with this e-mail address may join, and uses the invite. The caller holds
/// the lock of the workspace's log.
pub(crate) async fn authorize(
    db: &mut PgConnection,
    id: WorkspaceId,
    join_by: &JoinBy,
    email: &str,
) -> Result<JoinGrant> {
    let Workspace { join_policy, status, .. } = lookup::find(&mut *db, id).await?;
    match join_by {
        JoinBy::Name if !status.is_active() => Err(AppError::InviteRequired),
        JoinBy::Name => match join_policy {
            JoinPolicy::Open => Ok(JoinGrant { role: Role::Member, invite: None }),
            JoinPolicy::Invite => Err(AppError::InviteRequired),
        },
        JoinBy::Invite(_) if !status.is_active() => Err(AppError::WorkspaceSuspended),
        JoinBy::Invite(digest) => {
            let invite = invite::redeem(db, id, digest, email).await?;
            Ok(JoinGrant { role: invite.role, invite: Some(invite) })
        }
    }
}

/// Checks the same as [`authorize`], but neither uses the invite nor locks the log, so that refused
/// requests do not delay others.
pub(crate) async fn check_join(
    db: &PgPool,
    id: WorkspaceId,
    join_by: &JoinBy,
    email: &str,
) -> Result<()> {
    let mut tx = begin(db, "begin").await?;
    authorize(&mut tx, id, join_by, email).await?;
    // The rollback undoes the use of the invite, which is used only when all checks have passed.
    Ok(tx.rollback().await?)
}

/// Adds a person to the workspace, and to the chats of the invite.
pub(crate) async fn add_member(
    writer: &mut LogWriter,
    id: WorkspaceId,
    grant: JoinGrant,
    person: (UserId, &str),
) -> Result<User> {
    let user = insert_member(writer, id, person, grant.role).await?;
    if let Some(invite) = grant.invite {
        invite.join_chats(writer, user.id).await?;
    }
    Ok(user)
}

async fn insert_member(
    writer: &mut LogWriter,
    id: WorkspaceId,
    (user_id, fullname): (UserId, &str),
    role: Role,
) -> Result<User> {
    sqlx::query!(
        "insert into workspace_members as m (workspace_id, user_id, fullname, role)
         values ($1, $2, $3, $4)
         on conflict (workspace_id, user_id) do update
         set fullname = excluded.fullname,
             role = excluded.role,
             status = 'Active',
             left_at = null,
             joined_at = clock_timestamp()
         where m.left_at is not null",
        id as _,
        user_id as _,
        fullname,
        role as _
    )
    .execute(writer.db())
    .await?;
    let user = user::find(writer.db(), id, user_id).await?;
    words::store(writer.db(), &user).await?;
    writer.append(id, &Event::UserJoinedWorkspace(user.clone()))?;
    Ok(user)
}

/// Changes the caller's workspace.
pub(crate) async fn update(
    log: &Log,
    caller: &CurrentUser,
    changes: WorkspaceChanges,
) -> Result<Workspace> {
    let id = caller.workspace_id;
    caller.require_role(Role::Admin)?;
    if let Some(name) = &changes.name {
        refuse_taken(log.db(), id, name).await?;
    }
    let (mut writer, caller) = caller.lock(log).await?;
    caller.require_role(Role::Admin)?;
    let workspace = change(&mut writer, Author::Person(caller.id), id, changes).await?;
    writer.commit().await?;
    Ok(workspace)
}

/// Changes a workspace. If it is already so, there is no event. The caller holds the lock of its log.
pub(crate) async fn change(
    writer: &mut LogWriter,
    author: Author<'_>,
    id: WorkspaceId,
    changes: WorkspaceChanges,
) -> Result<Workspace> {
    let name = changes.name.as_ref().map(WorkspaceName::as_str);
    let before = lookup::find(writer.db(), id).await?;
    if name.is_none_or(|name| name == before.name)
        && changes.join_policy.is_none_or(|policy| policy == before.join_policy)
    {
        return Ok(before);
    }
    sqlx::query!(
        "update workspaces
         set name = coalesce($2, name),
             name_unique = coalesce($3, name_unique),
             name_skeleton = coalesce($4, name_skeleton),
             join_policy = coalesce($5, join_policy)
         where id = $1",
        id as _,
        name,
        name.map(unique_key),
        name.map(skeleton_key),
        changes.join_policy as _
    )
    .execute(writer.db())
    .await
    .on_constraint(&UNIQUE_NAME, AppError::WorkspaceTaken)?;
    let workspace = lookup::find(writer.db(), id).await?;
    writer.append(id, &Event::WorkspaceUpdated(workspace.clone()))?;
    let action = Action::ChangedWorkspace {
        name: name.map(ToOwned::to_owned),
        join_policy: changes.join_policy,
    };
    audit::record(writer.db(), id, author, action).await?;
    Ok(workspace)
}

/// Lists all workspaces, for the operator.
pub(crate) async fn list_all(db: &PgPool) -> Result<Vec<Workspace>> {
    let workspaces = sqlx::query_scalar!(
        r#"select w as "workspace!: Workspace" from workspace_objects as w order by id"#
    )
    .fetch_all(db)
    .await?;
    Ok(workspaces)
}

/// Refuses a name that another workspace has, before the log is locked.
async fn refuse_taken(db: &PgPool, id: WorkspaceId, name: &WorkspaceName) -> Result<()> {
    let is_taken = sqlx::query_scalar!(
        r#"select exists (
               select 1 from workspaces
               where id <> $1
                 and (name_unique = $2 or name_skeleton = $3)
           ) as "is_taken!""#,
        id as _,
        unique_key(name.as_str()),
        skeleton_key(name.as_str())
    )
    .fetch_one(db)
    .await?;
    if is_taken { Err(AppError::WorkspaceTaken) } else { Ok(()) }
}

/// Returns true if the policy allows a new workspace at the moment.
pub(crate) async fn can_create(db: &PgPool, policy: WorkspaceCreation) -> Result<bool> {
    match policy {
        WorkspaceCreation::Anyone => Ok(true),
        WorkspaceCreation::Nobody => Ok(false),
        WorkspaceCreation::FirstOnly => is_first(db).await,
    }
}

/// Returns true if there is no workspace yet.
pub(crate) async fn is_first(db: impl PgExecutor<'_>) -> Result<bool> {
    let is_first =
        sqlx::query_scalar!(r#"select not exists (select 1 from workspaces) as "is_first!""#);
    Ok(is_first.fetch_one(db).await?)
}

/// Refuses if the policy does not allow a new workspace. Where only the first one may be created, it
/// needs the operator's code.
pub(crate) async fn check_creation(
    db: &mut PgConnection,
    policy: WorkspaceCreation,
    setup_code: Option<&str>,
) -> Result<()> {
    match policy {
        WorkspaceCreation::Anyone => Ok(()),
        WorkspaceCreation::Nobody => Err(AppError::WorkspaceCreationClosed),
        WorkspaceCreation::FirstOnly => {
            // The lock makes requests wait for each other, so that only one can create the first
            // workspace.
            sqlx::query!("select pg_advisory_xact_lock(hashtext('the first workspace'))")
                .fetch_one(&mut *db)
                .await?;
            if !is_first(&mut *db).await? {
                return Err(AppError::WorkspaceCreationClosed);
            }
            setup::check(db, setup_code).await
        }
    }
}
