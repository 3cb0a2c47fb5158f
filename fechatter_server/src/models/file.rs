//! Files: their rows, the right to see and send them, and quotas.

use std::collections::BTreeMap;

use fechatter_core::db::begin;
use fechatter_core::message::File;
use fechatter_core::{FileId, Timestamp, UserId, WorkspaceId};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::config::FilesConfig;
use crate::error::{AppError, Result};
use crate::models::session::current_user::CurrentUser;
use crate::services::file_store::{FileStore, Received};
use crate::utils::file_url::FileUrl;

/// The maximum number of files of a message.
pub(crate) const MAX_FILES: usize = 20;
const MIB: i64 = 1024 * 1024;

/// A file that somebody may see.
#[derive(Debug)]
pub(crate) struct Visible {
    pub(crate) name: String,
    pub(crate) mime: String,
    pub(crate) size: i64,
}

/// Gives an uploaded file its place, and notes who has uploaded it. A file with the same bytes is
/// stored once in a workspace.
pub(crate) async fn add(
    db: &PgPool,
    store: &FileStore,
    config: &FilesConfig,
    caller: &CurrentUser,
    (received, name): (Received, &str),
) -> Result<File> {
    let workspace_id = caller.workspace_id;
    let size = i64::try_from(received.size).map_err(|_| AppError::QuotaExceeded)?;
    let mut tx = begin(db, "begin").await?;
    lock(&mut tx, workspace_id, &received.hash).await?;
    check_quotas(&mut tx, config, caller, (&received.hash, size)).await?;
    let placed = store.place(workspace_id, &received).await.map_err(store_error)?;
    let [width, height] = received.image.map_or([None; 2], |image| {
        [image.width, image.height].map(|pixels| i32::try_from(pixels).ok())
    });
    let row = sqlx::query!(
        r#"with stored as (
               insert into files as f (workspace_id, hash, size, mime, width, height)
               values ($1, $2, $3, $4, $5, $6)
               on conflict (workspace_id, hash) do update set touched_at = clock_timestamp()
               returning f.id, f.created_at
           ), noted as (
               insert into uploads (workspace_id, hash, user_id, name)
               select $1, $2, $7, $8 from stored
               on conflict (workspace_id, hash, user_id) do update
               set name = excluded.name, uploaded_at = clock_timestamp()
           )
           select id as "id!: FileId", created_at as "created_at!: Timestamp" from stored"#,
        workspace_id as _,
        &received.hash[..],
        size,
        received.mime,
        width,
        height,
        caller.id as _,
        name
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    placed.keep();
    Ok(File {
        id: row.id,
        url: FileUrl::new(workspace_id, received.hash, name).to_string(),
        name: name.to_owned(),
        mime: received.mime.to_owned(),
        size,
        created_at: row.created_at,
        width,
        height,
        alt: None,
    })
}

/// An error of the store as one of the API: a full disk is not the server's fault.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn store_error(error: std::io::Error) -> AppError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        AppError::QuotaExceeded
    } else {
        tracing::error!(%error, "the file store failed");
        AppError::Busy
    }
}

/// Makes uploads and removals of the same bytes wait for each other, until the transaction ends.
pub(crate) async fn lock(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    hash: &[u8; 32],
) -> Result<()> {
    let start = hash.first_chunk().copied().unwrap_or_default();
    let key = i64::from_be_bytes(start) ^ workspace_id.0;
    sqlx::query!("select pg_advisory_xact_lock($1)", key).fetch_one(db).await?;
    Ok(())
}

/// Refuses a file for which there is no room in the workspace, or among the person's.
async fn check_quotas(
    db: &mut PgConnection,
    config: &FilesConfig,
    caller: &CurrentUser,
    (hash, size): (&[u8; 32], i64),
) -> Result<()> {
    // A quota is not exact while several files are uploaded at once: each is checked alone.
    let used = sqlx::query!(
        r#"select (select coalesce(sum(size), 0)::bigint from files where workspace_id = $1) as "all!",
                  (
                      select coalesce(sum(f.size), 0)::bigint
                      from uploads as u
                      join files as f on f.workspace_id = u.workspace_id and f.hash = u.hash
                      where u.workspace_id = $1 and u.user_id = $2
                  ) as "own!",
                  exists (
                      select 1 from files where workspace_id = $1 and hash = $3
                  ) as "is_stored!",
                  exists (
                      select 1 from uploads where workspace_id = $1 and hash = $3 and user_id = $2
                  ) as "is_own!""#,
        caller.workspace_id as _,
        caller.id as _,
        &hash[..]
    )
    .fetch_one(db)
    .await?;
    let exceeds = |used: i64, is_counted: bool, mebibytes: u32| {
        !is_counted && used.saturating_add(size) > i64::from(mebibytes) * MIB
    };
    if exceeds(used.all, used.is_stored, config.workspace_mebibytes)
        || exceeds(used.own, used.is_own, config.person_mebibytes)
    {
        return Err(AppError::QuotaExceeded);
    }
    Ok(())
}

/// Finds a file that a person may see now: they have uploaded it, or are in a chat that holds it. Its
/// name is that of the newest of these.
pub(crate) async fn find_visible(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    url: &FileUrl,
) -> Result<Visible> {
    let found = sqlx::query_as!(
        Visible,
        r#"select coalesce(names.held, names.own) as "name!", f.mime, f.size
           from files as f
           cross join lateral file_names(f.workspace_id, f.hash, $3) as names
           where f.workspace_id = $1
             and f.hash = $2
             and coalesce(names.held, names.own) is not null"#,
        url.workspace_id as _,
        &url.hash[..],
        user_id as _
    )
    .fetch_optional(db)
    .await?;
    found.ok_or(AppError::NotFound)
}

/// The files of a message that is not sent yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attached {
    /// Each as `write_batch` expects it. Empty if one of them is missing.
    pub(crate) files: Vec<Value>,
    /// One of them does not exist, or is not the sender's to send.
    pub(crate) is_missing: bool,
}

/// Looks up the files that a person wants to send: each uploaded by them, or in a chat of theirs. Those
/// that are found stay for at least another day.
pub(crate) async fn attach(
    db: &PgPool,
    (workspace_id, user_id): (WorkspaceId, UserId),
    urls: &[String],
    alts: &BTreeMap<&str, &str>,
) -> Result<Attached> {
    let parsed = urls.iter().map(|url| url.parse::<FileUrl>().ok());
    let parsed: Option<Vec<_>> =
        parsed.map(|url| url.filter(|url| url.workspace_id == workspace_id)).collect();
    let missing = Attached { files: Vec::new(), is_missing: true };
    let Some(parsed) = parsed else { return Ok(missing) };
    let hashes: Vec<_> = parsed.iter().map(|url| url.hash.to_vec()).collect();
    let names = sqlx::query!(
        r#"with touched as (
               update files
               set touched_at = clock_timestamp()
               where workspace_id = $1 and hash = any($3)
           )
           select coalesce(names.own, names.held) as "name!"
           from unnest($3::bytea[]) with ordinality as wanted (hash, item)
           join files as f on f.workspace_id = $1 and f.hash = wanted.hash
           cross join lateral file_names($1, wanted.hash, $2) as names
           where coalesce(names.own, names.held) is not null
           order by wanted.item"#,
        workspace_id as _,
        user_id as _,
        &hashes
    )
    .fetch_all(db)
    .await?;
    if names.len() != urls.len() {
        return Ok(missing);
    }
    let files = urls.iter().zip(parsed).zip(names).map(|((text, url), row)| {
        json!({
            "hash": url.hex(), "extension": url.extension, "name": row.name, "alt": alts.get(text.as_str()),
        })
    });
    Ok(Attached { files: files.collect(), is_missing: false })
}
