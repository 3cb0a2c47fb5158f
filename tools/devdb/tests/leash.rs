//! A child process ends by itself, when it is stopped, or when the process that started it ends.

#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

use std::{
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{self, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use devdb::{ChildGuard, ShutdownMethod};

/// Writes its PID, and then each stop signal that it receives, to the file `$0`.
const CHILD: &str = r#"
trap 'echo TERM >> "$0"; exit 7' TERM
echo $$ >> "$0"
while :; do sleep 0.05; done
"#;

#[test]
fn a_stopped_child_is_asked_with_its_signal_and_its_status_comes_back() {
    let notes = notes("stopped");
    let child = start(CHILD, ShutdownMethod::new("TERM", Duration::from_secs(5)), &notes);
    wait_for(|| lines(&notes).len() == 1);

    let status = child.stop().unwrap();

    assert_eq!(status.code(), Some(7));
    assert_eq!(lines(&notes)[1], "TERM");
    assert!(!is_alive(&lines(&notes)[0]));
}

#[test]
fn a_child_that_ends_by_itself_gives_its_status() {
    let notes = notes("by-itself");
    let mut child = start("exit 3", ShutdownMethod::new("TERM", Duration::from_secs(5)), &notes);

    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_child_gets_the_signals_that_it_is_sent() {
    let notes = notes("signals");
    let mut child = start(CHILD, ShutdownMethod::new("TERM", Duration::from_secs(5)), &notes);
    wait_for(|| lines(&notes).len() == 1);
    assert_eq!(lines(&notes)[0], child.pid().to_string());

    // A child stopped with SIGSTOP handles other signals only after SIGCONT, except for SIGKILL.
    child.signal("STOP").unwrap();
    child.signal("TERM").unwrap();
    child.signal("KILL").unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    assert_eq!(lines(&notes).len(), 1);
    assert!(child.signal("TERM").is_err());
}

#[test]
fn a_program_that_does_not_exist_is_127() {
    let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(5));
    let mut child = ChildGuard::start("/no/such/program", shutdown, |_| {}).unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(127));
}

#[test]
fn a_child_that_will_not_listen_is_killed() {
    let notes = notes("deaf");
    let deaf = r#"trap '' TERM; echo $$ >> "$0"; while :; do sleep 0.05; done"#;
    let child = start(deaf, ShutdownMethod::new("TERM", Duration::from_secs(1)), &notes);
    wait_for(|| lines(&notes).len() == 1);

    let status = child.stop().unwrap();

    assert_eq!(status.code(), Some(128 + 9));
    assert!(!is_alive(&lines(&notes)[0]));
}

#[test]
fn a_directory_is_removed_once_the_child_has_ended() {
    let directory = env::temp_dir().join(format!("fechatter-leash-{}", process::id()));
    fs::create_dir_all(directory.join("deep")).unwrap();
    let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(5)).and_remove(&directory);
    let child = ChildGuard::start("sleep", shutdown, |command| {
        command.arg("60");
    });

    child.unwrap().stop().unwrap();

    assert!(!directory.exists());
}

/// This test runs itself again as another process, which starts a child and is then killed.
#[test]
fn a_child_ends_with_an_owner_that_was_killed() {
    if let Some(notes) = env::var_os("LEASH_TEST_OWNER") {
        let _child =
            start(CHILD, ShutdownMethod::new("TERM", Duration::from_secs(5)), Path::new(&notes));
        sleep(Duration::from_mins(1));
        return;
    }
    let notes = notes("killed");
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_child_ends_with_an_owner_that_was_killed"])
        .env("LEASH_TEST_OWNER", &*notes)
        .spawn()
        .unwrap();
    wait_for(|| lines(&notes).len() == 1);

    owner.kill().unwrap();
    owner.wait().unwrap();

    wait_for(|| lines(&notes).get(1).is_some_and(|line| line == "TERM"));
    wait_for(|| !is_alive(&lines(&notes)[0]));
}

fn start(script: &str, shutdown: ShutdownMethod, notes: &Path) -> ChildGuard {
    let configure = |command: &mut Command| {
        command.args(["-c", script]).arg(notes);
    };
    ChildGuard::start("sh", shutdown, configure).unwrap()
}

/// A file that is removed at the end of the test.
struct Notes(PathBuf);

impl Deref for Notes {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn notes(name: &str) -> Notes {
    let file = env::temp_dir().join(format!("fechatter-leash-{name}-{}", process::id()));
    fs::write(&file, "").unwrap();
    Notes(file)
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn is_alive(process: &str) -> bool {
    Command::new("kill").args(["-0", process]).output().unwrap().status.success()
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        sleep(Duration::from_millis(10));
    }
}
