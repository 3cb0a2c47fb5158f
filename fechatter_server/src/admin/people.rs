//! Commands for people and their accounts.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use fechatter_core::log::LogWriter;
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{UserId, WorkspaceId};
use serde_json::json;

use super::context::{Admin, Report, refusal};
use crate::error::AppError;
use crate::models::account::{credentials, user};
use crate::models::session::{self, Selection, password_reset};
use crate::models::workspace::audit::{self, Action, Author};
use crate::models::workspace::erasure::{self, MessagesOf};
use crate::models::workspace::{lookup, role};
use crate::services::limits::Caller;
use crate::services::password::Passwords;
use crate::utils::key::key;
use crate::utils::text::Password;

/// See [`super::DatabaseCommand::User`].
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List people: those of one workspace, or all accounts.
    List {
        /// Only the people of this workspace.
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
    },
    /// Show an account with its workspaces and sessions.
    Show {
        /// The account's e-mail address.
        email: String,
    },
    /// Suspend a person in a workspace. It ends their access there at once.
    Suspend(Membership),
    /// Let a suspended person in again.
    Restore(Membership),
    /// End all sessions of an account, in all workspaces.
    SignOut {
        /// The account's e-mail address.
        email: String,
    },
    /// Give a person another role in a workspace.
    SetRole {
        #[command(flatten)]
        membership: Membership,
        /// The new role.
        #[arg(value_enum)]
        role: GivenRole,
    },
    /// Erase an account in all workspaces: name, address, picture, sessions. Messages name a
    /// "Former member" afterwards.
    Erase {
        /// The account's e-mail address.
        email: String,
        /// The fate of the person's messages.
        #[arg(long, value_enum, default_value = "keep")]
        messages: MessagesOf,
    },
    /// Print a link with which a person sets a new password, once, within an hour.
    ResetLink {
        /// The account's e-mail address.
        email: String,
    },
}

/// A person in a workspace.
#[derive(Debug, Args)]
pub struct Membership {
    /// The account's e-mail address.
    email: String,
    /// The workspace's name, if the account is in several.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
}

/// A role in a workspace.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum GivenRole {
    Member,
    Admin,
    Owner,
}

impl Admin {
    pub(super) async fn user(&self, command: Command) -> anyhow::Result<Report> {
        match command {
            Command::List { workspace } => self.list_people(workspace.as_deref()).await,
            Command::Show { email } => self.show_account(&email).await,
            Command::Suspend(membership) => {
                self.set_status(&membership, UserStatus::Suspended).await
            }
            Command::Restore(membership) => self.set_status(&membership, UserStatus::Active).await,
            Command::SignOut { email } => self.sign_out(&email).await,
            Command::SetRole { membership, role } => self.set_role(&membership, role.into()).await,
            Command::Erase { email, messages } => self.erase(&email, messages).await,
            Command::ResetLink { email } => self.reset_link(&email).await,
        }
    }

    async fn list_people(&self, workspace: Option<&str>) -> anyhow::Result<Report> {
        let workspace_id = match workspace {
            Some(name) => Some(self.find_workspace(name).await?),
            None => None,
        };
        let people = user::list_everywhere(&self.db, workspace_id, None).await?;
        let rows: Vec<_> = people
            .iter()
            .map(|listed| {
                let User { email, fullname, role, status, .. } = &listed.user;
                [
                    email.clone(),
                    fullname.clone(),
                    listed.workspace.clone(),
                    text(*role),
                    format!("{status:?}"),
                ]
            })
            .collect();
        Report::table(["e-mail", "name", "workspace", "role", "status"], &rows, &people)
    }

    async fn show_account(&self, email: &str) -> anyhow::Result<Report> {
        let id = self.find_account(email).await?;
        let memberships = user::list_everywhere(&self.db, None, Some(id)).await?;
        let sessions = session::count(&self.db, id).await?;
        let mut text = format!("{email} (account {id}), {sessions} sessions\n");
        for listed in &memberships {
            let User { fullname, role, status, .. } = &listed.user;
            let (workspace, role) = (&listed.workspace, self::text(*role));
            let _ = writeln!(text, "  {workspace}: {fullname}, {role}, {status:?}");
        }
        let json =
            json!({ "id": id, "email": email, "sessions": sessions, "workspaces": memberships });
        Report::new(text, &json)
    }

    async fn set_status(
        &self,
        membership: &Membership,
        status: UserStatus,
    ) -> anyhow::Result<Report> {
        self.change(membership, |before| User { status, ..before.clone() }).await
    }

    async fn set_role(&self, membership: &Membership, role: Role) -> anyhow::Result<Report> {
        self.change(membership, |before| User { role, ..before.clone() }).await
    }

    /// Changes a person's role or status.
    async fn change(
        &self,
        membership: &Membership,
        change: impl FnOnce(&User) -> User,
    ) -> anyhow::Result<Report> {
        let (workspace_id, user_id) = self.find_membership(membership).await?;
        let mut writer = LogWriter::lock(&self.log, &[workspace_id]).await?;
        let before = user::find(writer.db(), workspace_id, user_id).await.map_err(refusal)?;
        let after = change(&before);
        let workspace = lookup::find(writer.db(), workspace_id).await?;
        let User { email, role, status, .. } = &after;
        let text = format!("{email} in {}: {}, {status:?}", workspace.name, text(*role));
        if after == before {
            return Report::new(format!("{text} already; nothing changed"), &after);
        }
        role::set(&mut writer, self.author(), &before, &after).await.map_err(refusal)?;
        writer.commit().await?;
        Report::new(text, &after)
    }

    async fn sign_out(&self, email: &str) -> anyhow::Result<Report> {
        let id = self.find_account(email).await?;
        let (mut writer, workspaces) = session::lock_everywhere(&self.db, &self.log, id).await?;
        let ended = session::end(&mut writer, id, &workspaces, Selection::All).await?;
        self.record_everywhere(&mut writer, &workspaces, &Action::SignedOut(id)).await?;
        writer.commit().await?;
        let text = format!("{email}: {} sessions have ended", ended.len());
        Report::new(text, &json!({ "session_ids": ended }))
    }

    async fn erase(&self, email: &str, messages: MessagesOf) -> anyhow::Result<Report> {
        let id = self.find_account(email).await?;
        let caller = Caller::Address(Ipv4Addr::LOCALHOST.into());
        let hash = Passwords::new(1)?.permit(caller)?.hash(&Password::random()).await?;
        let mut writer = erasure::lock(&self.db, &self.log, id).await.map_err(refusal)?;
        let old = credentials::password_hash(writer.db(), id).await?;
        credentials::set_password_hash(writer.db(), id, &old, &hash).await?;
        let workspaces = erasure::workspaces_ever(writer.db(), id).await?;
        erasure::erase(&mut writer, id, messages).await.map_err(|error| match error {
            AppError::LastOwnerOf(names) => anyhow!(
                "{email} is the last owner of {}: make somebody else an owner, or delete it first",
                names.join(", ")
            ),
            error => refusal(error),
        })?;
        self.record_everywhere(&mut writer, &workspaces, &Action::ErasedAccount(id)).await?;
        writer.commit().await?;
        Report::new(
            format!("The account of {email} is erased in {} workspaces", workspaces.len()),
            &json!({ "id": id, "workspace_ids": workspaces }),
        )
    }

    async fn reset_link(&self, email: &str) -> anyhow::Result<Report> {
        let id = self.find_account(email).await?;
        let (mut writer, workspaces) = session::lock_everywhere(&self.db, &self.log, id).await?;
        let link = password_reset::create_link(writer.db(), &self.config, id).await?;
        self.record_everywhere(&mut writer, &workspaces, &Action::CreatedResetLink(id)).await?;
        writer.commit().await?;
        let purpose = format!("With this link, {email} sets a new password");
        Ok(Report::link(&purpose, &link.url, link.expires_at))
    }

    pub(super) fn author(&self) -> Author<'_> {
        Author::Operator(&self.operator)
    }

    async fn record_everywhere(
        &self,
        writer: &mut LogWriter,
        workspaces: &[WorkspaceId],
        action: &Action,
    ) -> anyhow::Result<()> {
        for workspace_id in workspaces {
            audit::record(writer.db(), *workspace_id, self.author(), action.clone()).await?;
        }
        Ok(())
    }

    /// Finds the account of this address.
    pub(super) async fn find_account(&self, email: &str) -> anyhow::Result<UserId> {
        let found = credentials::find(&self.db, &key(email.trim())).await?;
        Ok(found.with_context(|| format!("there is no account of {email}"))?.id)
    }

    async fn find_membership(
        &self,
        Membership { email, workspace }: &Membership,
    ) -> anyhow::Result<(WorkspaceId, UserId)> {
        let id = self.find_account(email).await?;
        if let Some(name) = workspace {
            return Ok((self.find_workspace(name).await?, id));
        }
        let memberships = user::list_everywhere(&self.db, None, Some(id)).await?;
        match &*memberships {
            [only] => Ok((only.user.workspace_id, id)),
            [] => Err(anyhow!("{email} is in no workspace")),
            several => {
                let names: Vec<_> = several.iter().map(|listed| &*listed.workspace).collect();
                let names = names.join(", ");
                Err(anyhow!("{email} is in several workspaces; name one with --workspace: {names}"))
            }
        }
    }
}

impl From<GivenRole> for Role {
    fn from(role: GivenRole) -> Self {
        match role {
            GivenRole::Member => Self::Member,
            GivenRole::Admin => Self::Admin,
            GivenRole::Owner => Self::Owner,
        }
    }
}

fn text(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}
