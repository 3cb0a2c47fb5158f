//! The workspace's public channels, for those who look for one.

use fechatter_core::chat::{Chat, LISTED_MEMBERS};
use fechatter_core::{Seq, UserId};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::error::Result;
use crate::middlewares::auth::CurrentUser;
use crate::utils::key::search_key;
use crate::utils::page;

/// A public channel as the directory lists it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DirectoryEntry {
    #[serde(flatten)]
    chat: Chat,
    joined: bool,
}

/// Public channels by id, whether the caller has joined them, and where the next page begins.
pub(crate) async fn list(
    db: &PgPool,
    user: &CurrentUser,
    q: Option<String>,
    (cursor, limit): (Option<&str>, i64),
) -> Result<(Vec<DirectoryEntry>, Option<String>)> {
    let [after] = cursor.map_or(Ok([0]), page::read_cursor)?;
    let q = search_key(q.as_deref())?;
    let rows = sqlx::query!(
        r#"select c.id, c.workspace_id, c.name, c.chat_type,
                  array(
                      select m.user_id from chat_members as m
                      where m.chat_id = c.id and m.left_position is null
                      order by m.joined_position, m.user_id
                      limit $5
                  ) as "chat_members!: Vec<UserId>",
                  c.description, c.owner_id, c.created_at, c.updated_at, c.member_count,
                  coalesce((select max(seq) from messages where chat_id = c.id), 0)
                      as "last_seq!: Seq",
                  c.archived_at,
                  exists (
                      select 1 from chat_members as m
                      where m.chat_id = c.id and m.user_id = $4 and m.left_position is null
                  ) as "joined!"
           from chats as c
           where c.workspace_id = $1
             and c.chat_type = 'PublicChannel'
             and c.deleted_at is null
             and c.id > $2
             and ($3::text is null or strpos(c.name_key, $3) > 0)
           order by c.id
           limit $6"#,
        user.workspace_id as _,
        after,
        q,
        user.id as _,
        LISTED_MEMBERS,
        limit + 1
    )
    .fetch_all(db)
    .await?;
    let mut rows = rows;
    let next = page::cut(&mut rows, limit, |row| [row.id.0]);
    let entries = rows.into_iter().map(|row| DirectoryEntry {
        chat: Chat {
            id: row.id,
            workspace_id: row.workspace_id,
            name: row.name,
            chat_type: row.chat_type,
            chat_members: row.chat_members,
            description: row.description,
            created_by: row.owner_id,
            created_at: row.created_at,
            updated_at: row.updated_at,
            member_count: row.member_count,
            last_seq: row.last_seq,
            archived_at: row.archived_at,
        },
        joined: row.joined,
    });
    Ok((entries.collect(), next))
}
