//! Removes files that no message holds, a day after they were last uploaded or sent, and what
//! interrupted uploads have left in the store.

use fechatter_core::WorkspaceId;
use fechatter_core::db::begin;
use sqlx::PgPool;

use crate::error::Result;
use crate::models::file;
use crate::services::file_store::FileStore;

/// The maximum number of files that one round removes.
const BATCH: i64 = 500;

/// Removes what nobody can see any more. Several servers may do this at the same time.
pub(crate) async fn sweep(db: &PgPool, store: &FileStore) -> Result<()> {
    let orphans = sqlx::query!(
        r#"select f.workspace_id as "workspace_id: WorkspaceId", f.hash
           from files as f
           where f.touched_at < clock_timestamp() - interval '24 hours'
             and not exists (
                 select 1 from message_files as a
                 where a.workspace_id = f.workspace_id and a.hash = f.hash
             )
           order by f.touched_at
           limit $1"#,
        BATCH
    )
    .fetch_all(db)
    .await?;
    for orphan in orphans {
        if let Ok(hash) = orphan.hash.try_into() {
            remove(db, store, orphan.workspace_id, &hash).await?;
        }
    }
    Ok(())
}

/// Removes the files of failed and interrupted uploads.
pub(crate) async fn remove_unnamed(db: &PgPool, store: &FileStore) -> Result<()> {
    for file in store.unnamed().await.map_err(file::store_error)? {
        remove_unknown(db, store, file.workspace_id, &file.hash).await?;
        file.forget();
    }
    Ok(())
}

/// Removes the old files of the store that the database does not know.
pub(crate) async fn remove_strays(db: &PgPool, store: &FileStore) -> Result<()> {
    let old = store.old().await.map_err(|error| file::store_error(error.into()))?;
    for (workspace_id, hash) in old {
        remove_unknown(db, store, workspace_id, &hash).await?;
    }
    Ok(())
}

/// Removes a file from the store, unless the database knows it.
async fn remove_unknown(
    db: &PgPool,
    store: &FileStore,
    workspace_id: WorkspaceId,
    hash: &[u8; 32],
) -> Result<()> {
    let is_known = sqlx::query_scalar!(
        r#"select exists (
               select 1 from files where workspace_id = $1 and hash = $2
           ) as "is_known!""#,
        workspace_id as _,
        &hash[..]
    )
    .fetch_one(db)
    .await?;
    if is_known { Ok(()) } else { remove(db, store, workspace_id, hash).await }
}

/// Removes all files of a deleted workspace, whose messages are gone, and returns their number.
pub(crate) async fn remove_all_of(
    db: &PgPool,
    store: &FileStore,
    workspace_id: WorkspaceId,
) -> Result<usize> {
    let mut removed = 0;
    loop {
        let hashes = sqlx::query_scalar!(
            "update files
             set touched_at = clock_timestamp() - interval '25 hours'
             where workspace_id = $1
               and hash in (select hash from files where workspace_id = $1 order by hash limit $2)
             returning hash",
            workspace_id as _,
            BATCH
        )
        .fetch_all(db)
        .await?;
        if hashes.is_empty() {
            return Ok(removed);
        }
        for hash in hashes {
            if let Ok(hash) = hash.try_into() {
                remove(db, store, workspace_id, &hash).await?;
                removed += 1;
            }
        }
    }
}

/// Removes a file and its rows, unless it is held by a message or was touched meanwhile. The bytes go
/// before the commit: an upload of the same bytes waits for it, and then stores them again.
async fn remove(
    db: &PgPool,
    store: &FileStore,
    workspace_id: WorkspaceId,
    hash: &[u8; 32],
) -> Result<()> {
    let mut tx = begin(db, "begin").await?;
    file::lock(&mut tx, workspace_id, hash).await?;
    let is_held = sqlx::query_scalar!(
        r#"select exists (
               select 1 from message_files where workspace_id = $1 and hash = $2
           ) or exists (
               select 1 from files
               where workspace_id = $1
                 and hash = $2
                 and touched_at >= clock_timestamp() - interval '24 hours'
           ) as "is_held!""#,
        workspace_id as _,
        &hash[..]
    )
    .fetch_one(&mut *tx)
    .await?;
    if is_held {
        return Ok(());
    }
    sqlx::query!(
        "delete from files where workspace_id = $1 and hash = $2",
        workspace_id as _,
        &hash[..]
    )
    .execute(&mut *tx)
    .await?;
    store.remove(workspace_id, hash).await.map_err(|error| file::store_error(error.into()))?;
    Ok(tx.commit().await?)
}
