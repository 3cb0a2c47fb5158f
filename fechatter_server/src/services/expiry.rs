//! Removes the records of what has ended some time ago, in small batches: sessions, invites, links, and
//! the names and memberships of deleted chats.

use std::time::Duration;

use fechatter_core::ChatId;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::services::chat_removal;

/// The number of rows that one statement removes.
const BATCH: i64 = 1_000;
/// Lets other work use the disk.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(20);

/// Removes what ended more than this many days ago.
pub(crate) async fn remove_ended(db: &PgPool, days: i32) -> sqlx::Result<()> {
    while remove_sessions(db, days).await? > 0 {
        sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    sqlx::query!(
        "with links as (
             delete from password_resets
             where expires_at < clock_timestamp() - make_interval(days => $1)
         ), codes as (
             delete from setup_codes
             where expires_at < clock_timestamp() - make_interval(days => $1)
         )
         delete from invites
         where expires_at < clock_timestamp() - make_interval(days => $1)",
        days
    )
    .execute(db)
    .await?;
    for chat_id in find_chats(db, days).await? {
        chat_removal::remove(db, chat_id).await?;
    }
    Ok(())
}

/// Removes some sessions that were ended or have expired, and returns their number.
async fn remove_sessions(db: &PgPool, days: i32) -> sqlx::Result<u64> {
    let removed = sqlx::query!(
        "delete from sessions
         where id in (
             select id
             from sessions
             where least(revoked_at, expires_at, rotated_at + interval '14 days')
                   < clock_timestamp() - make_interval(days => $1)
             limit $2
         )",
        days,
        BATCH
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Finds the chats that were deleted more than this many days ago. While the log has events from before
/// a chat's end, their audience is found by its memberships.
async fn find_chats(db: &PgPool, days: i32) -> sqlx::Result<Vec<ChatId>> {
    sqlx::query_scalar!(
        r#"select c.id as "id: ChatId"
           from chats as c
           where c.purged_at is not null
             and c.deleted_at < clock_timestamp() - make_interval(days => $1)
             and not exists (
                 select 1
                 from chat_members as m
                 where m.chat_id = c.id
                   and m.left_position >= (
                       select min(e.position) from events as e where e.workspace_id = c.workspace_id
                   )
             )
           order by c.deleted_at"#,
        days
    )
    .fetch_all(db)
    .await
}
