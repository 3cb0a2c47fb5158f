//! A workspace as its members see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, UserId, WorkspaceId};

/// A tenant, isolated from all others.
// A row of the view of this name, which every query for workspaces reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "workspace_objects")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct Workspace {
    pub id: WorkspaceId,
    pub name: String,
    pub owner_id: UserId,
    pub created_at: Timestamp,
    pub join_policy: JoinPolicy,
    /// The number of people in it, including those who are suspended.
    #[schema(minimum = 0)]
    pub member_count: i64,
    /// Left out while it is active.
    #[serde(default, skip_serializing_if = "WorkspaceStatus::is_active")]
    pub status: WorkspaceStatus,
}

/// The state of a workspace. Only the operator changes it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, sqlx::Type, ToSchema,
)]
#[sqlx(type_name = "text")]
pub enum WorkspaceStatus {
    /// Its people may use it.
    #[default]
    Active,
    /// Nobody may use it until the operator restores it.
    Suspended,
    /// It is gone for everybody, and its data is being removed.
    Deleted,
}

/// The rule for joining an existing workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum JoinPolicy {
    /// With an invite only.
    Invite,
    /// By knowing its name.
    Open,
}

impl WorkspaceStatus {
    /// Returns true if its people may use it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}
