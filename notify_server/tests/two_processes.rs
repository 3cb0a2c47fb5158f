//! Both real binaries: from the POST of one to the streams of the other.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use devdb::{Ending, Leash, TestDatabase};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both servers on a database of their own.
struct Fechatter {
    client: Client,
    rest: String,
    events: String,
    operations: [String; 2],
    servers: [Leash; 2],
    database: TestDatabase,
}

impl Fechatter {
    async fn start() -> Self {
        let database = TestDatabase::create(&fechatter_server::MIGRATOR).await;
        let [rest, rest_operations, events, events_operations] = free_addresses();
        let mut environment = vec![
            ("DATABASE_URL", database.url()),
            ("FECHATTER__SERVER__LISTEN", rest.to_string()),
            ("FECHATTER__SERVER__OPERATIONS_LISTEN", rest_operations.to_string()),
            ("FECHATTER__NOTIFY__LISTEN", events.to_string()),
            ("FECHATTER__NOTIFY__OPERATIONS_LISTEN", events_operations.to_string()),
            ("FECHATTER__ACCOUNTS__WORKSPACE_CREATION", "anyone".into()),
            ("FECHATTER__ACCOUNTS__JOIN_POLICY", "open".into()),
            ("FECHATTER__LOG__FILTER", "warn".into()),
        ];
        let keys = fechatter_server::keygen().unwrap();
        environment.extend(keys.lines().map(|line| {
            let (key, value) = line.split_once('=').unwrap();
            (key, value.to_owned())
        }));
        let start = |program: &Path| {
            let ending = Ending::new("TERM", Duration::from_secs(20));
            let configure = |command: &mut Command| {
                let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../app.yml.example");
                command.args(["--config", example]).envs(environment.clone()).stdout(Stdio::null());
            };
            Leash::start(program, ending, configure).unwrap()
        };
        let notify_server = Path::new(env!("CARGO_BIN_EXE_notify_server"));
        let servers = [start(&fechatter_server()), start(notify_server)];
        let fechatter = Self {
            client: Client::builder().no_proxy().build().unwrap(),
            rest: format!("http://{rest}"),
            events: format!("http://{events}/events"),
            operations: [rest_operations, events_operations].map(|a| format!("http://{a}/readyz")),
            servers,
            database,
        };
        for readyz in &fechatter.operations {
            timeout(PATIENCE, fechatter.ready(readyz)).await.expect("the server is never ready");
        }
        fechatter
    }

    async fn ready(&self, readyz: &str) {
        while self.client.get(readyz).send().await.map(|r| r.status()).ok()
            != Some(StatusCode::NO_CONTENT)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn signs_up(&self, name: &str, workspace: &str) -> Person<'_> {
        let email = format!("{name}@acme.test");
        let body = json!({ "fullname": name, "email": email, "password": "correct horse battery",
            "workspace": workspace });
        let signed_up = self.client.post(format!("{}/api/signup", self.rest)).json(&body).send();
        let signed_up = signed_up.await.unwrap();
        assert_eq!(signed_up.status(), StatusCode::CREATED);
        let signed_up: Value = signed_up.json().await.unwrap();
        Person {
            fechatter: self,
            id: signed_up["user"]["id"].as_i64().unwrap(),
            token: signed_up["access_token"].as_str().unwrap().to_owned(),
        }
    }
}

/// The other crate's binary, which a build of the whole workspace puts beside ours.
fn fechatter_server() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_notify_server")).with_file_name("fechatter_server");
    assert!(program.exists(), "run `cargo build --workspace` first: this test needs both servers");
    program
}

/// Addresses that nobody listened on a moment ago.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

struct Person<'a> {
    fechatter: &'a Fechatter,
    id: i64,
    token: String,
}

impl Person<'_> {
    async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.fechatter.rest);
        let request = self.fechatter.client.post(url).bearer_auth(&self.token).json(body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// Follows the person's events, from a cursor or from now.
    async fn listens(&self, cursor: Option<&str>) -> Stream {
        let mut request = self.fechatter.client.get(&self.fechatter.events);
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = Stream { response, bytes: Vec::new(), cursor: None };
        assert_eq!(stream.next().await.unwrap()["event"], "Ready");
        stream
    }
}

/// An open stream; its frames are read one by one.
struct Stream {
    response: Response,
    bytes: Vec<u8>,
    cursor: Option<String>,
}

impl Stream {
    /// The next event's data, or none at the stream's end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let frame = String::from_utf8(self.bytes.drain(..end + 2).collect()).unwrap();
                let line = |field| frame.lines().find_map(|line| line.strip_prefix(field));
                self.cursor = line("id: ").map(ToOwned::to_owned).or(self.cursor.take());
                if let Some(data) = line("data: ") {
                    return Some(serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("no event came");
            self.bytes.extend(chunk.ok()??);
        }
    }

    async fn until(&mut self, event: &str) -> Value {
        loop {
            let next = self.next().await.expect("the stream ended");
            if next["event"] == event {
                return next;
            }
        }
    }
}

#[tokio::test]
async fn a_message_reaches_its_three_members_and_no_stranger() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let carol = fechatter.signs_up("carol", "Acme").await;
    let eve = fechatter.signs_up("eve", "Acme").await;
    let mallory = fechatter.signs_up("mallory", "Evil Corp").await;
    let mut members = Vec::new();
    for person in [&alice, &bob, &carol] {
        members.push(person.listens(None).await);
    }
    let (mut eve_hears, mut mallory_hears) = (eve.listens(None).await, mallory.listens(None).await);

    let group = json!({ "name": "lunch", "chat_type": "Group", "members": [bob.id, carol.id] });
    let chat = alice.post("/api/chat", &group).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    // The longest message there is, of characters that take four bytes each.
    let longest = "🍜".repeat(10_000);
    let sent = alice.post(&messages, &json!({ "content": longest })).await;

    for stream in &mut members {
        assert_eq!(stream.next().await.unwrap()["event"], "NewChat");
        let mut received = stream.next().await.unwrap();
        assert_eq!(received.as_object_mut().unwrap().remove("event").unwrap(), "NewMessage");
        assert_eq!(received, sent);
    }
    // What comes after it in their own logs shows that nothing came before.
    for (person, stream) in [(&eve, &mut eve_hears), (&mallory, &mut mallory_hears)] {
        let own = json!({ "name": "mine", "chat_type": "PrivateChannel" });
        let own = person.post("/api/chat", &own).await;
        let first = stream.next().await.unwrap();
        assert_eq!((&first["event"], &first["id"]), (&json!("NewChat"), &own["id"]));
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_every_connection_to_the_database_was_cut() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    alice.post(&messages, &json!({ "content": "before" })).await;
    assert_eq!(stream.until("NewMessage").await["content"], "before");

    let admin = sqlx::PgPool::connect_with(fechatter.database.options()).await.unwrap();
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(&admin)
    .await
    .unwrap();
    alice.post(&messages, &json!({ "content": "after" })).await;
    assert_eq!(stream.until("NewMessage").await["content"], "after");
}

#[tokio::test]
async fn both_servers_end_on_sigterm_and_streams_say_goodbye() {
    let mut fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    for server in &mut fechatter.servers {
        server.let_go();
    }
    assert_eq!(stream.until("Goodbye").await["reason"], "draining");
    assert!(stream.next().await.is_none(), "Goodbye is the last event");
    let statuses = tokio::task::spawn_blocking(move || {
        fechatter.servers.map(|server| server.stop().unwrap().code())
    });
    // A server that did not end within 20 s was killed, and its status says so.
    assert_eq!(statuses.await.unwrap(), [Some(0), Some(0)]);
}

#[tokio::test]
async fn a_client_resumes_at_another_start_of_the_stream() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    stream.until("NewChat").await;
    let cursor = stream.cursor.clone();
    drop(stream);

    let messages = format!("/api/chat/{}/messages", chat["id"]);
    let mut sent = Vec::new();
    for i in 1..=20 {
        let message = alice.post(&messages, &json!({ "content": i.to_string() })).await;
        sent.push(message["id"].clone());
    }
    let mut stream = alice.listens(cursor.as_deref()).await;
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.push(stream.until("NewMessage").await["id"].clone());
    }
    assert_eq!(received, sent);
}
