//! The operator's commands, as the program carries them out.

use std::process::{Command, Output};

use fechatter_core::workspace::JoinPolicy;
use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::harness::{Log, PASSWORD, Person, TestApp};

impl TestApp {
    /// Runs `fechatter_server admin` on the database of this server.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_fechatter_server"));
        program
            .env_clear()
            .env("FECHATTER__DATABASE__URL", self.config.database.url.expose_secret())
            .env("FECHATTER__SERVER__PUBLIC_URL", "https://chat.acme.test")
            .env("FECHATTER__FILES__PATH", &self.config.files.path)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--config", "../app.yml.example", "admin"])
            .args(arguments);
        program.output().unwrap()
    }

    /// The text that a command prints.
    #[track_caller]
    pub(crate) fn administers(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.admin(arguments);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// The code of a link with which the first workspace is created.
    pub(crate) fn setup_code(&self) -> String {
        let link = self.administers_json(&["setup-link"]);
        let (url, code) = link["url"].as_str().unwrap().split_once('#').unwrap();
        assert_eq!(url, "https://chat.acme.test/setup");
        code.to_owned()
    }

    /// The output of a command as JSON.
    #[track_caller]
    fn administers_json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.administers(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The complaint of a command that fails.
    #[track_caller]
    pub(crate) fn refuses_to(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.admin(arguments);
        assert_eq!(status.code(), Some(1));
        assert!(stdout.is_empty());
        String::from_utf8(stderr).unwrap()
    }
}

/// The actions in the audit log of a workspace, newest first, all by the operator.
async fn audited(owner: &Person) -> Vec<String> {
    let page = owner.get("/api/audit").await.expect(StatusCode::OK);
    let operator = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout);
    let entries = page["items"].as_array().unwrap().iter().map(|entry| {
        assert_eq!(entry["actor"], Value::Null);
        assert_eq!(entry["details"]["operator"], operator.as_ref().unwrap().trim());
        entry["action"].as_str().unwrap().to_owned()
    });
    entries.collect()
}

#[tokio::test]
async fn the_operator_suspends_restores_and_promotes_people() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    let said = app.administers(&["user", "suspend", "bob@acme.test"]);
    assert_eq!(said, "bob@acme.test in Acme: member, Suspended\n");
    bob.get("/api/me").await.refuses(StatusCode::FORBIDDEN, "suspended");
    let event = Log::only(log.news().await, "UserUpdated").data();
    assert_eq!((&event["id"], &event["status"]), (&json!(bob.id), &json!("Suspended")));
    let again = app.administers(&["user", "suspend", "BOB@acme.test", "--workspace", "acme"]);
    assert_eq!(again, "bob@acme.test in Acme: member, Suspended already; nothing changed\n");
    assert!(log.news().await.is_empty());

    let restored = app.administers_json(&["user", "restore", "bob@acme.test"]);
    assert_eq!(restored["status"], "Active");
    app.administers(&["user", "set-role", "bob@acme.test", "admin"]);
    assert_eq!(bob.get("/api/me").await.expect(StatusCode::OK)["role"], "admin");
    assert_eq!(audited(&alice).await, ["user.role_changed", "user.restored", "user.suspended"]);
    for command in [
        ["user", "suspend", "alice@acme.test"].as_slice(),
        &["user", "set-role", "alice@acme.test", "member"],
    ] {
        assert!(app.refuses_to(command).contains("the workspace must keep an active owner"));
    }
    assert!(app.refuses_to(&["user", "suspend", "x@y.test"]).contains("no account of x@y.test"));
    assert_eq!(app.admin(&["user", "set-role", "bob@acme.test", "king"]).status.code(), Some(2));
}

#[tokio::test]
async fn the_operator_names_the_workspace_of_a_person_who_is_in_several() {
    let app = TestApp::start().await;
    let [alice, _] = app.users(["alice", "bob"]).await;
    let founded = alice.post("/api/workspaces", json!({ "name": "Side" })).await;
    founded.expect(StatusCode::CREATED);
    let complaint = app.refuses_to(&["user", "suspend", "alice@acme.test"]);
    assert!(complaint.contains("--workspace: Acme, Side"), "{complaint}");
    let shown = app.administers(&["user", "show", "alice@acme.test"]);
    assert!(shown.contains("Acme: alice, owner, Active"), "{shown}");
    let listed = app.administers_json(&["user", "list", "--workspace", "Acme"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_operator_signs_people_out_and_hands_out_links() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    // The account is in two workspaces, so that only the operator may do this.
    let founded = bob.post("/api/workspaces", json!({ "name": "Side" })).await;
    founded.expect(StatusCode::CREATED);

    let said = app.administers(&["user", "sign-out", "bob@acme.test"]);
    assert_eq!(said, "bob@acme.test: 1 sessions have ended\n");
    bob.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");

    let link = app.administers_json(&["user", "reset-link", "bob@acme.test"]);
    let (url, token) = link["url"].as_str().unwrap().split_once('#').unwrap();
    assert_eq!(url, "https://chat.acme.test/reset");
    let reset = json!({ "token": token, "new_password": "another horse battery" });
    let confirmed = app.anyone.post("/api/password-reset/confirm", reset).await;
    confirmed.expect(StatusCode::NO_CONTENT);
    app.tries("bob@acme.test", "another horse battery").await.expect(StatusCode::OK);
    assert_eq!(audited(&alice).await, ["user.reset_link_created", "user.signed_out"]);
}

#[tokio::test]
async fn the_operator_creates_renames_and_lists_workspaces() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let created =
        app.administers_json(&["workspace", "create", "Side", "--owner", "alice@acme.test"]);
    assert_eq!((&created["name"], &created["owner_id"]), (&json!("Side"), &json!(alice.id)));
    assert!(
        app.refuses_to(&["workspace", "create", "SIDE", "--owner", "alice@acme.test"])
            .contains("there is a workspace like SIDE")
    );
    let mut log = app.log_of(alice.workspace_id).await;
    app.administers(&["workspace", "rename", "Acme", "Apex"]);
    assert_eq!(Log::only(log.news().await, "WorkspaceUpdated").data()["name"], "Apex");
    assert!(app.refuses_to(&["workspace", "rename", "Apex", "Side"]).contains("of this name"));
    assert!(app.refuses_to(&["workspace", "show", "Acme"]).contains("no workspace named Acme"));
    let listed = app.administers(&["workspace", "list"]);
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("Apex") && lines[2].contains("Side"), "{listed}");
    assert!(app.administers(&["workspace", "show", "Apex"]).contains("owners: alice@acme.test"));
}

#[tokio::test]
async fn the_operator_invites_somebody_in_the_owners_name() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let invite = app.administers_json(&["invite", "create", "Acme", "--role", "admin"]);
    assert_eq!(invite["created_by"], alice.id);
    assert_eq!(audited(&alice).await, ["invite.created"]);
    let bob = json!({
        "fullname": "bob", "email": "bob@acme.test", "password": PASSWORD,
        "invite_code": invite["code"],
    });
    let joined = app.anyone.post("/api/signup", bob).await.expect(StatusCode::CREATED);
    assert_eq!(joined["user"]["role"], "admin");
}

#[tokio::test]
async fn the_operator_erases_an_account() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    bob.sends(&chat, "secret").await;
    let refused = app.refuses_to(&["user", "erase", "alice@acme.test"]);
    assert!(refused.contains("alice@acme.test is the last owner of Acme"), "{refused}");

    app.administers(&["user", "erase", "bob@acme.test", "--messages", "blank"]);
    bob.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    let shown = alice.get(&format!("/api/users/{}", bob.id)).await.expect(StatusCode::OK);
    assert_eq!((&shown["fullname"], &shown["status"]), (&json!("Former member"), &json!("Left")));
    let messages = alice.get(&chat.messages).await.expect(StatusCode::OK);
    assert!(!messages.to_string().contains("secret"));
    assert_eq!(audited(&alice).await, ["user.erased"]);
    let unknown = app.refuses_to(&["user", "erase", "bob@acme.test"]);
    assert!(unknown.contains("no account of bob@acme.test"));
}

#[tokio::test]
async fn the_operator_sees_how_much_there_is() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let olga = app.user_in("olga", "Other").await;
    let chat = alice.creates_private_channel("lunch", []).await;
    alice.counts_to(3, &chat).await;
    olga.creates_private_channel("other", []).await;
    let stats = app.administers_json(&["stats"]);
    let [acme, other] = [0, 1].map(|number| &stats["workspaces"][number]);
    assert_eq!((&acme["messages"], &acme["messages_last_day"]), (&json!(3), &json!(3)));
    assert_eq!((&other["name"], &other["messages"]), (&json!("Other"), &json!(0)));
    assert!(stats["tables"].as_array().unwrap().len() > 20);
    let text = app.administers(&["stats", "other"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(app.administers(&["stats"]).contains("all tables: "));
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let chat = alice.creates_private_channel("lunch", [&bob]).await;
    alice.counts_to(3, &chat).await;
    let examine = |arguments: &[&str]| {
        let output = app.admin(&[&["doctor"], arguments].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    // The harness gives it no keys, and the tests' PostgreSQL need not survive a crash.
    let (status, text) = examine(&["--database"]);
    let problems: Vec<_> = text.lines().filter(|line| !line.starts_with("ok ")).collect();
    assert_eq!((status, problems.len()), (1, 2), "{text}");
    assert!(problems[0].starts_with("fail  keys: "), "{text}");
    assert!(problems[1].starts_with("fail  durability: fsync, "), "{text}");

    app.sql("update chats set member_count = 3").await;
    app.sql("delete from events where position = 3").await;
    app.sql("update messages set seq = 7 where seq = 3").await;
    let (_, text) = examine(&["--database"]);
    for part in [
        format!("fail  logs: gaps in the logs of workspaces: {}", alice.workspace_id),
        format!("fail  messages: gaps in chats: {}", chat.id),
        format!("fail  members: wrong numbers of members in chats: {}", chat.id),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    let (_, text) = examine(&["--json"]);
    let findings: Value = serde_json::from_str(&text).unwrap();
    assert!(findings.as_array().unwrap().iter().any(|finding| finding["check"] == "clock"));
}

#[tokio::test]
async fn the_commands_of_the_documentation_print_what_it_shows() {
    let document = include_str!("../../../docs/operating.md");
    let (_, transcript) = document.split_once("```console\n").unwrap();
    let (transcript, _) = transcript.split_once("```").unwrap();
    let app = TestApp::with(|config| config.accounts.join_policy = JoinPolicy::Open).await;
    let [alice, _] = app.users(["alice", "bob"]).await;
    alice.patch("/api/workspace", json!({ "join_policy": "invite" })).await.expect(StatusCode::OK);
    let commands = transcript.split("$ fechatter_server admin ").skip(1);
    let mut played = 0;
    for command in commands {
        let (line, expected) = command.split_once('\n').unwrap();
        let Output { stdout, stderr, .. } = app.admin(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(String::from_utf8([stdout, stderr].concat()).unwrap(), expected, "{line}");
        played += 1;
    }
    assert!(played > 8);
}

#[tokio::test]
async fn an_unreachable_database_is_reported() {
    let program = env!("CARGO_BIN_EXE_fechatter_server");
    let output = Command::new(program)
        .env_clear()
        .env("FECHATTER__DATABASE__URL", "postgres://127.0.0.1:1/none")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--config", "../app.yml.example", "admin", "workspace", "list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("the database of database.url"), "{complaint}");
}
