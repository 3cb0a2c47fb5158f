//! The people of a workspace.

use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{UserId, WorkspaceId};
use sqlx::PgExecutor;

use crate::error::{AppError, Result};
use crate::utils::page::Page;

/// Finds one person of a workspace; a person who has left it is not found.
pub(crate) async fn find(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    user_id: UserId,
) -> Result<User> {
    let user = find_including_left(db, workspace_id, user_id).await?;
    if user.status == UserStatus::Left { Err(AppError::NotFound) } else { Ok(user) }
}

/// Finds one person who is in a workspace or has left it.
pub(crate) async fn find_including_left(
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

/// The people to list: all, or those that match each given condition.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// The [search key](crate::utils::key::search_key) of a part of the name or e-mail address.
    pub(crate) q: Option<String>,
    pub(crate) role: Option<Role>,
    pub(crate) status: Option<UserStatus>,
    pub(crate) ids: Option<Vec<UserId>>,
}

/// Lists the people of a workspace by id, with the cursor of the next page. People who have left
/// are included only if they are requested by id.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    filter: Filter,
    page: Page<1>,
) -> Result<(Vec<User>, Option<String>)> {
    let [after] = page.after.unwrap_or([0]);
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
        filter.q,
        filter.role as _,
        filter.status as _,
        filter.ids as _,
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut users, |user| [user.id.0]);
    Ok((users, next))
}
