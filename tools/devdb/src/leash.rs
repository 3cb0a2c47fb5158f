//! Starts child processes that end when this process ends, even if this process is killed with
//! SIGKILL.
//!
//! The child process is started by a shell script, the supervisor. The supervisor's standard input
//! is a socket to this process. When this process ends, the kernel closes the socket, and the
//! supervisor then stops the child. This needs neither `unsafe` code nor platform-specific calls.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// The supervisor script. Arguments: `$1` is the stop signal, `$2` the seconds until SIGKILL, `$3`
/// the directory to remove (empty for none). The other arguments are the child's command.
///
/// The script first writes the child's PID to the socket; it ignores SIGPIPE there, because this
/// process may already have ended. The background subshell (`watcher`) reads signal names from the
/// socket and sends these signals to the child. When the socket closes, it stops the child. The
/// child inherits neither the socket (file descriptor 3) nor the copy of standard error (file
/// descriptor 4). The script's own standard error is `/dev/null`, so that the shell's messages
/// about killed jobs do not appear on the terminal.
const SUPERVISOR: &str = r#"
signal=$1 grace=$2 remove=$3
shift 3
exec 3<&0 4>&2 </dev/null 2>/dev/null
"$@" 2>&4 3<&- 4>&- &
child=$!
trap 'kill -s "$signal" "$child"' HUP INT TERM
(trap '' PIPE; echo "$child" >&3)
(
    exec >/dev/null 4>&-
    while read -r order; do kill -s "$order" "$child"; done <&3
    exec 3<&-
    kill -s "$signal" "$child"
    while [ "$grace" -gt 0 ]; do sleep 1; grace=$((grace - 1)); done
    kill -s KILL "$child"
) &
watcher=$!
exec 3<&- 4>&-
while :; do
    wait "$child"
    status=$?
    kill -0 "$child" || break
done
kill "$watcher"
[ -z "$remove" ] || rm -rf -- "$remove"
exit "$status"
"#;

/// How a child process is stopped.
#[derive(Clone, Debug)]
pub struct ShutdownMethod {
    signal: &'static str,
    grace: Duration,
    remove: Option<PathBuf>,
}

impl ShutdownMethod {
    /// Sends `signal` (`"TERM"`, `"INT"`, …), and SIGKILL if the child still runs after `grace`.
    /// `grace` is rounded down to whole seconds.
    #[must_use]
    pub fn new(signal: &'static str, grace: Duration) -> Self {
        Self { signal, grace, remove: None }
    }

    /// Also removes this directory after the child has ended, whether or not it was stopped.
    #[must_use]
    pub fn and_remove(mut self, directory: impl Into<PathBuf>) -> Self {
        self.remove = Some(directory.into());
        self
    }
}

/// A running child process. It ends when this process ends, at the latest. Dropping this value
/// stops the child and waits until it has ended.
#[derive(Debug)]
pub struct ChildGuard {
    supervisor: Child,
    pid: u32,
    socket: Option<UnixStream>,
}

impl ChildGuard {
    /// Starts `program`. `configure` adds its arguments, environment and outputs. The standard
    /// input of the child is empty. The child runs in its own process group, so Ctrl-C in a
    /// terminal sends SIGINT only to this process.
    ///
    /// # Errors
    ///
    /// When the shell cannot be started. If `program` cannot be started, this is not an error: the
    /// exit status is 126 or 127.
    pub fn start(
        program: impl AsRef<OsStr>,
        shutdown: ShutdownMethod,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "leash", shutdown.signal])
            .arg(shutdown.grace.as_secs().to_string())
            .arg(shutdown.remove.unwrap_or_default())
            .arg(program);
        configure(&mut command);
        let (socket, supervisor_socket) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(supervisor_socket))).process_group(0);
        let supervisor = command.spawn()?;
        // `command` holds a copy of the supervisor's end of the socket. Close it: otherwise
        // `read_line` would wait forever if the supervisor ended before it wrote the PID.
        drop(command);
        let mut line = String::new();
        BufReader::new(&socket).read_line(&mut line)?;
        let pid = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { supervisor, pid, socket: Some(socket) })
    }

    /// The PID of the child. The operating system may reuse it after the child has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the child a signal (`"KILL"`, `"STOP"`, `"CONT"`, …).
    ///
    /// # Errors
    ///
    /// When the child has ended or is being stopped.
    pub fn signal(&mut self, signal: &str) -> io::Result<()> {
        let has_ended = self.try_wait()?.is_some();
        let mut socket =
            self.socket.as_ref().filter(|_| !has_ended).ok_or(io::ErrorKind::NotConnected)?;
        socket.write_all(format!("{signal}\n").as_bytes())
    }

    /// Begins to stop the child, and returns without waiting. Several children can thus be stopped
    /// at the same time.
    pub fn request_stop(&mut self) {
        self.socket = None;
    }

    /// Stops the child, waits until it has ended, and returns its exit status.
    ///
    /// # Errors
    ///
    /// When the operating system does not report the exit status.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.request_stop();
        self.wait()
    }

    /// Waits until the child has ended, without stopping it, and returns its exit status. If a
    /// signal ended the child, the exit code is 128 plus the number of the signal.
    ///
    /// # Errors
    ///
    /// When the operating system does not report the exit status.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.supervisor.wait()
    }

    /// Returns the exit status of the child, or `None` if it still runs.
    ///
    /// # Errors
    ///
    /// When the operating system does not report the exit status.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.supervisor.try_wait()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.request_stop();
        // `drop` cannot return an error. The supervisor stops the child in any case.
        let _ = self.wait();
    }
}
