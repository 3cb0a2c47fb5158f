//! Sessions: a sign-in on a device, which is prolonged by rotating refresh tokens.

pub(crate) mod actor;
pub(crate) mod authentication;
pub(crate) mod credential_change;
pub(crate) mod current_user;
pub(crate) mod list;
pub(crate) mod password_reset;

use fechatter_core::db::begin;
use fechatter_core::event::Event;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{User, UserStatus};
use fechatter_core::workspace::Workspace;
use fechatter_core::{SessionId, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::models::account::device::Device;
use crate::models::account::user;
use crate::services::limits::{Caller, RequestLimits};
use crate::services::refresh_token::RefreshToken;

/// A session, with its person and their workspace.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: RefreshToken,
    pub(crate) user: User,
    pub(crate) workspace: Workspace,
}

/// Opens a session for an account in this workspace, or else in the workspace that it used last.
/// The session lasts 30 days at most. Also returns the number of sessions that the account now has.
pub(crate) async fn open(
    db: &mut PgConnection,
    (user_id, workspace_id): (UserId, Option<WorkspaceId>),
    device: &Device,
) -> Result<(Session, i64)> {
    let id = SessionId(Uuid::now_v7());
    let row = sqlx::query!(
        r#"with used as (
               select use_workspace($2, $3, null) as workspace_id
           ), session as (
               insert into sessions (id, user_id, workspace_id, expires_at, user_agent, ip)
               select $1, $2, workspace_id, clock_timestamp() + interval '30 days', $4, $5
               from used
               where workspace_id is not null
           )
           select u as "user!: User", w as "workspace!: Workspace",
                  (select count(*)
                   from sessions as s
                   where s.user_id = $2
                     and s.revoked_at is null
                     and s.expires_at > clock_timestamp()
                     and s.rotated_at > clock_timestamp() - interval '14 days') as "others!"
           from used
           join user_objects as u on u.workspace_id = used.workspace_id and u.id = $2
           join workspace_objects as w on w.id = used.workspace_id"#,
        id as _,
        user_id as _,
        workspace_id as _,
        device.user_agent.as_deref(),
        device.address.to_string()
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Err(no_workspace(db, user_id, workspace_id).await?) };
    let token = RefreshToken { session_id: id, generation: 1 };
    Ok((Session { token, user: row.user, workspace: row.workspace }, row.others + 1))
}

/// Exchanges a refresh token for the next one.
///
/// For 30 s, the direct predecessor of the current token also gets the current token, because a
/// response may be lost and two tabs may refresh at once. An older token must have been copied, so
/// it ends the session.
pub(crate) async fn refresh(
    (db, log): (&PgPool, &Log),
    limits: &RequestLimits,
    device: &Device,
    token: RefreshToken,
    workspace_id: Option<WorkspaceId>,
) -> Result<Session> {
    // Before the first query, the rate limit counts for the session. After it, the person is known
    // and the rate limit also counts for the person.
    limits.take(Caller::Session(token.session_id))?;
    let permit = limits.connection_for_authentication(Caller::Address(device.network())).await?;
    let mut tx = begin(db, "begin").await?;
    let found = sqlx::query!(
        r#"select user_id, workspace_id, generation,
                  rotated_at > clock_timestamp() - interval '30 seconds' as "fresh!"
           from sessions
           where id = $1
             and revoked_at is null
             and expires_at > clock_timestamp()
             and rotated_at > clock_timestamp() - interval '14 days'
           for no key update"#,
        token.session_id as _
    )
    .fetch_optional(&mut *tx)
    .await?
    .ok_or(AppError::RefreshInvalid)?;
    limits.take(Caller::Person(found.user_id))?;
    let is_current = found.generation == token.generation;
    let is_predecessor = found.generation.checked_sub(1) == Some(token.generation) && found.fresh;
    if !is_current && !is_predecessor {
        tx.rollback().await?;
        drop(permit);
        let caller = Caller::Person(found.user_id);
        let _permit = limits.connection_in(found.workspace_id, caller).await?;
        revoke(db, log, found.user_id, Selection::One(token.session_id)).await?;
        return Err(AppError::RefreshReused);
    }
    let generation = found.generation + i32::from(is_current);
    let token = RefreshToken { generation, ..token };
    let choice = match workspace_id {
        Some(id) => WorkspaceChoice::Only(id),
        None => WorkspaceChoice::LastUsed(found.workspace_id),
    };
    let session = switch_workspace(&mut tx, token, found.user_id, choice).await?;
    tx.commit().await?;
    Ok(session)
}

/// Switches a session to another workspace of its account.
pub(crate) async fn switch(
    db: &PgPool,
    session_id: SessionId,
    user_id: UserId,
    workspace_id: WorkspaceId,
) -> Result<Session> {
    let mut db = db.acquire().await?;
    // The refresh token stays as it is, so its generation is not needed.
    let token = RefreshToken { session_id, generation: 0 };
    switch_workspace(&mut db, token, user_id, WorkspaceChoice::Only(workspace_id)).await
}

/// The workspace to which a session switches.
#[derive(Debug, Clone, Copy)]
enum WorkspaceChoice {
    Only(WorkspaceId),
    /// This one, or else the one that the account used last.
    LastUsed(WorkspaceId),
}

/// A selection of an account's sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Selection {
    One(SessionId),
    All,
    /// All except this one.
    Others(SessionId),
    /// All except this number of most recently used ones.
    BeyondNewest(i64),
}

/// Ends sessions of an account, and returns their ids. Sessions that have ended already do not
/// change.
///
/// The account's event streams in every workspace receive the event, so the logs of all these
/// workspaces are locked in one step, unless there is nothing to end. The caller holds a
/// connection permit within the quota of one workspace.
pub(crate) async fn revoke(
    db: &PgPool,
    log: &Log,
    user_id: UserId,
    selection: Selection,
) -> Result<Vec<SessionId>> {
    if find_active(db, user_id, selection).await?.is_empty() {
        return Ok(Vec::new());
    }
    let (mut writer, workspaces) = lock_everywhere(db, log, user_id).await?;
    let ended = end(&mut writer, user_id, &workspaces, selection).await?;
    writer.commit().await?;
    Ok(ended)
}

/// Locks the logs of all workspaces of an account, and then the account. Also returns the workspaces.
pub(crate) async fn lock_everywhere(
    db: &PgPool,
    log: &Log,
    user_id: UserId,
) -> Result<(LogWriter, Vec<WorkspaceId>)> {
    let mut workspaces = workspaces_of(db, user_id).await?;
    loop {
        let mut writer = LogWriter::lock(log, &workspaces).await?;
        lock_account(writer.db(), user_id).await?;
        let current = workspaces_of(writer.db(), user_id).await?;
        if current == workspaces {
            return Ok((writer, workspaces));
        }
        // The account has joined or left a workspace while this waited for the locks.
        workspaces = current;
    }
}

/// Ends sessions of an account, with one event in each of these workspaces, which are all of the
/// account's. The caller holds the locks of their logs and of the account.
pub(crate) async fn end(
    writer: &mut LogWriter,
    user_id: UserId,
    workspaces: &[WorkspaceId],
    selection: Selection,
) -> Result<Vec<SessionId>> {
    let session_ids = find_active(writer.db(), user_id, selection).await?;
    let Some(&session_id) = session_ids.first() else { return Ok(session_ids) };
    sqlx::query!(
        "update sessions set revoked_at = clock_timestamp() where id = any($1)",
        &session_ids as _
    )
    .execute(writer.db())
    .await?;
    let event = Event::SessionRevoked { user_id, session_id, session_ids: session_ids.clone() };
    for workspace_id in workspaces {
        writer.append(*workspace_id, &event)?;
    }
    Ok(session_ids)
}

/// Returns the selected sessions of an account that have not ended.
async fn find_active(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    selection: Selection,
) -> Result<Vec<SessionId>> {
    let (only, except, offset) = match selection {
        Selection::One(id) => (Some(id), None, 0),
        Selection::All => (None, None, 0),
        Selection::Others(id) => (None, Some(id), 0),
        Selection::BeyondNewest(count) => (None, None, count),
    };
    let ids = sqlx::query_scalar!(
        r#"select id as "id: SessionId"
           from sessions
           where user_id = $1
             and revoked_at is null
             and expires_at > clock_timestamp()
             and rotated_at > clock_timestamp() - interval '14 days'
             and ($2::uuid is null or id = $2)
             and ($3::uuid is null or id <> $3)
           order by rotated_at desc, id desc
           offset $4"#,
        user_id as _,
        only as _,
        except as _,
        offset
    )
    .fetch_all(db)
    .await?;
    Ok(ids)
}

/// Counts the sessions of an account that have not ended.
pub(crate) async fn count(db: &PgPool, user_id: UserId) -> Result<usize> {
    Ok(find_active(db, user_id, Selection::All).await?.len())
}

/// Locks the account, so that it cannot join a workspace while its sessions end: the log of that
/// workspace would not get the event. Callers that lock a log and the account lock the log first.
pub(crate) async fn lock_account(db: &mut PgConnection, user_id: UserId) -> Result<()> {
    sqlx::query!("select id from users where id = $1 for no key update", user_id as _)
        .fetch_optional(db)
        .await?;
    Ok(())
}

async fn workspaces_of(db: impl PgExecutor<'_>, user_id: UserId) -> Result<Vec<WorkspaceId>> {
    let workspaces = sqlx::query_scalar!(
        "select workspace_id
         from workspace_members
         where user_id = $1 and left_at is null
         order by workspace_id",
        user_id as _
    )
    .fetch_all(db)
    .await?;
    Ok(workspaces)
}

/// Returns the person, or an error if they are not active.
pub(crate) fn require_active(user: User) -> Result<User> {
    if user.status == UserStatus::Active { Ok(user) } else { Err(AppError::Suspended) }
}

/// Switches a session to a workspace in which its account is active, and raises its generation to
/// that of the token. With generation 0, its refresh token stays as it is.
async fn switch_workspace(
    db: &mut PgConnection,
    token: RefreshToken,
    user_id: UserId,
    choice: WorkspaceChoice,
) -> Result<Session> {
    let (only, preferred) = match choice {
        WorkspaceChoice::Only(id) => (Some(id), None),
        WorkspaceChoice::LastUsed(id) => (None, Some(id)),
    };
    let row = sqlx::query!(
        r#"with used as (
               select use_workspace($2, $4, $5) as workspace_id
           ), session as (
               update sessions as s
               set workspace_id = used.workspace_id,
                   generation = greatest(s.generation, $3),
                   rotated_at = case when s.generation < $3 then clock_timestamp() else s.rotated_at end
               from used
               where s.id = $1 and used.workspace_id is not null
           )
           select u as "user!: User", w as "workspace!: Workspace"
           from used
           join user_objects as u on u.workspace_id = used.workspace_id and u.id = $2
           join workspace_objects as w on w.id = used.workspace_id"#,
        token.session_id as _,
        user_id as _,
        token.generation,
        only as _,
        preferred as _
    )
    .fetch_optional(&mut *db)
    .await?;
    match row {
        Some(row) => Ok(Session { token, user: row.user, workspace: row.workspace }),
        None => Err(no_workspace(db, user_id, only).await?),
    }
}

/// Returns the reason why an account can use neither the workspace that it asks for nor, if it asks
/// for none, any other.
async fn no_workspace(
    db: &mut PgConnection,
    user_id: UserId,
    asked: Option<WorkspaceId>,
) -> Result<AppError> {
    if let Some(id) = asked
        && let Err(error) = user::find(&mut *db, id, user_id).await
    {
        return Ok(error);
    }
    let is_closed = sqlx::query_scalar!(
        r#"select exists (
               select 1
               from workspace_members as m
               join workspace_logs as l on l.workspace_id = m.workspace_id
               where m.user_id = $1
                 and m.status = 'Active'
                 and l.status = 'Suspended'
                 and m.workspace_id = coalesce($2, m.workspace_id)
           ) as "is_closed!""#,
        user_id as _,
        asked as _
    )
    .fetch_one(db)
    .await?;
    Ok(if is_closed { AppError::WorkspaceSuspended } else { AppError::Suspended })
}

/// Finds the account of a session that has not ended, if it is active in this workspace.
pub(crate) async fn find_active_in(
    db: &PgPool,
    session_id: SessionId,
    workspace_id: WorkspaceId,
) -> Result<Option<UserId>> {
    let found = sqlx::query_scalar!(
        "select s.user_id
         from sessions as s
         join workspace_members as m on m.user_id = s.user_id
         join workspace_logs as l on l.workspace_id = m.workspace_id and l.status = 'Active'
         where s.id = $1
           and s.revoked_at is null
           and s.expires_at > clock_timestamp()
           and s.rotated_at > clock_timestamp() - interval '14 days'
           and m.workspace_id = $2
           and m.status = 'Active'",
        session_id as _,
        workspace_id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(found)
}

/// Finds the workspace and the person of a refresh token's session, unless it has been revoked.
pub(crate) async fn find_owner(
    db: &PgPool,
    token: RefreshToken,
) -> Result<Option<(WorkspaceId, UserId)>> {
    let found = sqlx::query!(
        "select workspace_id, user_id from sessions where id = $1 and revoked_at is null",
        token.session_id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|session| (session.workspace_id, session.user_id)))
}
