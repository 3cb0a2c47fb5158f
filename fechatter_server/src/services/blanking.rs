//! Empties the rows of messages whose sender has erased them, in small batches. Nobody sees these
//! messages any more: `message_objects` shows them as deleted from the commit of the erasure on.

use std::time::Duration;

use fechatter_core::{ChatId, Timestamp, UserId, WorkspaceId};
use sqlx::PgPool;
use tokio::time::sleep;

const BATCH: i64 = 500;
/// Lets other work use the disk.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
struct Person {
    workspace_id: WorkspaceId,
    user_id: UserId,
    blanked_at: Timestamp,
}

/// Empties all messages of the people who have erased them. An interrupted run begins again.
pub(crate) async fn empty(db: &PgPool) -> sqlx::Result<()> {
    let people = sqlx::query_as!(
        Person,
        "select workspace_id, user_id, blanked_at from blanked_people order by workspace_id, user_id"
    )
    .fetch_all(db)
    .await?;
    for person in people {
        for chat_id in chats_of(db, person).await? {
            while empty_messages(db, person, chat_id).await? > 0 {
                sleep(PAUSE_BETWEEN_BATCHES).await;
            }
        }
        sqlx::query!(
            "delete from blanked_people where workspace_id = $1 and user_id = $2",
            person.workspace_id as _,
            person.user_id as _
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Returns all chats that the person is or was in, and that are not deleted.
async fn chats_of(db: &PgPool, person: Person) -> sqlx::Result<Vec<ChatId>> {
    sqlx::query_scalar!(
        r#"select distinct m.chat_id as "chat_id: ChatId"
           from chat_members as m
           join chats as c on c.id = m.chat_id
           where m.workspace_id = $1 and m.user_id = $2 and c.deleted_at is null
           order by 1"#,
        person.workspace_id as _,
        person.user_id as _
    )
    .fetch_all(db)
    .await
}

/// Empties some messages of the person in a chat, and returns their number.
async fn empty_messages(db: &PgPool, person: Person, chat_id: ChatId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"with emptied as (
               update messages as m
               set content = '', deleted_at = $3
               where m.chat_id = $1
                 and m.id in (
                     select own.id
                     from messages as own
                     where own.chat_id = $1
                       and -own.sender_id = -$2::bigint
                       and own.kind = 'user'
                       and own.deleted_at is null
                     order by own.seq desc
                     limit $4
                 )
               returning m.seq
           ), mentions as (
               delete from message_mentions
               where chat_id = $1 and seq in (select seq from emptied)
           ), files as (
               delete from message_files
               where chat_id = $1 and seq in (select seq from emptied)
           ), replies as (
               update message_replies
               set is_deleted = true
               where chat_id = $1 and seq in (select seq from emptied)
           )
           select count(*) as "count!" from emptied"#,
        chat_id as _,
        person.user_id as _,
        person.blanked_at as _,
        BATCH
    )
    .fetch_one(db)
    .await
}
