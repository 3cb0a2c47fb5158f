//! The pictures of people, one in each workspace.

use std::io::Cursor;

use aws_lc_rs::digest::{SHA256, digest};
use fechatter_core::event::Event;
use fechatter_core::log::Log;
use fechatter_core::{UserId, WorkspaceId};
use sqlx::PgPool;

use crate::error::{AppError, Result};
use crate::models::account::user;
use crate::models::session::current_user::CurrentUser;
use crate::services::media;
use crate::utils::file_url::hex;

/// The longest side, in pixels.
const MAX_SIDE: u32 = 4_096;

/// A picture.
#[derive(Debug)]
pub(crate) struct Avatar {
    pub(crate) mime: String,
    pub(crate) image: Vec<u8>,
    pub(crate) version: String,
}

/// Sets the caller's picture in their workspace, without the image's metadata.
pub(crate) async fn set(log: &Log, caller: CurrentUser, bytes: &[u8]) -> Result<()> {
    let mime = media::detect(bytes);
    if !media::is_image(mime) {
        return Err(AppError::NotAnImage);
    }
    let mut image = Cursor::new(Vec::new());
    let stripped = media::strip(mime, &mut Cursor::new(bytes), &mut image);
    let size = stripped.ok().flatten().ok_or(AppError::NotAnImage)?;
    if size.width > MAX_SIDE || size.height > MAX_SIDE {
        return Err(AppError::TooLarge("a picture has at most 4096 × 4096 pixels"));
    }
    let image = image.into_inner();
    let version: String = hex(digest(&SHA256, &image).as_ref()).chars().take(16).collect();
    let (mut writer, caller) = caller.lock(log).await?;
    sqlx::query!(
        "insert into avatars (workspace_id, user_id, mime, image)
         values ($1, $2, $3, $4)
         on conflict (workspace_id, user_id) do update
         set mime = excluded.mime, image = excluded.image",
        caller.workspace_id as _,
        caller.id as _,
        mime,
        image
    )
    .execute(writer.db())
    .await?;
    let updated = sqlx::query!(
        "update workspace_members
         set avatar_version = $3
         where workspace_id = $1 and user_id = $2 and avatar_version is distinct from $3",
        caller.workspace_id as _,
        caller.id as _,
        version
    )
    .execute(writer.db())
    .await?;
    if updated.rows_affected() > 0 {
        let person = user::find(writer.db(), caller.workspace_id, caller.id).await?;
        writer.append(caller.workspace_id, &Event::UserUpdated(person))?;
    }
    Ok(writer.commit().await?)
}

/// Removes the caller's picture, if there is one.
pub(crate) async fn remove(log: &Log, caller: CurrentUser) -> Result<()> {
    let (mut writer, caller) = caller.lock(log).await?;
    let removed = sqlx::query!(
        "with image as (
             delete from avatars where workspace_id = $1 and user_id = $2
         )
         update workspace_members
         set avatar_version = null
         where workspace_id = $1 and user_id = $2 and avatar_version is not null",
        caller.workspace_id as _,
        caller.id as _
    )
    .execute(writer.db())
    .await?;
    if removed.rows_affected() > 0 {
        let person = user::find(writer.db(), caller.workspace_id, caller.id).await?;
        writer.append(caller.workspace_id, &Event::UserUpdated(person))?;
    }
    Ok(writer.commit().await?)
}

/// Finds the picture of a person who is or was in the workspace.
pub(crate) async fn find(db: &PgPool, workspace_id: WorkspaceId, id: UserId) -> Result<Avatar> {
    let found = sqlx::query_as!(
        Avatar,
        r#"select a.mime, a.image, m.avatar_version as "version!"
           from avatars as a
           join workspace_members as m
               on m.workspace_id = a.workspace_id and m.user_id = a.user_id
           where a.workspace_id = $1 and a.user_id = $2 and m.avatar_version is not null"#,
        workspace_id as _,
        id as _
    )
    .fetch_optional(db)
    .await?;
    found.ok_or(AppError::NotFound)
}
