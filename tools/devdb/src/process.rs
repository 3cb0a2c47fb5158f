//! A `fechatter_server` or `notify_server` process that can be stopped, frozen and started again.

use std::{
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::{Client, StatusCode};
use tokio::time::sleep;

use crate::leash::{ChildGuard, ShutdownMethod};

/// The maximum time from SIGTERM until the process is killed. A server first finishes its requests.
const GRACE: Duration = Duration::from_secs(20);

/// A `fechatter_server` or `notify_server` process. It has the same addresses after each start.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    operations: SocketAddr,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<ChildGuard>,
}

impl Process {
    /// Describes a process, without starting it. Its output will be appended to the file `log`.
    /// The environment must configure the server to listen on the two addresses.
    #[must_use]
    pub fn new(
        program: &Path,
        [address, operations]: [SocketAddr; 2],
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        let program = program.to_owned();
        Self { program, arguments: Vec::new(), address, operations, environment, log, child: None }
    }

    /// The address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for operators: health checks and metrics.
    #[must_use]
    pub fn operations(&self) -> SocketAddr {
        self.operations
    }

    /// The PID of the process, or `None` if it was not started or was stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(ChildGuard::pid)
    }

    /// The resident memory of the process in KiB. `None` on systems without `/proc`.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Sets the command-line arguments for the next start.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Sets an environment variable. It takes effect at the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process, without waiting until it is ready.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let errors = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let output = errors.try_clone()?;
        let child =
            ChildGuard::start(&self.program, ShutdownMethod::new("TERM", GRACE), |command| {
                command.args(&self.arguments).envs(self.environment.iter().cloned());
                command.stdout(output).stderr(errors);
            });
        self.child = Some(child.with_context(|| format!("starting {}", self.program.display()))?);
        Ok(())
    }

    /// Waits until the process is ready (`GET /readyz`).
    ///
    /// # Errors
    /// When the process ends, or is not ready after `timeout`.
    pub async fn ready(&mut self, client: &Client, timeout: Duration) -> Result<()> {
        let url = format!("http://{}/readyz", self.operations);
        let deadline = Instant::now() + timeout;
        while !matches!(
            client.get(&url).timeout(Duration::from_secs(2)).send().await,
            Ok(answer) if answer.status() == StatusCode::NO_CONTENT
        ) {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{} does not become ready:\n{}", self.name(), log_tail(&self.log));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns the exit status of the process, or `None` if it still runs.
    ///
    /// # Errors
    /// When it was not started, or the operating system does not report the exit status.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().with_context(|| "this server was not started")?;
        Ok(child.try_wait()?)
    }

    /// Checks that the process still runs.
    ///
    /// # Errors
    /// When it has ended or was not started.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} has ended ({status}):\n{}", self.name(), log_tail(&self.log));
        }
        Ok(())
    }

    /// Sends the process a signal: `"STOP"`, `"CONT"`, …
    ///
    /// # Errors
    /// When it has ended or was not started.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        let child = self.child.as_mut().with_context(|| "this server was not started")?;
        child.signal(signal).with_context(|| format!("sending {signal}"))
    }

    /// Kills the process with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    /// When it has ended already or was not started.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Begins to stop the process, and returns without waiting. Several processes can thus be
    /// stopped at the same time.
    pub fn request_stop(&mut self) {
        if let Some(child) = &mut self.child {
            child.request_stop();
        }
    }

    /// Stops the process, waits until it has ended, and returns its exit code.
    ///
    /// # Errors
    /// When it was not started, or the operating system does not report the exit status.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        let child = self.child.take().with_context(|| "this server was not started")?;
        Ok(child.stop()?.code())
    }

    /// The file that contains the output of the process.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Returns the last 20 lines of a log file, followed by its path.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    let content = fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<_> = content.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("{}\n(from {})", last.join("\n"), log.display())
}
