//! `cargo xtask test`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Result;
use devdb::Postgres;

use crate::{
    client,
    workspace::{cargo, exit_code, packages},
};

/// Where the tests find their server.
const URL: &str = "DATABASE_URL";

pub(crate) async fn run(arguments: &[String]) -> Result<ExitCode> {
    let mut own = None;
    let url = if let Some(url) = devdb::configured_url() {
        println!("Testing on the server that DATABASE_URL names.");
        url
    } else {
        own.insert(Postgres::throw_away()?).url("postgres")
    };

    let nextest = cargo().args(["nextest", "--version"]).output();
    let has_nextest = nextest.is_ok_and(|output| output.status.success());
    let runner: &[&str] = if has_nextest { &["nextest", "run"] } else { &["test"] };
    let mut code =
        exit_code(cargo().args(runner).arg("--workspace").args(arguments).env(URL, &url)).await?;
    // nextest leaves out examples in documentation; arguments are for it alone.
    if has_nextest && code == 0 && arguments.is_empty() && has_doc_tests()? {
        code = exit_code(cargo().args(["test", "--doc", "--workspace"]).env(URL, &url)).await?;
    }
    if code == 0 && arguments.is_empty() {
        code = client::run(&url).await?;
    }

    if let Some(postgres) = own {
        postgres.stop()?;
    }
    Ok(ExitCode::from(code))
}

/// Whether any library documents itself with an example that rustdoc would run.
fn has_doc_tests() -> Result<bool> {
    for package in packages()? {
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_library = target["kind"].as_array().is_some_and(|kinds| kinds[0] == "lib");
            let source = target["src_path"].as_str().map(Path::new).and_then(Path::parent);
            if let Some(source) = source.filter(|_| is_library)
                && holds_doc_test(source)?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn holds_doc_test(folder: &Path) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds_doc_test(&path)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && is_doc_test(&fs::read_to_string(&path)?)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_doc_test(source: &str) -> bool {
    let comments = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
    });
    // Every other fence opens a block.
    let fences = comments.filter_map(|comment| comment.trim_start().strip_prefix("```"));
    fences.step_by(2).any(|language| {
        let rust = ["rust", "no_run", "should_panic", "compile_fail", "edition"];
        language.is_empty() || rust.iter().any(|word| language.starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::is_doc_test;

    #[test]
    fn only_rust_examples_are_doc_tests() {
        assert!(is_doc_test("//! ```text\n//! a\n//! ```\n/// ```\n/// let a = 1;\n/// ```"));
        assert!(!is_doc_test("/// ```sh\n/// ls\n/// ```\nlet fence = \"```\";"));
    }
}
