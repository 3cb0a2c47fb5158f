//! Errors of the configuration, without the values that are wrong.

use anyhow::anyhow;
use config::ConfigError;

/// Names the wrong key and the fault, without the value that was found, because the value may be a
/// secret even where another key or a whole section belongs.
pub(super) fn without_values(error: &ConfigError) -> anyhow::Error {
    anyhow!(describe(error))
}

fn describe(error: &ConfigError) -> String {
    let key_of = |key: &Option<String>| key.as_deref().unwrap_or("the whole").to_owned();
    match error {
        ConfigError::NotFound(key) => format!("{key} is missing"),
        ConfigError::Type { unexpected, expected, key, origin } => {
            // The text before the first quote is the kind of the value.
            let found = unexpected.to_string();
            let found = found.split(['`', '"']).next().unwrap_or_default().trim_end();
            let origin = origin.as_ref().map(|origin| format!(" in {origin}")).unwrap_or_default();
            format!("{}{origin}: found {found}, expected {expected}", key_of(key))
        }
        ConfigError::At { error, key, .. } => {
            format!("{}: {}", key_of(key), describe(error))
        }
        ConfigError::FileParse { cause, .. } => {
            let cause = cause.to_string();
            let line = cause.rsplit_once(" line ").map(|(_, line)| line.split(' ').next());
            match line.flatten().and_then(|line| line.parse::<usize>().ok()) {
                Some(line) => format!("it is no YAML, at or before line {line}"),
                None => "it is no YAML".to_owned(),
            }
        }
        ConfigError::Message(text) => without_value(text),
        _ => "it cannot be read".to_owned(),
    }
}

/// Returns the parts of a message that are known to quote no value.
fn without_value(text: &str) -> String {
    let is_key = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let unknown = text.strip_prefix("unknown field `").and_then(|text| text.split('`').next());
    if let Some(name) = unknown.filter(is_key) {
        format!("{name} is no key that there is")
    } else if let Some((variable, _)) = text.split_once(" contains non-Unicode data") {
        format!("{variable} is no text in UTF-8")
    } else {
        let expected = text.rfind(", expected ").map_or("", |at| &text[at..]);
        format!("the value is not valid{expected}")
    }
}
