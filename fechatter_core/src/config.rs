//! The configuration file `app.yml`, read by both servers.
//!
//! Every key has a default (`config/defaults.yml`), except the addresses for people, the database and
//! the keys of tokens. `FECHATTER__SECTION__KEY` overrides each key, and `DATABASE_URL` also
//! overrides the address of the database. Lists are separated by commas in the environment. An
//! unknown key is a warning, so that a version also starts with the file of a newer one.

mod address;
mod fault;
mod limits;
mod source;

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tracing::warn;

use address::PageOrigin;
pub use limits::LimitsConfig;
pub use source::Settings;

/// The sections that both servers read.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct Config {
    pub server: ServerConfig,
    pub notify: NotifyConfig,
    pub http: HttpConfig,
    pub database: DatabaseConfig,
    pub auth: AuthConfig,
    pub limits: LimitsConfig,
    pub log: LogConfig,
    /// A warning for each key that this version does not know.
    #[serde(skip)]
    pub unknown_keys: Vec<String>,
}

/// `server`: the REST API.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub operations_listen: SocketAddr,
    #[serde(deserialize_with = "address::without_path")]
    pub public_url: String,
}

/// `notify`: the event streams.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct NotifyConfig {
    pub listen: SocketAddr,
    pub operations_listen: SocketAddr,
    #[serde(deserialize_with = "address::with_path")]
    pub public_url: String,
    pub streams_per_user: usize,
    pub streams: usize,
    pub recent_events: usize,
    pub recent_mebibytes: usize,
}

/// `http`: the rules for requests to either server.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct HttpConfig {
    #[serde(deserialize_with = "origins")]
    pub allowed_origins: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<IpNet>,
    pub requests_per_second: u32,
    pub burst: u32,
    pub keep_alive_seconds: u32,
    pub hsts_seconds: u32,
}

/// The default of `http.keep_alive_seconds`: longer than most proxies keep idle connections (nginx
/// 60 s, `HAProxy` and Apache less, Caddy 120 s).
pub(crate) const DEFAULT_KEEP_ALIVE: u32 = 150;

/// `database`.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct DatabaseConfig {
    pub url: SecretString,
    /// Needed by `notify_server` only.
    pub listen_url: Option<SecretString>,
    pub max_connections: u32,
}

/// `auth`: the keys that check tokens. Those that make tokens are known to `fechatter_server` alone.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct AuthConfig {
    #[serde(deserialize_with = "list")]
    pub public_keys: Vec<String>,
}

/// `log`: the log output of the servers.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "app.yml.example explains every key")]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// JSON for machines, one object per line.
    Json,
}

/// Reads `.env`, then the file (`app.yml` unless named), then the environment's overrides, and makes
/// a configuration of them.
///
/// # Errors
/// Names the key that is missing or of the wrong type, but never shows a value.
pub fn load<T>(
    path: Option<&Path>,
    from_settings: impl FnOnce(&Settings) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Settings)> {
    env_file::load_nearest()?;
    let path = path
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("FECHATTER_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| "app.yml".into());
    if !path.exists() {
        bail!(
            "there is no configuration {}: copy app.yml.example there, or name another file with \
             --config or FECHATTER_CONFIG",
            path.display()
        );
    }
    let read = || {
        let settings = Settings::read(&path)?;
        Ok::<_, anyhow::Error>((from_settings(&settings)?, settings))
    };
    read().with_context(|| format!("the configuration {} is not valid", path.display()))
}

impl Config {
    /// Reads the configuration of a server that reads nothing else, as [`load`] does.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        load(path, Self::from_settings).map(|(config, _)| config)
    }

    /// Reads a configuration from YAML alone, without the environment.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn from_yaml(yaml: &str) -> anyhow::Result<Self> {
        Self::from_settings(&Settings::from_yaml(yaml)?)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        let mut config: Self = settings.parse()?;
        config.unknown_keys = settings.unknown_keys();
        config.check()?;
        Ok(config)
    }

    /// Warns about probable mistakes.
    pub fn warn_of_mistakes(&self) {
        for warning in &self.unknown_keys {
            warn!("{warning}");
        }
        if self.http.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
            warn!("http.trusted_proxies trusts every address: any caller can claim any address");
        }
        if self.server.public_url.starts_with("https://") && self.http.trusted_proxies.is_empty() {
            warn!(
                "http.trusted_proxies is empty although server.public_url is https: all requests \
                 seem to come from the address of the proxy, and share one limit"
            );
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        for (key, positive) in [
            ("http.requests_per_second", self.http.requests_per_second > 0),
            ("http.burst", self.http.burst > 0),
            ("http.keep_alive_seconds", self.http.keep_alive_seconds > 0),
            ("database.max_connections", self.database.max_connections >= 2),
            ("notify.streams_per_user", self.notify.streams_per_user > 0),
            ("notify.streams", self.notify.streams > 0),
            ("notify.recent_events", self.notify.recent_events > 0),
            ("notify.recent_mebibytes", self.notify.recent_mebibytes > 0),
        ] {
            if !positive {
                let least = if key == "database.max_connections" { 2 } else { 1 };
                bail!("{key} is too small: it must be at least {least}");
            }
        }
        self.limits.check()
    }
}

impl HttpConfig {
    /// Returns the address of the client: the connection's own address, or, if the connection comes
    /// from a trusted proxy, the nearest untrusted hop of `X-Forwarded-For`.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded_for: &[&str]) -> IpAddr {
        let trusted =
            |address: IpAddr| self.trusted_proxies.iter().any(|net| net.contains(&address));
        let mut client = peer.to_canonical();
        let hops = forwarded_for.iter().rev().flat_map(|value| value.rsplit(','));
        for hop in hops.map(hop_address) {
            match hop {
                Some(hop) if trusted(client) => client = hop.to_canonical(),
                _ => break,
            }
        }
        client
    }

    /// Returns the `max-age` of the HSTS header in seconds, if the header is to be sent.
    #[must_use]
    pub fn hsts(&self, public_url: &str) -> Option<u32> {
        Some(self.hsts_seconds).filter(|seconds| *seconds > 0 && public_url.starts_with("https://"))
    }
}

/// Parses the address of a hop in `X-Forwarded-For`, with an optional port and optional brackets,
/// because some proxies add them.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let without_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    let in_brackets =
        || Some(hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into());
    hop.parse().ok().or_else(without_port).or_else(in_brackets)
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins: Vec<PageOrigin> = list(deserializer)?;
    Ok(origins.into_iter().map(|origin| origin.0).collect())
}

/// Reads a list. Empty texts are not members: the environment has an empty text for an empty list.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let members = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    members.map(|text| text.parse().map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_empty_also_as_a_text() {
        let example = include_str!("../../app.yml.example");
        let one = "  trusted_proxies: [127.0.0.1/32]\n";
        for (value, members) in [("[]", 0), ("[\"\"]", 0), ("[10.0.0.0/8, \" ::1/128\"]", 2)] {
            let line = format!("  trusted_proxies: {value}\n");
            let yaml = example.replace("  trusted_proxies: []\n", &line);
            assert_eq!(Config::from_yaml(&yaml).unwrap().http.trusted_proxies.len(), members);
        }
        let wrong = example.replace("  trusted_proxies: []\n", &one.replace("32", "33"));
        let error = format!("{:#}", Config::from_yaml(&wrong).unwrap_err());
        assert!(error.contains("http.trusted_proxies"), "{error}");
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_repeated() {
        let example = include_str!("../../app.yml.example");
        let with = |line: &str, wrong: &str| {
            assert!(example.contains(line), "{line}");
            example.replace(line, wrong)
        };
        let url = "  url: postgres:///fechatter\n";
        let secret_url = "postgres://fechatter:hunter2@db/fechatter";
        let refresh_key = "  refresh_key: REPLACE-WITH-KEYGEN\n";
        for (yaml, named) in [
            (with(refresh_key, "  refresh_key: {hunter2: 1}\n"), "auth.refresh_key"),
            (with(refresh_key, "  refresh_key: {key: hunter2}\n"), "auth.refresh_key"),
            (with(refresh_key, "  refresh_key:hunter2\n"), "line"),
            (with(refresh_key, "  refresh_key: \"hunter2\n"), "YAML"),
            (with(refresh_key, "  refresh_key: hunter2: x\n"), "line"),
            (with(refresh_key, "  refresh_key: *hunter2\n"), "line"),
            (with(refresh_key, "  refresh_key: !hunter2!x y\n"), "line"),
            (with(refresh_key, "  refresh_key: %hunter2\n"), "line"),
            (with(refresh_key, "  ? [hunter2]\n  : x\n"), "YAML"),
            (with(url, &format!("  url: [{secret_url}]\n")), "database.url"),
            (with(url, &format!("  - {secret_url}\n")), "line"),
            (with("  max_connections: 20\n", "  max_connections: hunter2\n"), "max_connections"),
            (with("  trusted_proxies: []\n", "  trusted_proxies: [hunter2]\n"), "trusted_proxies"),
            (with("  listen: 127.0.0.1:6688\n", "  listen: hunter2\n"), "server.listen"),
            (format!("auth: hunter2\n{}", example.replace("auth:\n", "log2:\n")), ""),
            ("hunter2".to_owned(), ""),
            ("[hunter2]".to_owned(), ""),
            (with("\ndatabase:\n", "\ndatabase: hunter2\nother:\n"), ""),
        ] {
            let error = Config::from_yaml(&yaml).unwrap_err();
            for text in [format!("{error:#}"), format!("{error:?}")] {
                assert!(!text.contains("hunter2"), "{text}");
                assert!(text.contains(named), "{named}: {text}");
            }
        }
    }

    #[test]
    fn an_unknown_key_that_may_be_a_secret_is_not_repeated() {
        let example = include_str!("../../app.yml.example");
        for (line, warning) in [
            ("  hunter2: \n", "a key in auth is not known"),
            ("  key: hunter2\n", "auth.key is not known"),
        ] {
            let yaml = example.replace("  refresh_key: REPLACE-WITH-KEYGEN\n", line);
            assert_eq!(Config::from_yaml(&yaml).unwrap().unknown_keys, [warning]);
        }
    }

    fn http(trusted: &[&str]) -> HttpConfig {
        HttpConfig {
            allowed_origins: Vec::new(),
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            requests_per_second: 1,
            burst: 1,
            keep_alive_seconds: 1,
            hsts_seconds: 0,
        }
    }

    /// The keys that have no default.
    const LEAST: &str = "
        server: {public_url: http://localhost:6688}
        notify: {public_url: http://localhost:6687}
        database: {url: postgres:///fechatter}
        auth: {public_keys: [x]}
    ";

    #[test]
    fn all_keys_but_four_have_defaults() {
        assert_eq!(Config::from_yaml(LEAST).unwrap().http.burst, 100);
        for key in ["server.public_url", "notify.public_url", "database.url", "auth.public_keys"] {
            let section = key.split('.').next().unwrap();
            let without: Vec<_> =
                LEAST.lines().filter(|line| !line.trim().starts_with(section)).collect();
            let error = Config::from_yaml(&without.join("\n")).unwrap_err();
            assert_eq!(error.to_string(), format!("{key} is missing"));
        }
    }

    #[test]
    fn the_example_of_an_earlier_version_is_good_for_this_one() {
        let config = Config::from_yaml(include_str!("config/earlier.yml")).unwrap();
        assert_eq!(config.unknown_keys, [""; 0]);
    }

    #[test]
    fn an_unknown_key_is_a_warning() {
        let config = Config::from_yaml(&format!("{LEAST}\n        http: {{brust: 1}}")).unwrap();
        assert_eq!(config.unknown_keys, ["http.brust is not known: did you mean http.burst?"]);
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let peer = "10.0.0.1".parse().unwrap();
        let forged = ["6.6.6.6, 9.9.9.9"];
        let address = |trusted: &[&str]| http(trusted).client_address(peer, &forged).to_string();

        assert_eq!(address(&[]), "10.0.0.1");
        assert_eq!(address(&["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(address(&["10.0.0.0/8", "9.9.9.9/32"]), "6.6.6.6");
    }

    #[test]
    fn hops_may_have_ports_and_brackets() {
        let peer = "10.0.0.1".parse().unwrap();
        for (hop, client) in [
            ("203.0.113.7:51234", "203.0.113.7"),
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            (" [2001:db8::7]:443 ", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
            // Anything else is not an address: the proxy's own address is used.
            ("203.0.113.7:", "10.0.0.1"),
            ("203.0.113.7:66000", "10.0.0.1"),
            ("[203.0.113.7]", "10.0.0.1"),
            ("2001:db8::7]", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let header = format!("6.6.6.6, {hop}, 10.0.0.2:80");
            let address = http(&["10.0.0.0/8"]).client_address(peer, &[&header]);
            assert_eq!(address.to_string().replace("10.0.0.2", "10.0.0.1"), client, "{hop}");
        }
    }

    #[test]
    fn nonsense_in_a_forwarded_header_ends_the_chain() {
        let peer = "10.0.0.1".parse().unwrap();
        let address = http(&["0.0.0.0/0"]).client_address(peer, &["1.2.3.4, x"]);
        assert_eq!(address.to_string(), "10.0.0.1");
    }
}
