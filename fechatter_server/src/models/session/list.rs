//! The list of an account's sessions, and the end of one of them.

use chrono::DateTime;
use fechatter_core::log::Log;
use fechatter_core::{SessionId, Timestamp};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{AppError, Result};
use crate::models::session::current_user::CurrentUser;
use crate::models::session::{self, Selection};
use crate::utils::page::Page;

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

/// The keys of a session in its list: the time of its last use in microseconds, and its id in four
/// parts.
pub(crate) type SessionKeys = [i64; 5];

/// Lists the sessions of the caller's account that have not ended, last used first.
pub(crate) async fn list(
    db: &PgPool,
    caller: &CurrentUser,
    page: Page<5>,
) -> Result<(Vec<SessionEntry>, Option<String>)> {
    let after = page.after.map(read_keys).transpose()?;
    let mut sessions = sqlx::query_as!(
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
             and ($3::timestamptz is null or (rotated_at, id) < ($3, $4))
           order by rotated_at desc, id desc
           limit $5"#,
        caller.id as _,
        caller.session_id as _,
        after.map(|(used_at, _)| used_at) as _,
        after.map(|(_, id)| id) as _,
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut sessions, write_keys);
    Ok((sessions, next))
}

fn write_keys(session: &SessionEntry) -> SessionKeys {
    let [a, b, c, d] = [96, 64, 32, 0].map(|bits| {
        let part = session.id.0.as_u128() >> bits;
        i64::from(u32::try_from(part & u128::from(u32::MAX)).unwrap_or_default())
    });
    [session.last_used_at.0.timestamp_micros(), a, b, c, d]
}

fn read_keys([used_at, parts @ ..]: SessionKeys) -> Result<(Timestamp, SessionId)> {
    let refused = || AppError::invalid("cursor", "is not a cursor of this list");
    let used_at = DateTime::from_timestamp_micros(used_at).ok_or_else(refused)?;
    let mut id = 0;
    for part in parts {
        id = id << 32 | u128::from(u32::try_from(part).map_err(|_| refused())?);
    }
    Ok((Timestamp(used_at), SessionId(Uuid::from_u128(id))))
}

/// Ends one of the caller's sessions, on any device, with its streams and tokens.
pub(crate) async fn end(db: &PgPool, log: &Log, caller: &CurrentUser, id: SessionId) -> Result<()> {
    let ended = session::revoke(db, log, caller.id, Selection::One(id)).await?;
    if ended.is_empty() { Err(AppError::NotFound) } else { Ok(()) }
}
