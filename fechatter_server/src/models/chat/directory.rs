//! The directory of the workspace's public channels.

use fechatter_core::chat::Chat;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::session::current_user::CurrentUser;
use crate::utils::page::Page;

/// A public channel as the directory lists it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DirectoryEntry {
    #[serde(flatten)]
    chat: Chat,
    joined: bool,
}

/// Lists the public channels whose names contain `q`, a search key. They are ordered by id, with a
/// flag for those that the caller has joined. Also returns the cursor of the next page.
pub(crate) async fn list(
    db: &PgPool,
    user: &CurrentUser,
    q: Option<String>,
    page: Page<1>,
) -> Result<(Vec<DirectoryEntry>, Option<String>)> {
    let [after] = page.after.unwrap_or([0]);
    let mut entries = sqlx::query_as!(
        DirectoryEntry,
        r#"select object as "chat!: Chat",
                  exists (
                      select 1 from chat_members as m
                      where m.chat_id = c.id and m.user_id = $4 and m.left_position is null
                  ) as "joined!"
           from chats as c
           join chat_objects as object on object.id = c.id
           where c.workspace_id = $1
             and c.chat_type = 'PublicChannel'
             and c.deleted_at is null
             and c.archived_at is null
             and c.id > $2
             and ($3::text is null or strpos(c.name_key, $3) > 0)
           order by c.id
           limit $5"#,
        user.workspace_id as _,
        after,
        q,
        user.id as _,
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut entries, |entry| [entry.chat.id.0]);
    Ok((entries, next))
}
