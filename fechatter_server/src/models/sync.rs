//! The data that a client needs at its start, from one snapshot.

use fechatter_core::Timestamp;
use fechatter_core::clock::Clock;
use fechatter_core::db::begin;
use fechatter_core::log::{self, Cursor};
use fechatter_core::user::User;
use fechatter_core::workspace::Workspace;
use serde::{Deserialize, Serialize};
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
    /// The people of the workspace whom the request asks for, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<User>, required = false)]
    users: Option<Vec<User>>,
}

/// The people in a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SyncUsers {
    /// All people of the workspace.
    #[default]
    True,
    /// None.
    False,
    /// The caller, the other people of their Singles, and the senders of the last messages of their
    /// chats.
    Sidebar,
}

/// Reads everything in one snapshot, so that state and cursor match.
pub(crate) async fn read(
    db: &PgPool,
    caller: &CurrentUser,
    clock: &Clock,
    wanted: SyncUsers,
) -> Result<Sync> {
    let mut tx = begin(db, "begin isolation level repeatable read read only").await?;
    let caller = caller.recheck(&mut *tx).await?;
    let cursor = log::head(&mut *tx, caller.workspace_id).await?;
    let me = user::find(&mut *tx, caller.workspace_id, caller.id).await?;
    let workspace = lookup::find(&mut *tx, caller.workspace_id).await?;
    let preferences = preference::read(&mut *tx, &caller).await?;
    let chats = sidebar::list(&mut *tx, &caller, None, None).await?;
    let ids = match wanted {
        SyncUsers::True | SyncUsers::False => None,
        SyncUsers::Sidebar => {
            let people = chats.iter().flat_map(ChatSidebar::people);
            Some(people.chain([caller.id]).collect())
        }
    };
    let users = if wanted == SyncUsers::False {
        None
    } else {
        let filter = Filter { ids, ..Filter::default() };
        let (users, _) = user::list(&mut *tx, caller.workspace_id, filter, Page::ALL).await?;
        Some(users.into_iter().map(|listed| listed.user).collect())
    };
    tx.commit().await?;
    Ok(Sync { cursor, server_time: clock.timestamp(), me, workspace, preferences, chats, users })
}
