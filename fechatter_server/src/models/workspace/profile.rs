//! The profile of a person in a workspace: their name and title.

use fechatter_core::event::Event;
use fechatter_core::log::Log;
use fechatter_core::user::User;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::account::{user, words};
use crate::models::session::current_user::CurrentUser;
use crate::utils::json::{Change, not_null};
use crate::utils::text::{FullName, Title};

/// A change of the caller's profile. An absent field changes nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = FullName, required = false)]
    fullname: Option<FullName>,
    #[serde(default)]
    #[schema(value_type = Option<Title>, required = false)]
    title: Change<Title>,
}

/// Changes the caller's name and title in their workspace.
pub(crate) async fn update(
    log: &Log,
    caller: CurrentUser,
    changes: ProfileChanges,
) -> Result<User> {
    let (mut writer, caller) = caller.lock(log).await?;
    let before = user::find(writer.db(), caller.workspace_id, caller.id).await?;
    let fullname = changes.fullname.as_ref().map_or(&*before.fullname, FullName::as_str).to_owned();
    let title = match changes.title {
        Change::Leave => before.title.clone(),
        Change::Clear => None,
        Change::Set(title) => Some(title.as_str().to_owned()).filter(|title| !title.is_empty()),
    };
    let after = User { fullname, title, ..before.clone() };
    if after == before {
        return Ok(before);
    }
    sqlx::query!(
        "update workspace_members set fullname = $3, title = $4
         where workspace_id = $1 and user_id = $2",
        after.workspace_id as _,
        after.id as _,
        after.fullname,
        after.title
    )
    .execute(writer.db())
    .await?;
    words::store(writer.db(), &after).await?;
    writer.append(after.workspace_id, &Event::UserUpdated(after.clone()))?;
    writer.commit().await?;
    Ok(after)
}
