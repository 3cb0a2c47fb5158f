//! The configuration of this server: the keys of `app.yml` that only this server reads, and those
//! that both servers read.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use fechatter_core::config::{self as core, Settings};
use fechatter_core::workspace::JoinPolicy;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tracing::warn;
use utoipa::ToSchema;

/// The whole configuration of this server. It dereferences to the part that both servers read.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct Config {
    shared: core::Config,
    pub accounts: AccountsConfig,
    pub signing: SigningConfig,
    pub retention: RetentionConfig,
    pub files: FilesConfig,
    /// `server.chat_list_cache_mebibytes`.
    pub chat_list_cache_mebibytes: u32,
}

/// The parts of the file that only this server reads.
#[derive(Deserialize)]
struct Sections {
    accounts: AccountsConfig,
    auth: SigningConfig,
    retention: RetentionConfig,
    files: FilesConfig,
    server: Caches,
}

#[derive(Deserialize)]
struct Caches {
    chat_list_cache_mebibytes: u32,
}

/// `auth`: the keys that sign tokens, and a setting of the cookie.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct SigningConfig {
    pub private_key: Option<SecretString>,
    pub refresh_key: Option<SecretString>,
    pub secure_cookie: bool,
}

/// `accounts`: the rules for sign-up and sign-in, and their rate limits.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct AccountsConfig {
    pub workspace_creation: WorkspaceCreation,
    pub join_policy: JoinPolicy,
    pub refuse_common_passwords: bool,
    pub free_failures: i32,
    pub attempts_per_minute: i32,
    pub attempts_per_minute_per_site: i32,
    pub attempts_per_minute_overall: i32,
}

/// The people who may create workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceCreation {
    /// Any person who signs up.
    Anyone,
    /// Only the person with the link of `fechatter_server admin setup-link`, and only the first one.
    FirstOnly,
    /// No one.
    Nobody,
}

/// `files`: uploads and their store.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct FilesConfig {
    pub path: PathBuf,
    pub max_mebibytes: u32,
    pub max_upload_mebibytes: u32,
    pub workspace_mebibytes: u32,
    pub person_mebibytes: u32,
    pub s3: S3Config,
}

/// `files.s3`: a bucket for the files, instead of the folder.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct S3Config {
    pub bucket: String,
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: Option<SecretString>,
}

impl S3Config {
    pub(crate) fn is_used(&self) -> bool {
        !self.bucket.is_empty()
    }
}

impl FilesConfig {
    /// Returns the size of the largest file, in bytes.
    pub(crate) fn max_file(&self) -> u64 {
        u64::from(self.max_mebibytes) * 1024 * 1024
    }

    /// Returns the size of the largest upload, in bytes.
    pub(crate) fn max_upload(&self) -> u64 {
        u64::from(self.max_upload_mebibytes) * 1024 * 1024
    }
}

/// `retention`: the time for which data is kept.
#[derive(Debug, Clone, Copy, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct RetentionConfig {
    pub events_days: u32,
    pub ended_days: u32,
}

impl Config {
    /// Reads `.env`, then the file (by default `app.yml`), then the overrides of the environment.
    ///
    /// # Errors
    /// Names the key that is missing or of the wrong type, but never contains a value.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        Self::load_with_settings(path).map(|(config, _)| config)
    }

    /// Reads the configuration, and also returns the source of each value.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_with_settings(path: Option<&Path>) -> anyhow::Result<(Self, Settings)> {
        core::load(path, Self::from_settings)
    }

    /// Reads a configuration from YAML alone, without the environment.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn from_yaml(yaml: &str) -> anyhow::Result<Self> {
        Self::from_settings(&Settings::from_yaml(yaml)?)
    }

    fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        let shared = core::Config::from_settings(settings)?;
        let Sections { accounts, auth, retention, files, server } = settings.parse()?;
        for (key, is_positive) in [
            ("retention.events_days", retention.events_days > 0),
            ("retention.ended_days", retention.ended_days > 0),
            ("files.max_mebibytes", files.max_mebibytes > 0),
            ("files.max_upload_mebibytes", files.max_upload_mebibytes > 0),
            ("accounts.free_failures", accounts.free_failures > 0),
            ("accounts.attempts_per_minute", accounts.attempts_per_minute > 0),
            ("accounts.attempts_per_minute_per_site", accounts.attempts_per_minute_per_site > 0),
            ("accounts.attempts_per_minute_overall", accounts.attempts_per_minute_overall > 0),
        ] {
            ensure!(is_positive, "{key} is too small: it must be at least 1");
        }
        Ok(Self {
            shared,
            accounts,
            signing: auth,
            retention,
            files,
            chat_list_cache_mebibytes: server.chat_list_cache_mebibytes,
        })
    }

    /// Warns about probable mistakes.
    pub fn warn_of_mistakes(&self) {
        self.shared.warn_of_mistakes();
        if self.server.public_url.starts_with("https://") && !self.signing.secure_cookie {
            warn!("auth.secure_cookie is off although server.public_url is https");
        }
    }
}

impl Deref for Config {
    type Target = core::Config;

    fn deref(&self) -> &core::Config {
        &self.shared
    }
}

impl DerefMut for Config {
    fn deref_mut(&mut self) -> &mut core::Config {
        &mut self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../app.yml.example");

    #[test]
    fn invalid_values_are_not_repeated() {
        for (line, wrong, named) in [
            ("  refresh_key: REPLACE-WITH-KEYGEN\n", "  refresh_key: [hunter2]\n", "refresh_key"),
            ("  secure_cookie: true\n", "  secure_cookie: hunter2\n", "secure_cookie"),
            ("  join_policy: invite\n", "  join_policy: hunter2\n", "join_policy"),
        ] {
            assert!(EXAMPLE.contains(line), "{line}");
            let error = Config::from_yaml(&EXAMPLE.replace(line, wrong)).unwrap_err();
            for text in [format!("{error:#}"), format!("{error:?}")] {
                assert!(!text.contains("hunter2"), "{text}");
                assert!(text.contains(named), "{named}: {text}");
            }
        }
    }

    #[test]
    fn limits_of_attempts_are_positive() {
        let yaml = EXAMPLE.replace("free_failures: 5\n", "free_failures: 0\n");
        let error = Config::from_yaml(&yaml).unwrap_err();
        assert_eq!(error.to_string(), "accounts.free_failures is too small: it must be at least 1");
    }
}
