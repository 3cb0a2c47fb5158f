//! A child process that cannot outlive us, not even when we are killed with −9.
//!
//! Between us and the child stands a small shell whose standard input is a socket to us. However we end, the kernel
//! closes the socket; the shell then ends the child, and nothing here needs `unsafe` or a platform's own call.

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

/// `$1` the ending signal, `$2` seconds until KILL, `$3` a directory to remove (or nothing), then the child's command.
///
/// It tells the child's process id, before anything ends the shells, and without minding that we may be gone by then. The
/// second process sends the child each signal that it reads, until the socket closes. The child itself gets neither the
/// socket (3) nor the spare copy of standard error (4), which keeps a shell's remarks about killed jobs off the terminal.
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

/// How a leashed child is ended.
#[derive(Clone, Debug)]
pub struct Ending {
    signal: &'static str,
    grace: Duration,
    remove: Option<PathBuf>,
}

impl Ending {
    /// Asks with `signal` (`"TERM"`, `"INT"`…), and insists with KILL after `grace`, counted in whole seconds.
    #[must_use]
    pub fn new(signal: &'static str, grace: Duration) -> Self {
        Self { signal, grace, remove: None }
    }

    /// Removes this directory once the child has ended, for whatever reason.
    #[must_use]
    pub fn and_remove(mut self, directory: impl Into<PathBuf>) -> Self {
        self.remove = Some(directory.into());
        self
    }
}

/// A running child that ends, at the latest, with this process. Dropping the leash ends the child and waits for it.
#[derive(Debug)]
pub struct Leash {
    supervisor: Child,
    child: u32,
    socket: Option<UnixStream>,
}

impl Leash {
    /// Starts `program`; `configure` adds its arguments, environment and outputs. Its standard input is empty, and it
    /// runs in a process group of its own: a terminal's Ctrl-C reaches only us.
    ///
    /// # Errors
    ///
    /// When no shell can be started. A program that cannot be started exits with 126 or 127 instead.
    pub fn start(
        program: impl AsRef<OsStr>,
        ending: Ending,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "leash", ending.signal])
            .arg(ending.grace.as_secs().to_string())
            .arg(ending.remove.unwrap_or_default())
            .arg(program);
        configure(&mut command);
        let (socket, its) = UnixStream::pair()?;
        let supervisor = command.stdin(Stdio::from(OwnedFd::from(its))).process_group(0).spawn()?;
        // It keeps a copy of its end of the socket, and we would never read that it has ended.
        drop(command);
        let mut said = String::new();
        BufReader::new(&socket).read_line(&mut said)?;
        let child = said.trim().parse().map_err(io::Error::other)?;
        Ok(Self { supervisor, child, socket: Some(socket) })
    }

    /// The child's process id, to ask the system about it while it runs.
    #[must_use]
    pub fn child(&self) -> u32 {
        self.child
    }

    /// Sends the child a signal (`"KILL"`, `"STOP"`, `"CONT"`…).
    ///
    /// # Errors
    ///
    /// When the child has ended or its ending has begun.
    pub fn signal(&mut self, signal: &str) -> io::Result<()> {
        let has_ended = self.try_wait()?.is_some();
        let mut socket =
            self.socket.as_ref().filter(|_| !has_ended).ok_or(io::ErrorKind::NotConnected)?;
        socket.write_all(format!("{signal}\n").as_bytes())
    }

    /// Asks the child to end, and returns at once, so that several children can end at the same
    /// time.
    pub fn request_stop(&mut self) {
        self.socket = None;
    }

    /// Ends the child and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell how it ended.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.request_stop();
        self.wait()
    }

    /// Waits until the child ends by itself. A signal counts as 128 more than its number.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell how it ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.supervisor.wait()
    }

    /// The child's status if it has ended.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.supervisor.try_wait()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.request_stop();
        // Nobody is left to hear of a failure; the child is being ended either way.
        let _ = self.wait();
    }
}
