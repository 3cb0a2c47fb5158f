//! Both servers as processes of their own, and people who use them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use contract::Checked;
use devdb::{TestDatabase, reserve_port};
use fechatter_core::schema::{CODE, MIGRATOR};
use reqwest::{Client, Method, Response, StatusCode};
use rig::Process;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// The configuration of all servers, but for what the environment says.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../app.yml.example");
/// The file store of all servers.
const FILES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/files");
/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An environment variable.
pub(crate) type Setting = (&'static str, String);

/// Both servers on a database of their own.
pub(crate) struct Fechatter {
    client: Client,
    rest: String,
    events: String,
    pub(crate) operations: [String; 2],
    pub(crate) servers: [Process; 2],
    logs: [Log; 2],
    pub(crate) database: Option<TestDatabase>,
}

impl Fechatter {
    pub(crate) async fn start() -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let fechatter = Self::start_on(&database.url(), &[]).await;
        Self { database: Some(database), ..fechatter }
    }

    /// On another database. `settings` are environment variables that both get.
    pub(crate) async fn start_on(database: &str, settings: &[Setting]) -> Self {
        let fechatter = Self::launch(database, settings, [&[], &[]], &[]);
        fechatter.is_ready().await;
        fechatter
    }

    /// The same without waiting until they can serve. Of `own`, each server gets its part, and `fechatter_server` gets
    /// the arguments.
    pub(crate) fn launch(
        database: &str,
        settings: &[Setting],
        own: [&[Setting]; 2],
        arguments: &[&str],
    ) -> Self {
        let [rest, rest_operations, events, events_operations] = free_addresses();
        let mut environment = vec![
            ("DATABASE_URL", database.to_owned()),
            ("FECHATTER__SERVER__LISTEN", rest.to_string()),
            ("FECHATTER__SERVER__OPERATIONS_LISTEN", rest_operations.to_string()),
            ("FECHATTER__NOTIFY__LISTEN", events.to_string()),
            ("FECHATTER__NOTIFY__OPERATIONS_LISTEN", events_operations.to_string()),
            ("FECHATTER__ACCOUNTS__WORKSPACE_CREATION", "anyone".into()),
            ("FECHATTER__ACCOUNTS__JOIN_POLICY", "open".into()),
            ("FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE", "100000".into()),
            ("FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE_OVERALL", "100000".into()),
            ("FECHATTER__HTTP__REQUESTS_PER_SECOND", "100000".into()),
            ("FECHATTER__HTTP__BURST", "100000".into()),
            ("FECHATTER__LOG__FILTER", "warn".into()),
            ("FECHATTER__FILES__PATH", FILES.to_owned()),
        ];
        let keys = fechatter_server::keygen().unwrap();
        environment.extend(keys.lines().map(|line| {
            let (key, value) = line.split_once('=').unwrap();
            (key, value.to_owned())
        }));
        environment.extend(settings.iter().cloned());
        environment.push(("FECHATTER_CONFIG", EXAMPLE.to_owned()));
        let logs = [Log::new(), Log::new()];
        let programs = [fechatter_server(), env!("CARGO_BIN_EXE_notify_server").into()];
        let addresses = [[rest, rest_operations], [events, events_operations]];
        let servers = [(0, arguments), (1, &[])].map(|(number, arguments)| {
            let environment = environment.iter().chain(own[number]);
            let environment = environment.map(|(name, value)| ((*name).to_owned(), value.clone()));
            let (program, log) = (&programs[number], logs[number].0.clone());
            let process = Process::new(program, addresses[number], environment.collect(), log);
            let mut process = process.with_arguments(arguments);
            process.start().unwrap();
            process
        });
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            rest: format!("http://{rest}"),
            events: format!("http://{events}/events"),
            operations: [rest_operations, events_operations].map(|a| format!("http://{a}")),
            servers,
            logs,
            database: None,
        }
    }

    /// Waits until both servers can serve.
    pub(crate) async fn is_ready(&self) {
        for operations in &self.operations {
            let readyz = format!("{operations}/readyz");
            timeout(PATIENCE, self.ready(&readyz)).await.expect("the server is never ready");
        }
    }

    async fn ready(&self, readyz: &str) {
        while self.client.get(readyz).send().await.map(|r| r.status()).ok()
            != Some(StatusCode::NO_CONTENT)
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn signs_up(&self, name: &str, workspace: &str) -> Person<'_> {
        let host = workspace.to_lowercase().replace(' ', "-");
        let email = format!("{name}@{host}.test");
        let body = json!({ "fullname": name, "email": email, "password": "correct horse battery",
            "workspace": workspace });
        let signed_up = self.client.post(format!("{}/api/signup", self.rest)).json(&body).send();
        let signed_up = signed_up.await.unwrap();
        assert_eq!(signed_up.status(), StatusCode::CREATED);
        Person::of(self, email, &signed_up.json().await.unwrap())
    }

    /// Runs a command of the operator.
    pub(crate) fn administers(&self, arguments: &[&str]) {
        let output = Command::new(fechatter_server())
            .env_clear()
            .env("DATABASE_URL", self.database.as_ref().unwrap().url())
            .env("FECHATTER__FILES__PATH", FILES)
            .args(["--config", EXAMPLE, "admin"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// How a sign-in is answered.
    pub(crate) async fn tries_to_sign_in(&self, email: &str) -> StatusCode {
        let body = json!({ "email": email, "password": "correct horse battery" });
        let answer = self.client.post(format!("{}/api/signin", self.rest)).json(&body).send();
        answer.await.unwrap().status()
    }

    /// What a server has logged so far: 0 is `fechatter_server`, 1 `notify_server`.
    pub(crate) fn logged(&self, server: usize) -> String {
        fs::read_to_string(&self.logs[server].0).unwrap()
    }

    /// How a server says that it is: the status of its `/readyz` and what stands there.
    pub(crate) async fn readiness(&self, server: usize) -> (StatusCode, String) {
        let readyz = format!("{}/readyz", self.operations[server]);
        let answering = async {
            loop {
                if let Ok(answer) = self.client.get(&readyz).send().await {
                    return (answer.status(), answer.text().await.unwrap());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, answering).await.expect("the server does not answer")
    }

    /// What an operations port says of its server: 0 is `fechatter_server`'s, 1 `notify_server`'s.
    pub(crate) async fn metrics(&self, server: usize) -> String {
        let url = format!("{}/metrics", self.operations[server]);
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }
}

/// The file that a server logs to. It is shown where the test fails.
struct Log(PathBuf);

impl Log {
    fn new() -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", Uuid::now_v7())))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.0).unwrap_or_default());
        }
        let _ = fs::remove_file(&self.0);
    }
}

/// The other crate's binary, which a build of the whole workspace puts beside ours.
fn fechatter_server() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_notify_server")).with_file_name("fechatter_server");
    assert!(program.exists(), "run `cargo build --workspace` first: this test needs both servers");
    program
}

/// Addresses that nobody listens on.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| (Ipv4Addr::LOCALHOST, reserve_port().unwrap()).into())
}

pub(crate) struct Person<'a> {
    fechatter: &'a Fechatter,
    pub(crate) id: i64,
    pub(crate) session_id: String,
    email: String,
    token: String,
}

impl<'a> Person<'a> {
    fn of(fechatter: &'a Fechatter, email: String, signed_in: &Value) -> Self {
        let text = |field: &str| signed_in[field].as_str().unwrap().to_owned();
        Self {
            fechatter,
            id: signed_in["user"]["id"].as_i64().unwrap(),
            session_id: text("session_id"),
            email,
            token: text("access_token"),
        }
    }

    /// The same session, at other servers of the same database.
    pub(crate) fn at<'b>(&self, other: &'b Fechatter) -> Person<'b> {
        Person {
            fechatter: other,
            id: self.id,
            session_id: self.session_id.clone(),
            email: self.email.clone(),
            token: self.token.clone(),
        }
    }

    /// The same person, in another session.
    pub(crate) async fn signs_in(&self) -> Person<'a> {
        let body = json!({ "email": self.email, "password": "correct horse battery" });
        let signed_in = self.post("/api/signin", &body).await;
        Person::of(self.fechatter, self.email.clone(), &signed_in)
    }

    /// A request to sign up with the same account.
    pub(crate) fn signs_up_again(&self, workspace: &Value) -> Value {
        json!({ "fullname": "Somebody", "email": self.email, "password": "correct horse battery",
            "workspace": workspace })
    }

    /// The response to a call, which is as documented.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Checked {
        let url = format!("{}{path}", self.fechatter.rest);
        let request = self.fechatter.client.request(method.clone(), url).bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.json(body) };
        Checked::read(&method, request.send().await.unwrap()).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.succeeds(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.succeeds(Method::GET, path, &Value::Null).await
    }

    async fn succeeds(&self, method: Method, path: &str, body: &Value) -> Value {
        let response = self.call(method, path, body).await;
        assert!(response.status.is_success(), "{path}: {}", response.text);
        response.json()
    }

    /// A call that answers nothing, or nothing that counts.
    pub(crate) async fn does(&self, method: Method, path: &str, body: &Value) {
        self.succeeds(method, path, body).await;
    }

    /// Opens a stream, from a cursor or from now, unless `GET /events` is refused.
    pub(crate) async fn asks_for_events(&self, cursor: Option<&str>) -> Result<Stream, Checked> {
        let mut request = self.fechatter.client.get(&self.fechatter.events);
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        if response.status() == StatusCode::OK {
            Ok(Stream { response, bytes: Vec::new(), cursor: None })
        } else {
            Err(Checked::read(&Method::GET, response).await.unwrap())
        }
    }

    /// The status with which `GET /events` is refused.
    pub(crate) async fn is_refused_events(&self, cursor: Option<&str>) -> StatusCode {
        self.asks_for_events(cursor).await.err().unwrap().status
    }

    /// Follows the person's events, from a cursor or from now.
    pub(crate) async fn listens(&self, cursor: Option<&str>) -> Stream {
        let mut stream = self.asks_for_events(cursor).await.unwrap();
        assert_eq!(stream.next().await.unwrap()["event"], "Ready");
        stream
    }
}

/// An open stream; its frames are read one by one.
#[derive(Debug)]
pub(crate) struct Stream {
    response: Response,
    bytes: Vec<u8>,
    pub(crate) cursor: Option<String>,
}

impl Stream {
    /// The next event's data, or none at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let frame = String::from_utf8(self.bytes.drain(..end + 2).collect()).unwrap();
                let line = |field| frame.lines().find_map(|line| line.strip_prefix(field));
                self.cursor = line("id: ").map(ToOwned::to_owned).or(self.cursor.take());
                if let Some(data) = line("data: ") {
                    contract::check_event(data)
                        .unwrap_or_else(|difference| panic!("{difference}\n{data}"));
                    return Some(serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("no event came");
            self.bytes.extend(chunk.ok()??);
        }
    }

    pub(crate) async fn until(&mut self, event: &str) -> Value {
        loop {
            let next = self.next().await.expect("the stream ended");
            if next["event"] == event {
                return next;
            }
        }
    }
}
