//! Configurations that the server refuses, and that may not be repeated when it does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use uuid::Uuid;

const EXAMPLE: &str = include_str!("../../app.yml.example");

/// A folder to start the server in; it is removed with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn with(env_file: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::now_v7().to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("app.yml"), EXAMPLE).unwrap();
        fs::write(folder.join(".env"), env_file).unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut server = Command::new(env!("CARGO_BIN_EXE_fechatter_server"));
        // Nothing listens there, should a wrong key pass.
        server.env_clear().env("DATABASE_URL", "postgres://127.0.0.1:1/none");
        server.args(arguments).envs(environment.iter().copied()).current_dir(&self.0);
        server.output().unwrap()
    }

    /// What the server says before it ends with a failure.
    #[track_caller]
    fn complaint(&self, environment: &[(&str, &str)]) -> String {
        let output = self.run(&[], environment);
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

fn good_keys() -> String {
    fechatter_server::keygen().unwrap()
}

#[test]
fn an_invalid_line_of_the_env_file_is_reported_by_number_without_its_text() {
    for (line, number) in [
        ("FECHATTER__AUTH__REFRESH_KEY: hunter2", 4),
        ("FECHATTER__AUTH__REFRESH_KEY=hunter2 two", 4),
        ("FECHATTER__AUTH__REFRESH_KEY='hunter2\nA=1", 4),
        ("hunter2", 4),
        ("\n\n= hunter2", 6),
    ] {
        let complaint = Folder::with(&format!("{}{line}\n", good_keys())).complaint(&[]);
        assert!(complaint.contains(".env"), "{complaint}");
        assert!(complaint.contains(&format!("line {number} ")), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

#[test]
fn a_setting_of_the_wrong_type_is_reported_by_name_without_its_value() {
    let folder = Folder::with(&good_keys());
    for (name, value, named) in [
        ("DATABASE_URL", "postgres://u:hunter2@[db/x", "database.url"),
        ("DATABASE_URL", "postgres://u:hunter2", "database.url"),
        ("DATABASE_URL", "hunter2", "database.url"),
        ("DATABASE_URL", "postgres:///u:hunter2@127.0.0.1:1/x", "database.url"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/hunter2@db/x", "database.url"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/x?pasword=hunter2", "parameter"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/x?password=hunter2", "database.url"),
        ("FECHATTER__DATABASE", "postgres://u:hunter2@db/x", "database"),
        ("FECHATTER__DATABASE__MAX_CONNECTIONS", "hunter2", "database.max_connections"),
        ("FECHATTER__AUTH", "hunter2", "auth"),
        ("FECHATTER__AUTH__PRIVATE_KEY", "hunter2", "auth.private_key"),
        ("FECHATTER__AUTH__PRIVATE_KEY__X", "hunter2", ""),
        ("FECHATTER__AUTH__REFRESH_KEY", "hunter2", "auth.refresh_key"),
        ("FECHATTER__AUTH__REFRESH_KEYS", "hunter2", "refresh_keys"),
        ("FECHATTER__AUTH__SECURE_COOKIE", "hunter2", "auth.secure_cookie"),
        ("FECHATTER__LOG__FORMAT", "hunter2", "log.format"),
        ("FECHATTER__SERVER__LISTEN", "hunter2", "server.listen"),
    ] {
        let complaint = folder.complaint(&[(name, value)]);
        assert!(complaint.contains(named), "{name} {value}: {complaint}");
        assert!(!complaint.contains("hunter2"), "{name} {value}: {complaint}");
    }
}

#[cfg(unix)]
#[test]
fn a_setting_that_is_not_utf_8_is_not_printed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::with(&good_keys());
    for name in ["FECHATTER__AUTH__REFRESH_KEY", "DATABASE_URL"] {
        let mut server = Command::new(env!("CARGO_BIN_EXE_fechatter_server"));
        server.env_clear().env("DATABASE_URL", "postgres://127.0.0.1:1/none");
        server.env(name, OsStr::from_bytes(b"hunter2\xff")).current_dir(&folder.0);
        let output = server.output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !complaint.contains("hunter2"), "{name}: {complaint}");
    }
}

#[test]
fn keys_that_can_be_guessed_are_refused() {
    let folder = Folder::with(&good_keys());
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let ascending: Vec<_> = (0..32).collect();
    let pkcs8 = |seed: &[u8]| {
        let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        base64(&[head, seed].concat())
    };
    for bytes in
        [&[0; 32], &[1; 32], b"\xde\xad\xbe\xef".repeat(8).as_slice(), &ascending, &[b'x'; 32]]
    {
        for (name, value, named) in [
            ("FECHATTER__AUTH__REFRESH_KEY", base64(bytes), "auth.refresh_key"),
            ("FECHATTER__AUTH__PUBLIC_KEYS", base64(bytes), "auth.public_keys"),
            // Its public half is not listed, but that is not what matters.
            ("FECHATTER__AUTH__PRIVATE_KEY", pkcs8(bytes), "auth.private_key is not random"),
        ] {
            let complaint = folder.complaint(&[(name, &value)]);
            assert!(complaint.contains(named), "{complaint}");
            assert!(!complaint.contains(&value), "{complaint}");
        }
    }
    let keys = good_keys();
    let public = keys.lines().find_map(|line| line.strip_prefix("FECHATTER__AUTH__PUBLIC_KEYS="));
    let environment = [
        ("FECHATTER__AUTH__PUBLIC_KEYS", public.unwrap()),
        ("FECHATTER__AUTH__REFRESH_KEY", public.unwrap()),
        ("FECHATTER__AUTH__PRIVATE_KEY", keys.lines().next().unwrap().split_once('=').unwrap().1),
    ];
    let complaint = folder.complaint(&environment);
    assert!(complaint.contains("auth.refresh_key must differ from the other keys"), "{complaint}");
}

#[test]
fn keygen_prints_keys_or_adds_them_to_a_file() {
    let folder = Folder::with("A=1\n");
    let printed = String::from_utf8(folder.run(&["keygen"], &[]).stdout).unwrap();
    assert_eq!(printed.lines().count(), 3, "{printed}");

    let written = folder.run(&["keygen", "--write", ".env"], &[]);
    assert!(written.status.success() && written.stdout.is_empty(), "{written:?}");
    let content = fs::read_to_string(folder.0.join(".env")).unwrap();
    assert!(content.starts_with("A=1\nFECHATTER__AUTH__PRIVATE_KEY="), "{content}");
    // With them the server gets as far as its database.
    let complaint = folder.complaint(&[]);
    assert!(complaint.contains("cannot be reached"), "{complaint}");

    let again = folder.run(&["keygen", "--write", ".env"], &[]);
    assert!(!again.status.success());
    assert_eq!(fs::read_to_string(folder.0.join(".env")).unwrap(), content);
}

#[test]
fn config_check_prints_the_source_of_each_value_and_no_secret() {
    let folder = Folder::with(&format!("{}FECHATTER__HTTP__BURST=7\n", good_keys()));
    fs::write(folder.0.join("app.yml"), LEAST).unwrap();

    let output = folder.run(&["config", "check"], &[]);

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for line in [
        "accounts.join_policy = invite (default)",
        "auth.private_key is set (environment)",
        "database.listen_url is not set",
        "database.url is set (DATABASE_URL)",
        "http.burst = 7 (environment)",
        "server.public_url = https://chat.example (file)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    assert!(!text.contains("127.0.0.1:1/none"), "{text}");
}

#[test]
fn config_check_fails_for_an_unknown_key_but_the_server_only_warns() {
    let folder = Folder::with(&good_keys());
    fs::write(folder.0.join("app.yml"), format!("{LEAST}http: {{brust: 7}}\n")).unwrap();
    let unknown = "http.brust is not known: did you mean http.burst?";

    let checked = folder.run(&["config", "check"], &[]);
    assert_eq!(checked.status.code(), Some(1));
    let complaint = String::from_utf8(checked.stderr).unwrap();
    assert!(complaint.contains(unknown), "{complaint}");

    // The server gets as far as its database.
    let complaint = folder.complaint(&[]);
    assert!(complaint.contains(unknown) && complaint.contains("cannot be reached"), "{complaint}");

    fs::write(folder.0.join("app.yml"), "server: {public_url: https://chat.example}\n").unwrap();
    let checked = folder.run(&["config", "check"], &[]);
    assert_eq!(checked.status.code(), Some(1));
    let complaint = String::from_utf8(checked.stderr).unwrap();
    assert!(complaint.contains("notify.public_url is missing"), "{complaint}");
}

/// All that a configuration must say, besides the keys and the database.
const LEAST: &str = "
server: {public_url: https://chat.example}
notify: {public_url: https://chat.example}
";
