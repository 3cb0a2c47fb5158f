//! A person as a member of one workspace.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Timestamp, UserId, WorkspaceId};

/// A person as a workspace shows them: account and membership together.
// A row of the view of this name, which every query for people reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "user_objects")]
#[expect(missing_docs, reason = "the names say it; the contract is docs/API.md")]
pub struct User {
    pub id: UserId,
    pub fullname: String,
    pub email: String,
    pub status: UserStatus,
    pub created_at: Timestamp,
    pub workspace_id: WorkspaceId,
    pub role: Role,
    pub title: Option<String>,
    pub avatar_url: Option<String>,
}

/// The status of a person in a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(type_name = "text")]
pub enum UserStatus {
    /// The person may act.
    Active,
    /// The person may not act, but keeps their memberships.
    Suspended,
    /// The person has left the workspace or was removed from it. Their name stays on the messages
    /// that they wrote.
    Left,
}

/// A rank in a workspace or a chat; later ones include earlier ones.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    /// Reads and writes messages.
    Member,
    /// Also adds and removes people.
    Admin,
    /// Also gives roles; a chat has exactly one.
    Owner,
}
