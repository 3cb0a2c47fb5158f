//! The data that a client needs at its start, from one snapshot.

use fechatter_core::Timestamp;
use fechatter_core::clock::Clock;
use fechatter_core::db::begin;
use fechatter_core::log::{self, Cursor};
use fechatter_core::user::User;
use fechatter_core::workspace::Workspace;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::account::user::{self, Filter};
use crate::models::chat::preference::{self, Preferences};
use crate::models::chat::sidebar::{self, ChatSidebar};
use crate::models::session::current_user::CurrentUser;
use crate::models::workspace::lookup;
use crate::utils::page::Page;

/// The caller's view of their workspace at one position of its log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sync {
    /// The cursor for `GET /events`, which continues exactly after this state.
    cursor: Cursor,
    server_time: Timestamp,
    me: User,
    workspace: Workspace,
    preferences: Preferences,
    chats: Vec<ChatSidebar>,
    /// All people of the workspace, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<User>, required = false)]
    users: Option<Vec<User>>,
}

/// Reads everything in one snapshot, so that state and cursor match.
pub(crate) async fn read(
    db: &PgPool,
    caller: &CurrentUser,
    clock: &Clock,
    with_users: bool,
) -> Result<Sync> {
    let mut tx = begin(db, "begin isolation level repeatable read read only").await?;
    let caller = caller.recheck(&mut *tx).await?;
    let cursor = log::head(&mut *tx, caller.workspace_id).await?;
    let me = user::find(&mut *tx, caller.workspace_id, caller.id).await?;
    let workspace = lookup::find(&mut *tx, caller.workspace_id).await?;
    let preferences = preference::read(&mut *tx, &caller).await?;
    let chats = sidebar::list(&mut *tx, &caller, None, None).await?;
    let users = if with_users {
        Some(user::list(&mut *tx, caller.workspace_id, Filter::default(), Page::ALL).await?.0)
    } else {
        None
    };
    tx.commit().await?;
    Ok(Sync { cursor, server_time: clock.timestamp(), me, workspace, preferences, chats, users })
}
