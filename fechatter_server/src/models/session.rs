//! Sessions: a sign-in on a device, kept alive by rotating refresh tokens.

use fechatter_core::db::begin;
use fechatter_core::event::Event;
use fechatter_core::log::{Log, LogWriter};
use fechatter_core::user::{User, UserStatus};
use fechatter_core::workspace::Workspace;
use fechatter_core::{SessionId, UserId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::middlewares::device::Device;
use crate::middlewares::limits::{Caller, RequestLimits};
use crate::models::{user, workspace};
use crate::services::refresh_token::RefreshToken;

/// A session and whom it speaks for.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: RefreshToken,
    pub(crate) user: User,
    pub(crate) workspace: Workspace,
}

/// Opens a session for a person in a workspace; it lasts 30 days at most.
pub(crate) async fn open(db: &mut PgConnection, user: User, device: &Device) -> Result<Session> {
    let id = SessionId(Uuid::now_v7());
    sqlx::query!(
        "insert into sessions (id, user_id, workspace_id, expires_at, user_agent, ip)
         values ($1, $2, $3, clock_timestamp() + interval '30 days', $4, $5)",
        id as _,
        user.id as _,
        user.workspace_id as _,
        device.user_agent.as_deref(),
        device.address.to_string()
    )
    .execute(&mut *db)
    .await?;
    speak_for(db, RefreshToken { session_id: id, generation: 1 }, user).await
}

/// Exchanges a refresh token for the next one.
///
/// The direct predecessor, within 30 s, gets the current one again: a reply was lost, or two tabs
/// refreshed at once. Any older one was copied, and ends the session.
pub(crate) async fn refresh(
    (db, log): (&PgPool, &Log),
    limits: &RequestLimits,
    device: &Device,
    token: RefreshToken,
    workspace_id: Option<WorkspaceId>,
) -> Result<Session> {
    // By session before anything is asked of the database, and by person once it says who that is.
    limits.take(Caller::Session(token.session_id))?;
    let share = limits.connection_at_entrance(Caller::Address(device.network())).await?;
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
        drop(share);
        let caller = Caller::Person(found.user_id);
        let _share = limits.connection_in(found.workspace_id, caller).await?;
        revoke(db, log, found.user_id, Which::One(token.session_id)).await?;
        return Err(AppError::RefreshReused);
    }
    let user = match workspace_id {
        Some(id) => active(user::find(&mut *tx, id, found.user_id).await?)?,
        None => last_used(&mut tx, found.user_id, Some(found.workspace_id)).await?,
    };
    let generation = found.generation + i32::from(is_current);
    sqlx::query!(
        "update sessions
         set generation = $2,
             rotated_at = case when generation = $2 then rotated_at else clock_timestamp() end
         where id = $1",
        token.session_id as _,
        generation
    )
    .execute(&mut *tx)
    .await?;
    let token = RefreshToken { generation, ..token };
    let session = speak_for(&mut tx, token, user).await?;
    tx.commit().await?;
    Ok(session)
}

/// Lets a session speak for another workspace of its account.
pub(crate) async fn switch(
    db: &PgPool,
    session_id: SessionId,
    user_id: UserId,
    workspace_id: WorkspaceId,
) -> Result<Session> {
    let mut tx = begin(db, "begin").await?;
    let user = active(user::find(&mut *tx, workspace_id, user_id).await?)?;
    // The refresh token stays as it is, so its generation is not needed.
    let token = RefreshToken { session_id, generation: 0 };
    let session = speak_for(&mut tx, token, user).await?;
    tx.commit().await?;
    Ok(session)
}

/// A selection of an account's sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    One(SessionId),
    All,
    /// All but the so many that were used last.
    BeyondNewest(i64),
}

/// Ends sessions of an account, and says which; those that have ended already stay so.
///
/// Its streams learn of it in every workspace, so all their logs are locked, in one go, unless there
/// is nothing to end. The caller holds a connection of one workspace's share for it.
pub(crate) async fn revoke(
    db: &PgPool,
    log: &Log,
    user_id: UserId,
    which: Which,
) -> Result<Vec<SessionId>> {
    if living(db, user_id, which).await?.is_empty() {
        return Ok(Vec::new());
    }
    let mut workspaces = workspaces_of(db, user_id).await?;
    let mut writer = loop {
        let mut writer = LogWriter::lock(log, &workspaces).await?;
        lock_account(writer.db(), user_id).await?;
        let now = workspaces_of(writer.db(), user_id).await?;
        if now == workspaces {
            break writer;
        }
        // The account has joined or left one while the locks were waited for.
        workspaces = now;
    };
    let ending = living(writer.db(), user_id, which).await?;
    sqlx::query!(
        "update sessions set revoked_at = clock_timestamp() where id = any($1)",
        &ending as _
    )
    .execute(writer.db())
    .await?;
    for session_id in &ending {
        for workspace_id in &workspaces {
            let event = Event::SessionRevoked { user_id, session_id: *session_id };
            writer.append(*workspace_id, &event)?;
        }
    }
    writer.commit().await?;
    Ok(ending)
}

/// Those of an account's sessions that live, and are meant.
async fn living(db: impl PgExecutor<'_>, user_id: UserId, which: Which) -> Result<Vec<SessionId>> {
    let (one, newest) = match which {
        Which::One(id) => (Some(id), 0),
        Which::All => (None, 0),
        Which::BeyondNewest(count) => (None, count),
    };
    let ids = sqlx::query_scalar!(
        r#"select id as "id: SessionId"
           from sessions
           where user_id = $1
             and revoked_at is null
             and expires_at > clock_timestamp()
             and rotated_at > clock_timestamp() - interval '14 days'
             and ($2::uuid is null or id = $2)
           order by rotated_at desc, id desc
           offset $3"#,
        user_id as _,
        one as _,
        newest
    )
    .fetch_all(db)
    .await?;
    Ok(ids)
}

/// Keeps an account from joining a workspace while its sessions end: that workspace would not hear
/// of it. Whoever locks both takes the log's lock first.
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

/// The workspace that an account used last, of those in which it is active; `preferred` first.
pub(crate) async fn last_used(
    db: &mut PgConnection,
    user_id: UserId,
    preferred: Option<WorkspaceId>,
) -> Result<User> {
    let id = sqlx::query_scalar!(
        "select workspace_id
         from workspace_members
         where user_id = $1 and status = 'Active'
         order by workspace_id = $2 desc nulls last, last_used_at desc
         limit 1",
        user_id as _,
        preferred as _
    )
    .fetch_optional(&mut *db)
    .await?;
    user::find(db, id.ok_or(AppError::Suspended)?, user_id).await
}

/// The person, unless suspended.
pub(crate) fn active(user: User) -> Result<User> {
    if user.status == UserStatus::Active { Ok(user) } else { Err(AppError::Suspended) }
}

/// Notes which workspace the session speaks for.
async fn speak_for(db: &mut PgConnection, token: RefreshToken, user: User) -> Result<Session> {
    sqlx::query!(
        "with member as (
             update workspace_members
             set last_used_at = clock_timestamp()
             where workspace_id = $2 and user_id = $3
         )
         update sessions set workspace_id = $2 where id = $1",
        token.session_id as _,
        user.workspace_id as _,
        user.id as _
    )
    .execute(&mut *db)
    .await?;
    let workspace = workspace::find(db, user.workspace_id).await?;
    Ok(Session { token, user, workspace })
}

/// Whom a refresh token's session speaks for, unless it has ended.
pub(crate) async fn speaker(
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
