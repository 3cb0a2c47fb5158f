//! The people of a workspace.

use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{ChatId, UserId, WorkspaceId};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use utoipa::ToSchema;

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
    /// The people whom a search has found.
    pub(crate) found: Option<Vec<UserId>>,
    pub(crate) role: Option<Role>,
    pub(crate) status: Option<UserStatus>,
    pub(crate) ids: Option<Vec<UserId>>,
    /// Its members come first.
    pub(crate) chat_id: Option<ChatId>,
}

/// A person in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedUser {
    #[serde(flatten)]
    pub(crate) user: User,
    /// True if the person is a member of the chat in the request, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = false)]
    in_chat: Option<bool>,
}

/// Lists the people of a workspace by id, with the cursor of the next page. People who have left
/// are included only if they are requested by id.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    filter: Filter,
    page: Page<2>,
) -> Result<(Vec<ListedUser>, Option<String>)> {
    let [after_group, after] = page.after.unwrap_or([0, 0]);
    let mut rows = sqlx::query!(
        r#"select object as "user!: User", found.is_outside as "is_outside!"
           from (
               select m.workspace_id, m.user_id,
                      $7::bigint is not null and not exists (
                          select from chat_members as c
                          where c.chat_id = $7 and c.user_id = m.user_id and c.left_position is null
                      ) as is_outside
               from workspace_members as m
               where m.workspace_id = $1
                 and (m.left_at is null or m.user_id = any($6))
                 and ($3::bigint[] is null or m.user_id = any($3))
                 and ($4::text is null or m.role = $4)
                 and ($5::text is null or m.status = $5)
                 and ($6::bigint[] is null or m.user_id = any($6))
           ) as found
           join user_objects as object
               on object.workspace_id = found.workspace_id and object.id = found.user_id
           where (found.is_outside::integer, found.user_id) > ($8, $2)
           order by found.is_outside, found.user_id
           limit $9"#,
        workspace_id as _,
        after,
        filter.found as _,
        filter.role as _,
        filter.status as _,
        filter.ids as _,
        filter.chat_id as _,
        i32::try_from(after_group).unwrap_or(i32::MAX),
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let next = page.cut(&mut rows, |row| [row.is_outside.into(), row.user.id.0]);
    let has_chat = filter.chat_id.is_some();
    let users = rows
        .into_iter()
        .map(|row| ListedUser { user: row.user, in_chat: has_chat.then_some(!row.is_outside) });
    Ok((users.collect(), next))
}

/// A person with the name of the workspace.
#[derive(Debug, Serialize)]
pub(crate) struct PersonInWorkspace {
    #[serde(flatten)]
    pub(crate) user: User,
    pub(crate) workspace: String,
}

/// Lists people in their workspaces, for the operator: those of one workspace or of all, and of one
/// account or of all.
pub(crate) async fn list_everywhere(
    db: &PgPool,
    workspace_id: Option<WorkspaceId>,
    id: Option<UserId>,
) -> Result<Vec<PersonInWorkspace>> {
    let people = sqlx::query_as!(
        PersonInWorkspace,
        r#"select object as "user!: User", w.name as workspace
           from user_objects as object
           join workspaces as w on w.id = object.workspace_id
           where ($1::bigint is null or object.workspace_id = $1)
             and ($2::bigint is null or object.id = $2)
             and object.status <> 'Left'
           order by w.id, object.id"#,
        workspace_id as _,
        id as _
    )
    .fetch_all(db)
    .await?;
    Ok(people)
}
