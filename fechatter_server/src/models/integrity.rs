//! Checks of the stored data against the rules that every write keeps, for the operator.

use fechatter_core::{ChatId, WorkspaceId};
use sqlx::PgConnection;

use crate::error::Result;

/// Returns the workspaces whose logs have a gap.
pub(crate) async fn logs_with_gaps(db: &mut PgConnection) -> Result<Vec<WorkspaceId>> {
    let workspaces = sqlx::query_scalar!(
        r#"select workspace_id as "id: WorkspaceId"
           from events
           group by workspace_id
           having max(position) - min(position) + 1 <> count(*)
           order by workspace_id"#
    )
    .fetch_all(db)
    .await?;
    Ok(workspaces)
}

/// Returns the chats whose messages are not numbered 1, 2, 3, …
pub(crate) async fn chats_with_gaps(db: &mut PgConnection) -> Result<Vec<ChatId>> {
    let chats = sqlx::query_scalar!(
        r#"select c.id as "id: ChatId"
           from chats as c
           cross join lateral (
               select min(m.seq) as first, max(m.seq) as last, count(*) as count
               from messages as m
               where m.chat_id = c.id
           ) as numbers
           where c.deleted_at is null and (numbers.first <> 1 or numbers.last <> numbers.count)
           order by c.id"#
    )
    .fetch_all(db)
    .await?;
    Ok(chats)
}

/// Returns the chats whose number of members is not that of their open memberships.
pub(crate) async fn chats_with_wrong_counts(db: &mut PgConnection) -> Result<Vec<ChatId>> {
    let chats = sqlx::query_scalar!(
        r#"select c.id as "id: ChatId"
           from chats as c
           where c.deleted_at is null
             and c.member_count <> (
                 select count(*)
                 from chat_members as m
                 where m.chat_id = c.id and m.left_position is null
             )
           order by c.id"#
    )
    .fetch_all(db)
    .await?;
    Ok(chats)
}

/// Returns the constraints that PostgreSQL has not checked for all rows.
pub(crate) async fn unchecked_constraints(db: &mut PgConnection) -> Result<Vec<String>> {
    let names = sqlx::query_scalar!(
        r#"select conname::text as "name!"
           from pg_constraint
           where connamespace = current_schema()::regnamespace and not convalidated
           order by 1"#
    )
    .fetch_all(db)
    .await?;
    Ok(names)
}
