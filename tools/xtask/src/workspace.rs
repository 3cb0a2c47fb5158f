//! The checkout, and cargo in it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// The workspace's root: two folders above this crate's, which cargo names.
pub(crate) fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = xtask.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    xtask.ancestors().nth(2).map_or_else(|| xtask.clone(), Path::to_owned)
}

/// The cargo that started us, without what it said about xtask's own build.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs cargo to its end for what it prints.
pub(crate) fn cargo_output(arguments: &[&str]) -> Result<String> {
    let output = cargo()
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds all programs and says where these are.
pub(crate) fn build<const N: usize>(options: &[&str], names: [&str; N]) -> Result<[PathBuf; N]> {
    let arguments =
        ["build", "--workspace", "--bins", "--message-format", "json-render-diagnostics"];
    let messages = cargo_output(&[&arguments, options].concat())?;
    let messages: Vec<Value> =
        messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |name: &str| {
        let message = messages
            .iter()
            .find(|message| message["target"]["name"] == name && message["executable"].is_string());
        let program = message.and_then(|message| message["executable"].as_str());
        program.map(PathBuf::from).with_context(|| format!("cargo built no {name}"))
    };
    let programs: Vec<_> = names.into_iter().map(find).collect::<Result<_>>()?;
    programs.try_into().map_err(|_| anyhow!("as many programs as names"))
}

/// Builds programs of the workspace with a feature, and keeps them in a folder of its name beside those without it.
pub(crate) fn build_aside<const N: usize>(feature: &str, names: [&str; N]) -> Result<()> {
    for program in build(&["--features", feature], names)? {
        let folder = program.with_file_name(feature);
        fs::create_dir_all(&folder)?;
        if let Some(name) = program.file_name() {
            fs::copy(&program, folder.join(name))?;
        }
    }
    Ok(())
}

const RAISE_LIMIT: &str = r#"ulimit -n "$(ulimit -H -n)"; exec "$0" "$@""#;

/// A program, and what it starts, with as many open files as we may have: each connection is one in a server, and one in
/// the program that calls it.
pub(crate) fn with_files(program: &Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", RAISE_LIMIT]).arg(program);
    shell
}

/// The exit code of something that ends on Ctrl-C by itself; we only must not end before it.
pub(crate) async fn exit_code(command: &mut Command) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let program = command.get_program().to_owned();
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
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
        sleep(Duration::from_millis(50)).await;
    }
}

/// The workspace's packages, as cargo describes them.
pub(crate) fn packages() -> Result<Vec<Value>> {
    let metadata = cargo_output(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    Ok(metadata["packages"].as_array().cloned().unwrap_or_default())
}
