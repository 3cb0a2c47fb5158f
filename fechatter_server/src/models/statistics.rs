//! Sizes of workspaces and tables, for the operator.

use fechatter_core::{Timestamp, WorkspaceId};
use serde::Serialize;
use sqlx::PgConnection;

use crate::error::Result;

/// The content of a workspace.
#[derive(Debug, Serialize)]
pub(crate) struct WorkspaceStatistics {
    pub(crate) id: WorkspaceId,
    pub(crate) name: String,
    pub(crate) people: i64,
    pub(crate) chats: i64,
    /// All messages of chats that are not deleted.
    pub(crate) messages: i64,
    /// The messages of the last 24 hours, as far as the log still has their events.
    pub(crate) messages_last_day: i64,
    /// The size of its files, in bytes.
    pub(crate) file_bytes: i64,
    /// When the oldest event in its log was written.
    pub(crate) oldest_event_at: Option<Timestamp>,
}

/// The size of a table.
#[derive(Debug, Serialize)]
pub(crate) struct TableSize {
    pub(crate) table: String,
    /// With its indexes.
    pub(crate) bytes: i64,
    /// PostgreSQL's estimate.
    pub(crate) rows: i64,
}

/// Counts what is in one workspace, or in all that are not deleted.
pub(crate) async fn of_workspaces(
    db: &mut PgConnection,
    id: Option<WorkspaceId>,
) -> Result<Vec<WorkspaceStatistics>> {
    let statistics = sqlx::query_as!(
        WorkspaceStatistics,
        r#"select w.id as "id!: WorkspaceId", w.name as "name!", w.member_count as "people!",
                  chats.count as "chats!", chats.messages as "messages!",
                  (
                      select count(*)
                      from events as e
                      where e.workspace_id = w.id
                        and e.kind = 'NewMessage'
                        and e.created_at > clock_timestamp() - interval '1 day'
                  ) as "messages_last_day!",
                  (
                      select coalesce(sum(f.size), 0)::bigint from files as f where f.workspace_id = w.id
                  ) as "file_bytes!",
                  (
                      select e.created_at
                      from events as e
                      where e.workspace_id = w.id
                      order by e.position
                      limit 1
                  ) as "oldest_event_at: Timestamp"
           from workspace_objects as w
           cross join lateral (
               -- The newest seq of a chat is the number of its messages.
               select count(*) as count, coalesce(sum(newest.seq), 0)::bigint as messages
               from chats as c
               left join lateral (
                   select m.seq from messages as m where m.chat_id = c.id order by m.seq desc limit 1
               ) as newest on true
               where c.workspace_id = w.id and c.deleted_at is null
           ) as chats
           where w.status <> 'Deleted' and ($1::bigint is null or w.id = $1)
           order by w.id"#,
        id as _
    )
    .fetch_all(db)
    .await?;
    Ok(statistics)
}

/// Returns the sizes of all tables, the largest first.
pub(crate) async fn of_tables(db: &mut PgConnection) -> Result<Vec<TableSize>> {
    let tables = sqlx::query_as!(
        TableSize,
        r#"select relname::text as "table!", pg_total_relation_size(oid) as "bytes!",
                  greatest(reltuples, 0)::bigint as "rows!"
           from pg_class
           where relnamespace = current_schema()::regnamespace and relkind = 'r'
           order by 2 desc, 1"#
    )
    .fetch_all(db)
    .await?;
    Ok(tables)
}
