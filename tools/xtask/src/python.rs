//! Python programs from the Python Package Index, each set in a folder of its own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Installs packages with these arguments of `pip install`, and returns the folder of their programs.
pub(crate) fn install<S: AsRef<OsStr>>(
    folder: &Path,
    packages: impl IntoIterator<Item = S>,
) -> Result<PathBuf> {
    let programs = folder.join("bin");
    if !programs.join("python").exists() {
        let mut venv = Command::new("python3");
        done(venv.args(["-m", "venv"]).arg(folder), "python3 -m venv (python3-venv)")?;
    }
    let mut pip = Command::new(programs.join("python"));
    done(pip.args(["-m", "pip", "install", "--quiet"]).args(packages), "pip install")?;
    Ok(programs)
}

/// Runs a program to its end, and shows what it says only if it fails.
pub(crate) fn done(command: &mut Command, name: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {name}"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{name} failed:\n{}", String::from_utf8_lossy(&said));
    Ok(())
}
