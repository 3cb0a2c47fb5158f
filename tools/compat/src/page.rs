//! The configurations that `docs/proxies.md` prints.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// A file of this checkout.
pub(crate) fn checkout(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// The one code block of this language in `docs/proxies.md`.
pub(crate) fn configuration(language: &str) -> Result<String> {
    let page = checkout("docs/proxies.md");
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let block = code_block(&text, language);
    block.with_context(|| format!("docs/proxies.md has no code block of {language}"))
}

/// Replaces each text by another; the page must contain all of them.
pub(crate) fn substitute(configuration: &str, changes: &[(&str, String)]) -> Result<String> {
    let mut text = configuration.to_owned();
    for (from, to) in changes {
        ensure!(text.contains(from), "the configuration in docs/proxies.md lacks `{from}`");
        text = text.replace(from, to);
    }
    Ok(text)
}

fn code_block(text: &str, language: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("\n```{language}\n"))?;
    let (block, _) = rest.split_once("\n```\n")?;
    Some(format!("{block}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_of_a_language_is_found() {
        let text = "# Page\n\n```yaml\na: 1\n```\n\n```nginx\nevents {}\nhttp {}\n```\n";
        assert_eq!(code_block(text, "nginx").as_deref(), Some("events {}\nhttp {}\n"));
        assert_eq!(code_block(text, "haproxy"), None);
    }

    #[test]
    fn a_substitution_that_finds_nothing_is_an_error() {
        let changed = substitute("listen 443;", &[("443", "8443".into())]);
        assert_eq!(changed.unwrap(), "listen 8443;");
        assert!(substitute("listen 443;", &[("80", "8080".into())]).is_err());
    }
}
