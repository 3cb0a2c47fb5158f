//! The addresses of servers and pages, in the form in which browsers write them.

use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use url::{Origin, Position, Url};

/// The origin of a page: lower case, without the scheme's own port.
pub(super) struct PageOrigin(pub(super) String);

impl FromStr for PageOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HELP: &str = "no origin, expected one such as https://chat.example or tauri://localhost, \
                            without a path";
        let url = Url::parse(text).map_err(|_| HELP)?;
        let rest = &url[Position::BeforePath..];
        // Browsers never send a pattern, so an origin with a pattern would never match.
        let is_pattern = url.host_str().is_some_and(|host| host.contains('*'));
        if !url.has_host() || has_user(&url) || is_pattern || !matches!(rest, "" | "/") {
            return Err(HELP);
        }
        match url.origin() {
            origin @ Origin::Tuple(..) => Ok(Self(origin.ascii_serialization())),
            // Apps and extensions have their own schemes, whose origins are written as they are.
            Origin::Opaque(_) => Ok(Self(url[..Position::BeforePath].to_ascii_lowercase())),
        }
    }
}

/// Reads `server.public_url`, which must have no path because the session cookie is for `/api` at
/// the root of the host.
pub(super) fn without_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const HELP: &str = "no such address, expected one such as https://chat.example, without a path";
    let url = http(deserializer, HELP)?;
    if matches!(&url[Position::BeforePath..], "" | "/") {
        Ok(url.origin().ascii_serialization())
    } else {
        Err(D::Error::custom(HELP))
    }
}

/// Reads `notify.public_url`, which may have a path.
pub(super) fn with_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const HELP: &str = "no such address, expected one such as https://events.chat.example";
    let url = http(deserializer, HELP)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(D::Error::custom(HELP));
    }
    Ok(format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')))
}

fn http<'de, D: Deserializer<'de>>(deserializer: D, help: &str) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(text.trim()).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && !has_user(url))
        .ok_or_else(|| D::Error::custom(help))
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn origin(text: &str) -> Option<String> {
        text.parse::<PageOrigin>().ok().map(|origin| origin.0)
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for (given, sent) in [
            ("https://chat.example", "https://chat.example"),
            ("https://A.Example:443", "https://a.example"),
            ("HTTP://a.example:80/", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:5173", "http://[::1]:5173"),
            ("tauri://localhost", "tauri://localhost"),
            ("capacitor://LOCALHOST", "capacitor://localhost"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ] {
            assert_eq!(origin(given).as_deref(), Some(sent), "{given}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for text in [
            "",
            "*",
            "null",
            "chat.example",
            "https://",
            "https://*.example",
            "https://chat.example/app",
            "https://chat.example?x",
            "https://chat.example#x",
            "https://alice@chat.example",
            "tauri://localhost/app",
            "file:///home",
            "mailto:alice@chat.example",
        ] {
            assert_eq!(origin(text), None, "{text}");
        }
    }

    #[test]
    fn public_addresses_are_read_as_browsers_do() {
        let config = |server: &str, notify: &str| {
            let yaml = include_str!("../../../app.yml.example")
                .replace("public_url: http://localhost:6688\n", &format!("public_url: {server}\n"))
                .replace("public_url: http://localhost:6687\n", &format!("public_url: {notify}\n"));
            Config::from_yaml(&yaml)
        };
        let good = "https://chat.example";
        let read = config("HTTPS://Chat.Example:443/", "https://Chat.Example/notify/").unwrap();
        assert_eq!(read.server.public_url, good);
        assert_eq!(read.notify.public_url, "https://chat.example/notify");
        for bad in [
            "https://chat.example/team",
            "https://chat.example?x=y",
            "ftp://chat.example",
            "chat.example",
            "https://alice:secret@chat.example",
        ] {
            let error = format!("{:#}", config(bad, good).unwrap_err());
            assert!(error.contains("server.public_url"), "{error}");
            assert!(error.contains("without a path") && !error.contains("secret"), "{error}");
        }
        assert!(config(good, "https://chat.example?x").is_err());
    }
}
