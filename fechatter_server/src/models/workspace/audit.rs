//! The audit log: what owners, admins and the operator have done to people, roles, invites and
//! workspaces. An entry is written in the transaction of the change that it names.

use fechatter_core::user::{Role, UserStatus};
use fechatter_core::workspace::{JoinPolicy, WorkspaceStatus};
use fechatter_core::{InviteId, Timestamp, UserId, WorkspaceId};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};
use utoipa::ToSchema;

use crate::error::Result;
use crate::models::session::current_user::CurrentUser;
use crate::utils::page::Page;

/// The author of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Author<'a> {
    /// A person of the workspace.
    Person(UserId),
    /// The operator, by the name of their account in the operating system.
    Operator(&'a str),
}

/// A change that is audited.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    CreatedWorkspace,
    ChangedWorkspaceStatus(WorkspaceStatus),
    SignedOut(UserId),
    ErasedAccount(UserId),
    ChangedWorkspace { name: Option<String>, join_policy: Option<JoinPolicy> },
    ChangedRole { person: UserId, from: Role, to: Role },
    ChangedStatus { person: UserId, to: UserStatus },
    RemovedPerson(UserId),
    CreatedResetLink(UserId),
    CreatedInvite { invite: InviteId, role: Role, max_uses: i32 },
    DeletedInvite(InviteId),
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    id: i64,
    at: Timestamp,
    /// The person who made the change; null for the operator, whom `details.operator` names.
    actor: Option<UserId>,
    /// For example `user.suspended`.
    action: String,
    /// Null for a change of the workspace itself.
    target: Option<AuditTarget>,
    /// Facts about the change, by its action.
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    details: Value,
}

/// The object that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditTarget {
    /// `user` or `invite`.
    r#type: String,
    id: i64,
}

impl Action {
    /// Returns the action's stable name, its target, and its details.
    fn columns(&self) -> (&'static str, Option<(&'static str, i64)>, Value) {
        let user = |id: UserId| Some(("user", id.0));
        match self {
            Self::CreatedWorkspace => ("workspace.created", None, json!({})),
            Self::ChangedWorkspace { name, join_policy } => {
                let mut details = json!({});
                if let Some(name) = name {
                    details["name"] = json!(name);
                }
                if let Some(policy) = join_policy {
                    details["join_policy"] = json!(policy);
                }
                ("workspace.changed", None, details)
            }
            Self::ChangedWorkspaceStatus(WorkspaceStatus::Active) => {
                ("workspace.restored", None, json!({}))
            }
            Self::ChangedWorkspaceStatus(WorkspaceStatus::Suspended) => {
                ("workspace.suspended", None, json!({}))
            }
            Self::ChangedWorkspaceStatus(WorkspaceStatus::Deleted) => {
                ("workspace.deleted", None, json!({}))
            }
            Self::ChangedRole { person, from, to } => {
                ("user.role_changed", user(*person), json!({ "from": from, "to": to }))
            }
            Self::ChangedStatus { person, to: UserStatus::Suspended } => {
                ("user.suspended", user(*person), json!({}))
            }
            Self::ChangedStatus { person, .. } => ("user.restored", user(*person), json!({})),
            Self::RemovedPerson(id) => ("user.removed", user(*id), json!({})),
            Self::ErasedAccount(id) => ("user.erased", user(*id), json!({})),
            Self::SignedOut(id) => ("user.signed_out", user(*id), json!({})),
            Self::CreatedResetLink(id) => ("user.reset_link_created", user(*id), json!({})),
            Self::CreatedInvite { invite, role, max_uses } => (
                "invite.created",
                Some(("invite", invite.0)),
                json!({ "role": role, "max_uses": max_uses }),
            ),
            Self::DeletedInvite(id) => ("invite.deleted", Some(("invite", id.0)), json!({})),
        }
    }
}

/// Writes an entry. The caller commits it together with the change.
pub(crate) async fn record(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    author: Author<'_>,
    action: Action,
) -> Result<()> {
    let (name, target, mut details) = action.columns();
    let actor = match author {
        Author::Person(id) => Some(id),
        Author::Operator(operator) => {
            details["operator"] = json!(operator);
            None
        }
    };
    sqlx::query!(
        "insert into audit_log (workspace_id, actor_id, action, target_type, target_id, details)
         values ($1, $2, $3, $4, $5, $6)",
        workspace_id as _,
        actor as _,
        name,
        target.map(|(kind, _)| kind),
        target.map(|(_, id)| id),
        details
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lists the entries of the caller's workspace, newest first: those of one person, or all. The caller
/// is an owner.
pub(crate) async fn list(
    db: &PgPool,
    caller: &CurrentUser,
    actor: Option<UserId>,
    page: Page<1>,
) -> Result<(Vec<AuditEntry>, Option<String>)> {
    caller.require_role(Role::Owner)?;
    let [before] = page.after.unwrap_or([i64::MAX]);
    let rows = sqlx::query!(
        r#"select id, at, actor_id, action, target_type,
                  target_id, details
           from audit_log
           where workspace_id = $1
             and id < $2
             and ($3::bigint is null or actor_id = $3)
           order by id desc
           limit $4"#,
        caller.workspace_id as _,
        before,
        actor as _,
        page.limit + 1
    )
    .fetch_all(db)
    .await?;
    let entries = rows.into_iter().map(|row| AuditEntry {
        id: row.id,
        at: row.at,
        actor: row.actor_id,
        action: row.action,
        target: row.target_type.zip(row.target_id).map(|(r#type, id)| AuditTarget { r#type, id }),
        details: row.details,
    });
    let mut entries: Vec<_> = entries.collect();
    let next = page.cut(&mut entries, |entry| [entry.id]);
    Ok((entries, next))
}
