//! `cargo xtask openapi`: what others generate their clients from, and the types of our own.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{
    client,
    workspace::{cargo, root},
};

const FILE: &str = "docs/openapi.json";

/// Writes the document of this version and the TypeScript client's types. Their tests fail until that is done.
pub(crate) fn run() -> Result<ExitCode> {
    let document = cargo()
        .args(["run", "--quiet", "--package", "fechatter_server", "--", "openapi"])
        .output()
        .context("starting cargo")?;
    let why = String::from_utf8_lossy(&document.stderr);
    ensure!(document.status.success(), "fechatter_server does not print the document:\n{why}");
    fs::write(root().join(FILE), document.stdout)?;
    println!("{FILE} is of this version.");
    client::generate()?;
    Ok(ExitCode::SUCCESS)
}
