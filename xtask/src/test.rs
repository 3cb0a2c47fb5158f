//! `cargo xtask test`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use devdb::Postgres;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    client,
    workspace::{cargo, packages},
};

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
        run_to_end(cargo().args(runner).arg("--workspace").args(arguments), &url).await?;
    // nextest leaves out examples in documentation; arguments are for it alone.
    if has_nextest && code == 0 && arguments.is_empty() && has_doc_tests()? {
        code = run_to_end(cargo().args(["test", "--doc", "--workspace"]), &url).await?;
    }
    if code == 0 && arguments.is_empty() {
        code = client::run(&url).await?;
    }

    if let Some(postgres) = own {
        postgres.stop()?;
    }
    Ok(ExitCode::from(code))
}

/// The runner's exit code. It ends on Ctrl-C by itself; we only must not end before it.
pub(crate) async fn run_to_end(command: &mut Command, url: &str) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = command.env("DATABASE_URL", url).spawn().context("starting the tests")?;
    let status = loop {
        tokio::select! {
            status = ended(&mut child) => break status?,
            _ = interrupt.recv() => {}
            // Unlike Ctrl-C, this one reaches nobody but us.
            _ = terminate.recv() => {
                Command::new("kill").arg(child.id().to_string()).status()?;
            }
        }
    };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

async fn ended(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
