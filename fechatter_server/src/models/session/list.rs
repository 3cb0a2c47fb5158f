//! The list of an account's sessions, and the end of one of them.

use fechatter_core::log::Log;
use fechatter_core::{SessionId, Timestamp};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::error::{AppError, Result};
use crate::models::session::current_user::CurrentUser;
use crate::models::session::{self, Selection};

/// A sign-in on a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionEntry {
    id: SessionId,
    created_at: Timestamp,
    /// The time of the last refresh. A device in use refreshes every 15 minutes.
    last_used_at: Timestamp,
    /// The time when it ends without a refresh; at most 30 days after it began.
    expires_at: Timestamp,
    user_agent: Option<String>,
    ip: Option<String>,
    /// True for the session of the caller.
    current: bool,
}

/// Lists the sessions of the caller's account that have not ended, last used first.
pub(crate) async fn list(db: &PgPool, caller: &CurrentUser) -> Result<Vec<SessionEntry>> {
    let sessions = sqlx::query_as!(
        SessionEntry,
        r#"select id, created_at as "created_at: Timestamp",
                  rotated_at as "last_used_at: Timestamp",
                  least(expires_at, rotated_at + interval '14 days') as "expires_at!: Timestamp",
                  user_agent, ip, id = $2 as "current!"
           from sessions
           where user_id = $1
             and revoked_at is null
             and expires_at > clock_timestamp()
             and rotated_at > clock_timestamp() - interval '14 days'
           order by rotated_at desc, id"#,
        caller.id as _,
        caller.session_id as _
    )
    .fetch_all(db)
    .await?;
    Ok(sessions)
}

/// Ends one of the caller's sessions, on any device, with its streams and tokens.
pub(crate) async fn end(db: &PgPool, log: &Log, caller: &CurrentUser, id: SessionId) -> Result<()> {
    let ended = session::revoke(db, log, caller.id, Selection::One(id)).await?;
    if ended.is_empty() { Err(AppError::NotFound) } else { Ok(()) }
}
