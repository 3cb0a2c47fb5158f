//! Commands for workspaces and invites.

use anyhow::{Context, anyhow, ensure};
use clap::Subcommand;
use fechatter_core::log::LogWriter;
use fechatter_core::user::Role;
use fechatter_core::workspace::{Workspace, WorkspaceStatus};

use super::context::{Admin, Report, refusal};
use super::people::GivenRole;
use crate::models::account::user;
use crate::models::workspace::audit::{self, Action};
use crate::models::workspace::invite::{self, InviteDraft};
use crate::models::workspace::{self, WorkspaceChanges, lookup, status};
use crate::services::file_store::FileStore;
use crate::services::workspace_removal;
use crate::utils::text::{Email, WorkspaceName};

/// See [`super::DatabaseCommand::Workspace`].
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a workspace for an account that exists.
    Create {
        /// The name of the new workspace.
        name: String,
        /// The e-mail address of the account that owns it.
        #[arg(long, value_name = "EMAIL")]
        owner: String,
    },
    /// List all workspaces.
    List,
    /// Show a workspace and its owners.
    Show {
        /// The workspace's name.
        name: String,
    },
    /// Rename a workspace.
    Rename {
        /// The workspace's name.
        name: String,
        /// Its new name.
        to: String,
    },
    /// Suspend a workspace: nobody can use it until it is restored.
    Suspend {
        /// The workspace's name.
        name: String,
    },
    /// Let people use a suspended workspace again.
    Restore {
        /// The workspace's name.
        name: String,
    },
    /// Delete a workspace with its chats, messages and files, for ever. Accounts stay.
    Delete {
        /// The workspace's name.
        name: String,
        /// The workspace's name again, to show that you mean it.
        #[arg(long, value_name = "NAME")]
        yes_really: String,
    },
}

/// See [`super::DatabaseCommand::Invite`].
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Print a link that leads to a workspace, for 7 days, in its owner's name.
    Create {
        /// The workspace's name.
        workspace: String,
        /// The only address that may use it.
        #[arg(long)]
        email: Option<String>,
        /// The role of whoever uses it.
        #[arg(long, value_enum, default_value = "member")]
        role: GivenRole,
        /// The number of people who may use it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        uses: i32,
    },
}

impl Admin {
    pub(super) async fn workspace(&self, command: Command) -> anyhow::Result<Report> {
        match command {
            Command::Create { name, owner } => self.create_workspace(name, &owner).await,
            Command::List => self.list_workspaces().await,
            Command::Show { name } => self.show_workspace(&name).await,
            Command::Rename { name, to } => self.rename_workspace(&name, to).await,
            Command::Suspend { name } => {
                self.set_workspace_status(&name, WorkspaceStatus::Suspended).await
            }
            Command::Restore { name } => {
                self.set_workspace_status(&name, WorkspaceStatus::Active).await
            }
            Command::Delete { name, yes_really } => self.delete_workspace(&name, &yes_really).await,
        }
    }

    async fn create_workspace(&self, name: String, owner: &str) -> anyhow::Result<Report> {
        let name = workspace_name(name)?;
        let id = self.find_account(owner).await?;
        let known = user::list_everywhere(&self.db, None, Some(id)).await?;
        let fullname = known.first().map_or(owner, |listed| &listed.user.fullname);
        let fullname: String = fullname.chars().take(50).collect();
        let mut writer = LogWriter::begin(&self.log).await?;
        let created = workspace::create(&mut writer, &self.config, &name, (id, &fullname)).await;
        let owner = created.map_err(refusal)?;
        let owner =
            owner.with_context(|| format!("there is a workspace like {}", name.as_str()))?;
        let workspace = lookup::find(writer.db(), owner.workspace_id).await?;
        audit::record(writer.db(), workspace.id, self.author(), Action::CreatedWorkspace).await?;
        writer.commit().await?;
        let text = format!(
            "Created {} (workspace {}), owned by {}",
            workspace.name, workspace.id, owner.email
        );
        Report::new(text, &workspace)
    }

    async fn list_workspaces(&self) -> anyhow::Result<Report> {
        let workspaces = workspace::list_all(&self.db).await?;
        let rows: Vec<_> = workspaces
            .iter()
            .map(|workspace| {
                let Workspace { id, name, member_count, status, .. } = workspace;
                let policy = format!("{:?}", workspace.join_policy).to_lowercase();
                let status = format!("{status:?}");
                [id.to_string(), name.clone(), member_count.to_string(), policy, status]
            })
            .collect();
        Report::table(["id", "name", "people", "joined by", "status"], &rows, &workspaces)
    }

    async fn show_workspace(&self, name: &str) -> anyhow::Result<Report> {
        let id = self.find_workspace(name).await?;
        let workspace = lookup::find(&self.db, id).await?;
        let people = user::list_everywhere(&self.db, Some(id), None).await?;
        let owners = people.iter().filter(|listed| listed.user.role == Role::Owner);
        let owners: Vec<_> = owners.map(|listed| &*listed.user.email).collect();
        let created = workspace.created_at.0.format("%Y-%m-%d");
        let text = format!(
            "{} (workspace {id}), {:?}, since {created}\n  people: {}\n  owners: {}\n",
            workspace.name,
            workspace.status,
            workspace.member_count,
            owners.join(", ")
        );
        Report::new(text, &workspace)
    }

    async fn rename_workspace(&self, name: &str, to: String) -> anyhow::Result<Report> {
        let id = self.find_workspace(name).await?;
        let changes = WorkspaceChanges { name: Some(workspace_name(to)?), ..Default::default() };
        let mut writer = LogWriter::lock(&self.log, &[id]).await?;
        let renamed = workspace::change(&mut writer, self.author(), id, changes).await;
        let workspace = renamed.map_err(refusal)?;
        writer.commit().await?;
        Report::new(format!("{name} is now {}", workspace.name), &workspace)
    }

    async fn set_workspace_status(
        &self,
        name: &str,
        status: WorkspaceStatus,
    ) -> anyhow::Result<Report> {
        let id = self.find_workspace(name).await?;
        let mut writer = LogWriter::lock(&self.log, &[id]).await?;
        let workspace = lookup::find(writer.db(), id).await?;
        let text = format!("{}: {status:?}", workspace.name);
        if workspace.status == status {
            return Report::new(format!("{text} already; nothing changed"), &workspace);
        }
        let changed = status::set(&mut writer, self.author(), id, status).await;
        let workspace = changed.map_err(refusal)?;
        writer.commit().await?;
        Report::new(text, &workspace)
    }

    /// Deletes a workspace, and then removes its data. If this is interrupted, the servers go on.
    async fn delete_workspace(&self, name: &str, again: &str) -> anyhow::Result<Report> {
        ensure!(
            name == again,
            "nothing was deleted: --yes-really must repeat the workspace's name, {name}"
        );
        let files = FileStore::open(&self.config.files)?;
        let report = self.set_workspace_status(name, WorkspaceStatus::Deleted).await?;
        eprintln!("{name} is deleted; removing its data");
        let id = serde_json::from_value(report.json["id"].clone())?;
        let removing = workspace_removal::remove(&self.db, &files, id, |step| {
            eprintln!("removed {step}");
        });
        removing.await.map_err(refusal)?;
        Report::new(
            format!("{name} is deleted. The servers remove its log in a minute."),
            &report.json,
        )
    }

    pub(super) async fn invite(&self, command: InviteCommand) -> anyhow::Result<Report> {
        let InviteCommand::Create { workspace, email, role, uses } = command;
        let id = self.find_workspace(&workspace).await?;
        let email = email.map(Email::try_from).transpose();
        let email = email.map_err(|issue| anyhow!("the e-mail address {issue}"))?;
        let draft = InviteDraft::new(role.into(), uses, email);
        let mut writer = LogWriter::lock(&self.log, &[id]).await?;
        let owner = lookup::find(writer.db(), id).await?.owner_id;
        let created =
            invite::insert(writer.db(), (id, owner), self.author(), &self.config, draft).await?;
        writer.commit().await?;
        let purpose = format!("This link leads to {workspace}");
        let mut report = Report::link(&purpose, &created.url, created.invite.expires_at);
        report.json = serde_json::to_value(&created)?;
        Ok(report)
    }
}

fn workspace_name(name: String) -> anyhow::Result<WorkspaceName> {
    WorkspaceName::try_from(name).map_err(|issue| anyhow!("the workspace's name {issue}"))
}
