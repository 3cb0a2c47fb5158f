//! The shares of scarce resources.

use anyhow::bail;
use serde::Deserialize;

/// `limits`: the share of each scarce resource that one person, one address and one workspace may
/// take of a server. ARCHITECTURE.md has the table of them.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct LimitsConfig {
    pub connections: usize,
    pub connections_per_address: usize,
    pub hashes_per_address: usize,
    pub database_percent_per_workspace: u32,
    pub database_percent_per_person: u32,
    pub log_connections_per_workspace: usize,
    pub replays_per_workspace: usize,
    pub replays_per_person: usize,
    pub request_mebibytes: usize,
    pub request_mebibytes_per_workspace: usize,
    pub request_mebibytes_per_person: usize,
    pub answer_mebibytes: usize,
    pub answer_mebibytes_per_workspace: usize,
    pub answer_mebibytes_per_person: usize,
    pub chats_per_person: i64,
    pub workspaces_per_person: i64,
    pub sessions_per_person: i64,
    pub invites_per_person: i64,
}

impl LimitsConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (key, value) in [
            ("database_percent_per_workspace", self.database_percent_per_workspace),
            ("database_percent_per_person", self.database_percent_per_person),
        ] {
            if !(1..=100).contains(&value) {
                bail!("limits.{key} must be a number from 1 to 100");
            }
        }
        for (key, value) in [
            ("connections", self.connections),
            ("connections_per_address", self.connections_per_address),
            ("hashes_per_address", self.hashes_per_address),
            ("log_connections_per_workspace", self.log_connections_per_workspace),
            ("replays_per_workspace", self.replays_per_workspace),
            ("replays_per_person", self.replays_per_person),
            ("request_mebibytes", self.request_mebibytes),
            ("request_mebibytes_per_workspace", self.request_mebibytes_per_workspace),
            ("request_mebibytes_per_person", self.request_mebibytes_per_person),
            ("answer_mebibytes", self.answer_mebibytes),
            ("answer_mebibytes_per_workspace", self.answer_mebibytes_per_workspace),
            ("answer_mebibytes_per_person", self.answer_mebibytes_per_person),
        ] {
            if value == 0 {
                bail!("limits.{key} is too small");
            }
        }
        for (key, value) in [
            ("chats_per_person", self.chats_per_person),
            ("workspaces_per_person", self.workspaces_per_person),
            ("sessions_per_person", self.sessions_per_person),
            ("invites_per_person", self.invites_per_person),
        ] {
            if value <= 0 {
                bail!("limits.{key} is too small");
            }
        }
        Ok(())
    }
}
