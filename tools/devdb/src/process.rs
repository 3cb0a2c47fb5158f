//! One server process, to be ended, frozen and started again at will.

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

use crate::leash::{Ending, Leash};

/// What a server has for its open requests once it is asked to end.
const GRACE: Duration = Duration::from_secs(20);

/// A `fechatter_server` or `notify_server` that always has the same addresses.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    operations: SocketAddr,
    environment: Vec<(String, String)>,
    log: PathBuf,
    leash: Option<Leash>,
}

impl Process {
    /// A process that is still to be started. What it says is added to the file `log`.
    #[must_use]
    pub fn new(
        program: &Path,
        [address, operations]: [SocketAddr; 2],
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        let program = program.to_owned();
        Self { program, arguments: Vec::new(), address, operations, environment, log, leash: None }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells operators how it is.
    #[must_use]
    pub fn operations(&self) -> SocketAddr {
        self.operations
    }

    /// The system's number for it, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.leash.as_ref().map(Leash::child)
    }

    /// How much of the machine's memory it takes, in KiB, where the system tells.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// The same process, to be started with these arguments.
    #[must_use]
    pub fn with_arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Gives it an environment variable from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, without waiting until it is ready.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start(&mut self) -> Result<()> {
        let errors = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let output = errors.try_clone()?;
        let leash = Leash::start(&self.program, Ending::new("TERM", GRACE), |command| {
            command.args(&self.arguments).envs(self.environment.iter().cloned());
            command.stdout(output).stderr(errors);
        });
        self.leash = Some(leash.with_context(|| format!("starting {}", self.program.display()))?);
        Ok(())
    }

    /// Waits until it says that it can serve.
    ///
    /// # Errors
    /// When it has ended instead, or says so for longer than the patience.
    pub async fn ready(&mut self, client: &Client, patience: Duration) -> Result<()> {
        let url = format!("http://{}/readyz", self.operations);
        let deadline = Instant::now() + patience;
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

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// When it was not started, or the system cannot tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let leash = self.leash.as_mut().with_context(|| "this server was not started")?;
        Ok(leash.try_wait()?)
    }

    /// Whether it still runs; it does not end by itself.
    ///
    /// # Errors
    /// When it has ended or was not started.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("{} has ended ({status}):\n{}", self.name(), log_tail(&self.log));
        }
        Ok(())
    }

    /// Sends it a signal: `"STOP"`, `"CONT"`…
    ///
    /// # Errors
    /// When it has ended or was not started.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        let leash = self.leash.as_mut().with_context(|| "this server was not started")?;
        leash.signal(signal).with_context(|| format!("sending {signal}"))
    }

    /// Ends it with −9 and waits until it is gone.
    ///
    /// # Errors
    /// When it has ended already or was not started.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        if let Some(mut leash) = self.leash.take() {
            leash.wait()?;
        }
        Ok(())
    }

    /// Asks the process to end, and returns at once, so that several processes can end at the same
    /// time.
    pub fn request_stop(&mut self) {
        if let Some(leash) = &mut self.leash {
            leash.request_stop();
        }
    }

    /// Asks it to end, waits for that, and tells its exit code.
    ///
    /// # Errors
    /// When it was not started, or the system cannot tell.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        let leash = self.leash.take().with_context(|| "this server was not started")?;
        Ok(leash.stop()?.code())
    }

    /// The file with its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The last 20 lines of a log file, and its path.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    let content = fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<_> = content.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("{}\n(from {})", last.join("\n"), log.display())
}
