//! Removes the data of deleted chats, in small batches: first the messages, and later the chat itself.

use std::time::Duration;

use fechatter_core::{ChatId, UserId};
use sqlx::PgPool;
use tokio::time::sleep;

const BATCH: i64 = 1_000;
/// Lets other work use the disk.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(20);

/// Deletes the messages of a deleted chat, and what people have stored about it.
pub(crate) async fn purge(db: &PgPool, chat_id: ChatId) -> sqlx::Result<()> {
    while delete_messages(db, chat_id).await? > 0 {
        sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    let mut after = UserId(0);
    while let Some(last) = delete_states(db, chat_id, after).await? {
        after = last;
        sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    sqlx::query!("update chats set purged_at = clock_timestamp() where id = $1", chat_id as _)
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes some messages of a chat, with what is stored about them, and returns their number.
async fn delete_messages(db: &PgPool, chat_id: ChatId) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        "with deleted as (
             delete from messages
             where chat_id = $1
               and id in (select id from messages where chat_id = $1 order by id limit $2)
             returning id, seq
         ),
         replies as (
             delete from message_replies
             where chat_id = $1 and message_id in (select id from deleted)
         ),
         mentions as (
             delete from message_mentions
             where chat_id = $1 and seq in (select seq from deleted)
         ),
         files as (
             delete from message_files
             where chat_id = $1 and seq in (select seq from deleted)
         )
         select from deleted",
        chat_id as _,
        BATCH
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes the read marks and the preferences of some people, members of a chat now or before, for
/// this chat. Returns the last of them.
async fn delete_states(
    db: &PgPool,
    chat_id: ChatId,
    after: UserId,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"with people as (
               select distinct workspace_id, user_id
               from chat_members
               where chat_id = $1 and user_id > $2
               order by user_id
               limit $3
           ),
           marks as (
               delete from read_marks as mark
               using people
               where mark.workspace_id = people.workspace_id
                 and mark.user_id = people.user_id
                 and mark.chat_id = $1
           ),
           preferences as (
               delete from chat_preferences as chosen
               using people
               where chosen.workspace_id = people.workspace_id
                 and chosen.user_id = people.user_id
                 and chosen.chat_id = $1
           )
           select max(user_id) as "last: UserId" from people"#,
        chat_id as _,
        after as _,
        BATCH
    )
    .fetch_one(db)
    .await
}

/// Removes a purged chat with its memberships.
pub(crate) async fn remove(db: &PgPool, chat_id: ChatId) -> sqlx::Result<()> {
    loop {
        let removed = sqlx::query!(
            "delete from chat_members
             where ctid = any(array(select ctid from chat_members where chat_id = $1 limit $2))",
            chat_id as _,
            BATCH
        )
        .execute(db)
        .await?;
        if removed.rows_affected() == 0 {
            break;
        }
        sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    sqlx::query!("delete from chats where id = $1", chat_id as _).execute(db).await?;
    Ok(())
}
