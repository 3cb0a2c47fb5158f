//! The people of a workspace.

use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{UserId, WorkspaceId};
use serde::Deserialize;
use sqlx::PgExecutor;

use crate::error::{AppError, Result};
use crate::utils::key::search_key;
use crate::utils::page;

/// Finds one person of a workspace; a person who has left it is not found.
pub(crate) async fn find(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    user_id: UserId,
) -> Result<User> {
    let user = find_ever(db, workspace_id, user_id).await?;
    if user.status == UserStatus::Left { Err(AppError::NotFound) } else { Ok(user) }
}

/// Finds one person who is in a workspace or has left it.
pub(crate) async fn find_ever(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    user_id: UserId,
) -> Result<User> {
    let user = sqlx::query_scalar!(
        r#"select u as "user!: User" from user_objects as u where workspace_id = $1 and id = $2"#,
        workspace_id as _,
        user_id as _
    )
    .fetch_optional(db)
    .await?;
    user.ok_or(AppError::NotFound)
}

/// The filter in the query string of `GET /api/users`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    q: Option<String>,
    role: Option<Role>,
    status: Option<UserStatus>,
    ids: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

/// Lists the people of a workspace by id, with the cursor of the next page. Without cursor and
/// limit it lists all of them, because clients of the earlier Fechatter expect it. People who have
/// left are included only if they are requested by id.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    filter: Filter,
) -> Result<(Vec<User>, Option<String>)> {
    let paged = filter.cursor.is_some() || filter.limit.is_some();
    let limit = page::limit(filter.limit.as_deref(), if paged { 50 } else { i64::MAX - 1 })?;
    let [after] = filter.cursor.as_deref().map_or(Ok([0]), page::read_cursor)?;
    let ids = filter.ids.as_deref().map(|ids| page::ids::<UserId>("ids", ids)).transpose()?;
    let q = search_key(filter.q.as_deref())?;
    let mut users = sqlx::query_scalar!(
        r#"select object as "user!: User"
           from workspace_members as m
           join users as u on u.id = m.user_id
           join user_objects as object on object.workspace_id = m.workspace_id and object.id = m.user_id
           where m.workspace_id = $1
             and m.user_id > $2
             and (m.left_at is null or m.user_id = any($6))
             and ($3::text is null
                  or strpos(m.fullname_key, $3) > 0
                  or strpos(u.email_key, $3) > 0)
             and ($4::text is null or m.role = $4)
             and ($5::text is null or m.status = $5)
             and ($6::bigint[] is null or m.user_id = any($6))
           order by m.user_id
           limit $7"#,
        workspace_id as _,
        after,
        q,
        filter.role as _,
        filter.status as _,
        ids as _,
        limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page::cut(&mut users, limit, |user| [user.id.0]);
    Ok((users, next))
}
