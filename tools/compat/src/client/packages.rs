//! Fetches the packages of npm and `PyPI`, in pinned versions, into a folder beside what cargo builds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{page::checkout, programs};

/// The interpreters that have the packages, or why there are none.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) node: Result<PathBuf, String>,
    pub(crate) python: Result<PathBuf, String>,
    /// The folder of the scripts, beside their packages.
    pub(crate) javascript: PathBuf,
}

impl Packages {
    /// For runs that try no client.
    pub(crate) fn none() -> Self {
        let none = || Err("nobody asked for it".to_owned());
        Self { node: none(), python: none(), javascript: PathBuf::new() }
    }

    pub(crate) fn fetch(folder: &Path) -> Self {
        let javascript = folder.join("javascript");
        let node = programs::find("node", "nodejs").and_then(|node| {
            let npm = programs::find("npm", "npm")?;
            fetch_javascript(&npm, &javascript).map_err(|error| format!("{error:#}"))?;
            Ok(node)
        });
        let python = programs::find("python3", "python3 python3-venv").and_then(|python| {
            fetch_python(&python, &folder.join("python")).map_err(|error| format!("{error:#}"))
        });
        Self { node, python, javascript }
    }
}

fn fetch_javascript(npm: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(checkout("compat/clients/javascript"))? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
    }
    let arguments = ["ci", "--silent", "--prefer-offline", "--no-audit", "--no-fund"];
    run(Command::new(npm).args(arguments).current_dir(folder))
}

fn fetch_python(python: &Path, folder: &Path) -> Result<PathBuf> {
    let own = folder.join("bin/python");
    if !own.exists() {
        run(Command::new(python).args(["-m", "venv"]).arg(folder))?;
    }
    let requirements = checkout("compat/clients/python/requirements.txt");
    run(Command::new(&own).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    Ok(own)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}

/// The version of a package that is asked for.
pub(super) fn pinned(package: &str) -> Option<String> {
    let read = |file: &str| fs::read_to_string(checkout("compat/clients").join(file)).ok();
    let python = read("python/requirements.txt")?;
    let line = python.lines().find_map(|line| line.strip_prefix(&format!("{package}==")));
    let javascript = read("javascript/package.json")?;
    let quoted = || {
        let (_, rest) = javascript.split_once(&format!("{package}\": \""))?;
        rest.split('"').next()
    };
    line.or_else(quoted).map(ToOwned::to_owned)
}
