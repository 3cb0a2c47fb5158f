//! A cache of chat lists. An entry is valid as long as nothing in the list has changed.
//!
//! The content of a list changes only with an event whose audience includes the caller. An entry
//! therefore has the position of the log before the list was read. It is served while the log still
//! has the event at this position and has no later event for the caller. Every request queries the
//! log, so the list is correct on every server, after the writes of all people, and after a
//! failover. Read marks are not in the log: an entry also has the sum of the versions of the caller's
//! marks.

use aws_lc_rs::digest::{SHA256, digest};
use axum_extra::headers::ETag;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use fechatter_core::log::{Cursor, Stamp};
use fechatter_core::{Position, UserId, WorkspaceId};
use moka::sync::Cache;
use sqlx::{PgExecutor, PgPool};

use crate::error::Result;
use crate::models::chat::sidebar;
use crate::models::session::current_user::CurrentUser;

/// The estimated overhead of an entry, without its JSON: keys, hashes, headers, the cache's own data.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// The cached lists of this server, limited by their total bytes.
#[derive(Debug, Clone)]
pub(crate) struct ChatLists(Cache<Key, Entry>);

/// A caller's chats as JSON.
#[derive(Debug, Clone)]
pub(crate) struct ChatList {
    pub(crate) json: Bytes,
    /// A digest of the JSON, and thus the same on every server.
    pub(crate) etag: ETag,
}

/// A caller, and the filter of their list by archived chats.
type Key = (WorkspaceId, UserId, bool);

#[derive(Debug, Clone)]
struct Entry {
    list: ChatList,
    /// The list contains all changes up to this position.
    as_of: Cursor,
    /// The sum of the versions of the caller's read marks.
    marks: i64,
    /// The maximum number of log positions to check; for more, reading the list again is cheaper.
    max_positions: i64,
}

impl ChatLists {
    /// Creates the cache. With 0 MiB it keeps no lists.
    pub(crate) fn new(mebibytes: u32) -> Self {
        let bytes = u64::from(mebibytes) * 1024 * 1024;
        let weigh = |_: &Key, entry: &Entry| {
            u32::try_from(entry.list.json.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// Returns the caller's list, with true if it came from the cache.
    pub(crate) async fn get(
        &self,
        db: &PgPool,
        user: &CurrentUser,
        archived: bool,
    ) -> Result<(ChatList, bool)> {
        let mut db = db.acquire().await?;
        let key = (user.workspace_id, user.id, archived);
        let cached = self.0.get(&key);
        let (head, marks, is_valid) =
            read_head_and_validate(&mut *db, user, cached.as_ref()).await?;
        if let Some(cached) = cached.filter(|_| is_valid) {
            if cached.as_of != head {
                // The next check begins at the new head.
                self.0.insert(key, Entry { as_of: head, ..cached.clone() });
            }
            return Ok((cached.list, true));
        }
        // The list is read after the head: it may contain later changes, but it misses no earlier
        // ones.
        let chats = sidebar::list(&mut *db, user, None, Some(archived)).await?;
        let list = ChatList::new(&chats)?;
        let max_positions = max_positions(chats.len());
        self.0.insert(key, Entry { list: list.clone(), as_of: head, marks, max_positions });
        Ok((list, false))
    }
}

impl ChatList {
    fn new(chats: &[sidebar::ChatSidebar]) -> Result<Self> {
        let encode = |error| sqlx::Error::Encode(error);
        let json = serde_json::to_vec(chats).map_err(|error| encode(error.into()))?;
        let hash = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &json));
        let etag = format!("\"{hash}\"").parse().map_err(|_| encode("no entity tag".into()))?;
        // The boxed slice has no spare capacity.
        Ok(Self { json: json.into_boxed_slice().into(), etag })
    }
}

/// Returns the number of log positions whose check costs less than reading a list of this many
/// chats. Checking a position costs about a fifth of reading a chat; the factor leaves a margin.
fn max_positions(chats: usize) -> i64 {
    i64::try_from(chats * 2 + 20).unwrap_or(i64::MAX)
}

/// Returns the log's head and the sum of the versions of the caller's read marks, with true if the
/// cached list is still valid: the log still has the event at the list's position, so that it is the
/// same log and has lost no later event, no later event is for the caller, and no read mark has
/// changed.
async fn read_head_and_validate(
    db: impl PgExecutor<'_>,
    user: &CurrentUser,
    cached: Option<&Entry>,
) -> Result<(Cursor, i64, bool)> {
    let row = sqlx::query!(
        r#"select head.position as "position: Position", head.stamp as "stamp: Stamp",
                  case when head.position - $3 <= $5 and exists (
                      select 1 from events
                      where workspace_id = $1 and position = $3 and stamp = $4
                  ) then not exists (
                      select 1 from events_for($1, $3 + 1, head.position, $2)
                  ) else false end as "unchanged!",
                  coalesce((
                      select sum(version) from read_marks where workspace_id = $1 and user_id = $2
                  ), 0)::bigint as "marks!"
           from (
               select position, stamp
               from events
               where workspace_id = $1
               order by position desc
               limit 1
           ) as head"#,
        user.workspace_id as _,
        user.id as _,
        cached.map(|entry| entry.as_of.position) as _,
        cached.map(|entry| entry.as_of.stamp) as _,
        cached.map(|entry| entry.max_positions)
    )
    .fetch_one(db)
    .await?;
    let is_unchanged = row.unchanged && cached.is_some_and(|entry| entry.marks == row.marks);
    Ok((Cursor { stamp: row.stamp, position: row.position }, row.marks, is_unchanged))
}
