//! A workspace as its people see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, UserId, WorkspaceId};

/// A tenant: its people and chats see nothing of any other. A row of the view `workspace_objects`, which
/// every reader of workspaces reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "workspace_objects")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Workspace {
    pub id: WorkspaceId,
    pub name: String,
    pub owner_id: UserId,
    pub created_at: Timestamp,
    pub join_policy: JoinPolicy,
}

/// How people get into an existing workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum JoinPolicy {
    /// With an invite only.
    Invite,
    /// By knowing its name.
    Open,
}
