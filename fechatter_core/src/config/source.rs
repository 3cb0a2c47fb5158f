//! Reads the values of the configuration from the defaults, the file and the environment, and
//! records the origin of each value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use config::{Environment, File, FileFormat, Source, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::fault::without_values;

/// All keys, with their default values.
const DEFAULTS: &str = include_str!("defaults.yml");
/// The keys that must have a value.
const REQUIRED: [&str; 4] =
    ["server.public_url", "notify.public_url", "database.url", "auth.public_keys"];
/// The keys whose values are secret and are not printed.
const SECRETS: [&str; 5] = [
    "database.url",
    "database.listen_url",
    "auth.private_key",
    "auth.refresh_key",
    "files.s3.secret_access_key",
];

/// The values by key, such as `server.listen`.
type Values = BTreeMap<String, Value>;

/// The origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Default,
    File,
    Environment,
    DatabaseUrl,
}

/// All values, each with its origin, and the unknown keys.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, (Value, Origin)>,
    unknown: Vec<String>,
}

impl Settings {
    fn of_defaults() -> anyhow::Result<Self> {
        let mut settings = Self { values: BTreeMap::new(), unknown: Vec::new() };
        let defaults = values(&File::from_str(DEFAULTS, FileFormat::Yaml))?;
        settings
            .values
            .extend(defaults.into_iter().map(|(key, value)| (key, (value, Origin::Default))));
        Ok(settings)
    }

    /// Reads the settings of a file and of the environment.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut settings = Self::of_defaults()?;
        settings.add_file(path)?;
        settings.add_environment().context("the environment")?;
        Ok(settings)
    }

    /// Reads the settings of a text in YAML.
    ///
    /// # Errors
    /// Names the line or the key that is not valid, but never shows a value.
    pub fn from_yaml(yaml: &str) -> anyhow::Result<Self> {
        let mut settings = Self::of_defaults()?;
        settings.add_yaml(yaml)?;
        Ok(settings)
    }

    fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        self.add(Origin::File, values(&File::from(path).format(FileFormat::Yaml))?)
    }

    fn add_yaml(&mut self, yaml: &str) -> anyhow::Result<()> {
        self.add(Origin::File, values(&File::from_str(yaml, FileFormat::Yaml))?)
    }

    /// Adds the overrides from the environment. The items of a list are separated by commas.
    fn add_environment(&mut self) -> anyhow::Result<()> {
        let environment = Environment::with_prefix("FECHATTER")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("http.allowed_origins")
            .with_list_parse_key("http.trusted_proxies")
            .with_list_parse_key("auth.public_keys");
        self.add(Origin::Environment, values(&environment)?)?;
        if let Some(url) = std::env::var_os("DATABASE_URL") {
            let Ok(url) = url.into_string() else { bail!("DATABASE_URL is not UTF-8 text") };
            let url = Value::new(None, ValueKind::String(url));
            self.add(Origin::DatabaseUrl, [("database.url".to_owned(), url)].into())?;
        }
        Ok(())
    }

    /// Adds values, which override the present ones; a null overrides nothing. Returns an error if
    /// a section has a value or a key contains other keys. Stores unknown keys for the warning.
    fn add(&mut self, origin: Origin, values: Values) -> anyhow::Result<()> {
        for (key, value) in values {
            if let Some(known) = self.values.get_mut(&key) {
                if !matches!(value.kind, ValueKind::Nil) {
                    *known = (value, origin);
                }
                continue;
            }
            let contains = |outer: &str, inner: &str| {
                inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
            };
            if self.values.keys().any(|known| contains(&key, known)) {
                // A section without keys has no effect.
                ensure!(
                    matches!(value.kind, ValueKind::Nil),
                    "{key} is a section and cannot have a value"
                );
                continue;
            }
            if let Some(known) = self.values.keys().find(|known| contains(known, &key)) {
                bail!("{known} is a key and cannot contain other keys");
            }
            self.unknown.push(redact_unknown_key(&key));
        }
        Ok(())
    }

    /// Deserialises the sections that a type names.
    ///
    /// # Errors
    /// Names the key that is missing or of the wrong type, but never shows a value.
    pub fn parse<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        for key in REQUIRED {
            let is_there = self
                .values
                .get(key)
                .is_some_and(|(value, _)| !matches!(value.kind, ValueKind::Nil));
            ensure!(is_there, "{key} is missing");
        }
        let mut config = config::Config::builder();
        for (key, (value, _)) in &self.values {
            config =
                config.set_override(key, value.clone()).map_err(|error| without_values(&error))?;
        }
        config
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| without_values(&error))
    }

    /// Describes each unknown key, with the most similar known key unless all known keys are very
    /// different.
    #[must_use]
    pub fn unknown_keys(&self) -> Vec<String> {
        let describe = |key: &String| match self.nearest(key) {
            Some(nearest) => format!("{key} is not known: did you mean {nearest}?"),
            None => format!("{key} is not known"),
        };
        self.unknown.iter().map(describe).collect()
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        let distance = |known: &&str| strsim::damerau_levenshtein(known, key);
        let nearest = self.values.keys().map(String::as_str).min_by_key(distance)?;
        let is_near = distance(&nearest) <= key.len().div_ceil(4);
        is_near.then_some(nearest)
    }
}

/// Writes one line for each key: its value and its origin. The line of a secret omits the value.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, (value, origin)) in &self.values {
            let origin = match origin {
                Origin::Default => "default",
                Origin::File => "file",
                Origin::Environment => "environment",
                Origin::DatabaseUrl => "DATABASE_URL",
            };
            if matches!(value.kind, ValueKind::Nil) {
                writeln!(f, "{key} is not set")?;
            } else if SECRETS.contains(&key.as_str()) {
                writeln!(f, "{key} is set ({origin})")?;
            } else {
                writeln!(f, "{key} = {value} ({origin})")?;
            }
        }
        Ok(())
    }
}

/// Returns the text for an unknown key in the warning: the key, or only its section if the key may
/// be a misplaced secret value.
fn redact_unknown_key(key: &str) -> String {
    let is_key = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match key.rsplit_once('.') {
        _ if key.split('.').all(is_key) => key.to_owned(),
        Some((section, _)) if section.split('.').all(is_key) => format!("a key in {section}"),
        _ => "a key".to_owned(),
    }
}

fn values(source: &dyn Source) -> anyhow::Result<Values> {
    let mut values = BTreeMap::new();
    for (name, value) in source.collect().map_err(|error| without_values(&error))? {
        flatten(name, value, &mut values);
    }
    Ok(values)
}

fn flatten(key: String, value: Value, values: &mut Values) {
    match value.kind {
        ValueKind::Table(inner) => {
            for (name, value) in inner {
                flatten(format!("{key}.{name}"), value, values);
            }
        }
        _ => _ = values.insert(key, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: &str) -> Settings {
        Settings::from_yaml(yaml).unwrap()
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let example = settings(include_str!("../../../app.yml.example"));
        assert_eq!(example.unknown_keys(), [""; 0]);
        let defaults = Settings::of_defaults().unwrap();
        for (key, (default, _)) in &defaults.values {
            let (value, origin) = &example.values[key];
            if matches!(default.kind, ValueKind::Nil) {
                assert!(
                    REQUIRED.contains(&key.as_str()) || SECRETS.contains(&key.as_str()),
                    "{key}"
                );
            } else {
                assert_eq!(value.to_string(), default.to_string(), "{key}");
                assert_eq!(*origin, Origin::File, "the example leaves {key} out");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_most_similar_known_key() {
        let settings = settings("http:\n  brust: 7\nfuture:\n  thing: 1\n");
        assert_eq!(
            settings.unknown_keys(),
            ["future.thing is not known", "http.brust is not known: did you mean http.burst?"]
        );
    }

    #[test]
    fn the_list_of_all_keys_shows_their_origins_and_no_secret() {
        let yaml = "database:\n  url: postgres://u:hunter2@db/x\nhttp:\n  burst: 7\nlimits:\n";
        let text = settings(yaml).to_string();
        for line in [
            "database.url is set (file)",
            "database.listen_url is not set",
            "http.burst = 7 (file)",
            "http.requests_per_second = 20 (default)",
            "limits.replays_per_person = 1 (default)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
}
