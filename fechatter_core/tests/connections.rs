//! A port refuses connections and requests that are too many, too large or ambiguous.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, extract::DefaultBodyLimit};
use fechatter_core::http::{
    Ask, ConnectionLimits, Listeners, Operations, Shared, TakenConnection, Takeover, operations,
    serve, shared,
};
use fechatter_core::metrics::Metrics;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);
const ALICE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const LARGE: usize = 4 * 1024 * 1024;
const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A port that serves; it ends with the test.
struct Port {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<TakenConnection>>>,
    runtime: Runtime,
    shutdown: CancellationToken,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.taken.lock().unwrap().clear();
        self.shutdown.cancel();
    }
}

fn limits(total: usize, per_address: usize) -> ConnectionLimits {
    let idle = Duration::from_mins(1);
    ConnectionLimits { port: "test", total, per_address, exempt: Vec::new(), idle }
}

fn unlimited() -> ConnectionLimits {
    limits(1_000, 1_000)
}

impl Port {
    fn serve(limits: ConnectionLimits) -> Self {
        let taken = Arc::<Mutex<Vec<TakenConnection>>>::default();
        let sockets = Arc::clone(&taken);
        let take = move || {
            let sockets = Arc::clone(&sockets);
            let takeover = Takeover::new(move |socket| sockets.lock().unwrap().push(socket));
            async move { (Extension(takeover), StatusCode::OK).into_response() }
        };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/taken", get(take))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/length", post(async |body: Bytes| body.len().to_string()))
            .layer(DefaultBodyLimit::max(2 * LARGE));
        let layers = Shared {
            allowed_origins: vec!["http://x.test".into()],
            hsts: None,
            is_for_probes: false,
        };
        Self::of(shared(router, &layers), taken, limits)
    }

    fn of(
        router: Router,
        taken: Arc<Mutex<Vec<TakenConnection>>>,
        limits: ConnectionLimits,
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let shutdown = CancellationToken::new();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = runtime.block_on(async { Listeners::bind(any, any).unwrap().public });
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, router, limits, shutdown.clone()));
        Self { address, taken, runtime, shutdown }
    }

    fn connect(&self, from: Ipv4Addr) -> Connection {
        let connecting = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(self.address).await.unwrap().into_std().unwrap()
        };
        let socket = self.runtime.block_on(connecting);
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(socket)
    }

    /// A connection that is being served.
    #[track_caller]
    fn open(&self, from: Ipv4Addr) -> Connection {
        let mut connection = self.connect(from);
        let answer = connection.ask(REQUEST);
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        connection
    }

    /// As soon as there is a place for it.
    #[track_caller]
    fn open_again(&self, from: Ipv4Addr) -> Connection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut connection = self.connect(from);
            let _ = connection.0.write_all(REQUEST.as_bytes());
            // Of many who are refused some are closed without a word.
            let has_place = matches!(connection.0.peek(&mut [0]), Ok(1));
            if has_place && connection.answer().status == 200 {
                return connection;
            }
            assert!(Instant::now() < deadline, "no place becomes free");
        }
    }

    /// The answer to this request on a connection of its own.
    fn answer(&self, request: &str) -> Answer {
        self.connect(ALICE).ask(request)
    }
}

struct Connection(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Connection {
    #[track_caller]
    fn ask(&mut self, request: &str) -> Answer {
        // It may have been answered before it is sent.
        let _ = self.0.write_all(request.as_bytes());
        self.answer()
    }

    #[track_caller]
    fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> =
            headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, headers, body }
    }

    #[track_caller]
    fn expect_end(mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }
}

impl Answer {
    #[track_caller]
    fn refuses(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!((&body["code"], &body["type"]), (&status.into(), &kind.into()));
        assert_eq!(body["request_id"], self.headers["x-request-id"].as_str());
        assert!(body["error"].is_string());
    }

    #[track_caller]
    fn is_bare(&self, status: u16) {
        assert_eq!((self.status, self.body.len()), (status, 0), "{self:?}");
    }
}

#[test]
fn a_connection_beyond_its_addresss_share_is_told_so_and_closed() {
    let port = Port::serve(limits(100, 2));
    let (one, _two) = (port.open(ALICE), port.open(ALICE));

    let mut three = port.connect(ALICE);
    let answer = three.answer();
    answer.refuses(429, "rate_limited");
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() > 0);
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(answer.headers.contains_key("date"));
    three.expect_end();

    port.open(BOB);
    drop(one);
    port.open_again(ALICE);
}

#[test]
fn a_connection_beyond_the_limit_in_all_is_unavailable() {
    let port = Port::serve(limits(2, 100));
    let (_one, two) = (port.open(ALICE), port.open(BOB));

    let mut three = port.connect(BOB);
    let answer = three.answer();
    answer.refuses(503, "unavailable");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["connection"], "close");
    three.expect_end();

    drop(two);
    port.open_again(BOB);
}

#[test]
fn a_refusal_reaches_a_client_that_sends_a_large_request() {
    let port = Port::serve(limits(100, 1));
    let _one = port.open(ALICE);
    let body = "x".repeat(100_000);
    let request =
        format!("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{body}");

    for _ in 0..20 {
        let mut two = port.connect(ALICE);
        for part in request.as_bytes().chunks(10_000) {
            two.0.write_all(part).unwrap();
            std::thread::yield_now();
        }
        two.answer().refuses(429, "rate_limited");
        two.expect_end();
    }
}

#[test]
fn a_proxy_is_not_limited_as_an_address() {
    let exempt = vec![format!("{BOB}/32").parse().unwrap()];
    let port = Port::serve(ConnectionLimits { exempt, ..limits(4, 1) });
    let _proxy = [port.open(BOB), port.open(BOB), port.open(BOB)];
    let _alice = port.open(ALICE);

    port.connect(ALICE).answer().refuses(429, "rate_limited");
    port.connect(BOB).answer().refuses(503, "unavailable");
}

#[test]
fn a_connection_that_was_taken_over_counts_until_it_is_dropped() {
    let port = Port::serve(limits(100, 1));
    let mut stream = port.connect(ALICE);
    stream.0.write_all(b"GET /taken HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while port.taken.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it is not taken over");
        std::thread::sleep(Duration::from_millis(1));
    }

    port.connect(ALICE).answer().refuses(429, "rate_limited");
    port.taken.lock().unwrap().clear();
    port.open_again(ALICE);
}

#[test]
fn clients_that_ignore_their_refusal_cost_nobody_a_place() {
    let port = Port::serve(limits(100, 1));
    let one = port.open(ALICE);
    let _ignorant: Vec<_> = (0..300).map(|_| port.connect(ALICE)).collect();

    port.open(BOB);
    drop(one);
    port.open_again(ALICE);
}

#[test]
fn open_and_refused_connections_are_counted() {
    let metrics = Metrics::start().unwrap();
    let port = Port::serve(ConnectionLimits { port: "counted", ..limits(2, 1) });
    let counted = || {
        let text = metrics.render();
        let lines = text.lines().filter(|line| line.contains(r#"port="counted""#));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (_one, _two) = (port.open(ALICE), port.open(BOB));
    assert!(
        counted().iter().any(|line| line.contains(r#"reason="address"} 0"#)),
        "the counter is there before it counts: {:?}",
        counted()
    );

    port.connect(ALICE).answer().refuses(429, "rate_limited");
    port.connect(BOB).answer().refuses(429, "rate_limited");
    port.connect(Ipv4Addr::new(127, 0, 0, 3)).answer().refuses(503, "unavailable");

    for line in [
        r#"fechatter_connections_open{port="counted"} 2"#,
        r#"fechatter_connections_refused_total{port="counted",reason="address"} 2"#,
        r#"fechatter_connections_refused_total{port="counted",reason="all"} 1"#,
    ] {
        assert!(counted().iter().any(|counted| counted == line), "no {line} in {:?}", counted());
    }
}

#[test]
fn a_head_within_its_limits_is_read_and_a_larger_one_told_what_is_too_large() {
    let port = Port::serve(unlimited());
    let get = |path: usize, header: usize| {
        let (path, header) = ("p".repeat(path), "h".repeat(header));
        port.answer(&format!("GET /?{path} HTTP/1.1\r\nhost: x\r\nx-long: {header}\r\n\r\n"))
    };

    assert_eq!(get(8 * 1024 - 2, 16 * 1024 - 30).status, 200);
    get(8 * 1024 - 1, 10).refuses(414, "uri_too_long");
    get(8 * 1024 - 2, 16 * 1024).refuses(431, "headers_too_large");
    get(15 * 1024, 16 * 1024).refuses(414, "uri_too_long");
    get(10, 31 * 1024).refuses(431, "headers_too_large");
    for (path, header) in [(10, 80_000), (80_000, 10), (10, 400_000), (50_000, 50_000)] {
        get(path, header).is_bare(431);
    }
}

#[test]
fn a_head_that_does_not_end_is_answered_before_it_takes_much_memory() {
    let port = Port::serve(unlimited());
    let mut connection = port.connect(ALICE);
    connection.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ").unwrap();
    connection.0.write_all(&vec![b'x'; 80_000]).unwrap();
    assert_eq!(connection.0.peek(&mut [0]).unwrap(), 1);
    // Bytes that still arrive do not break the connection before the answer is read.
    for _ in 0..10 {
        connection.0.write_all(&[b'x'; 10_000]).unwrap();
        std::thread::yield_now();
    }

    connection.answer().is_bare(431);
    connection.expect_end();
}

#[test]
fn large_bodies_and_answers_pass() {
    let port = Port::serve(unlimited());
    let mut connection = port.connect(ALICE);

    for _ in 0..3 {
        let body = "x".repeat(LARGE);
        let head = format!("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n");
        let answer = connection.ask(&(head + &body));
        assert_eq!(answer.body, LARGE.to_string().into_bytes());
        let answer = connection.ask("GET /large HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!((answer.status, answer.body.len()), (200, LARGE));
    }
}

#[test]
fn a_request_has_one_valid_host() {
    let port = Port::serve(unlimited());
    check_hosts(&port, "/");
}

#[test]
fn a_request_to_the_operations_port_has_one_valid_host_too() {
    let ready: Ask<Result<(), &'static str>> = Arc::new(|| Box::pin(async { Ok(()) }));
    let measure: Ask<()> = Arc::new(|| Box::pin(async {}));
    let told = Operations { ready, measure, metrics: Metrics::start().unwrap() };
    let port = Port::of(operations(told), Arc::default(), unlimited());
    check_hosts(&port, "/healthz");
}

#[track_caller]
fn check_hosts(port: &Port, path: &str) {
    let ask = |line: &str, headers: &str| port.answer(&format!("{line}\r\n{headers}\r\n"));
    let get = format!("GET {path} HTTP/1.1");

    for headers in [
        "host: chat.example:6688\r\n",
        "Host: [::1]:6688\r\n",
        "host: x\r\nauthorization: Bearer x\r\n",
    ] {
        let status = ask(&get, headers).status;
        assert!(status == 200 || status == 204, "{headers}: {status}");
    }
    for headers in [
        "",
        "host: x\r\nhost: x\r\n",
        "host: x\r\nHOST: y\r\n",
        "host:\r\n",
        "host: a b\r\n",
        "host: user@x\r\n",
        "host: x/y\r\n",
        "host: x:port\r\n",
        "host: \u{fc}\r\n",
        "host: x\r\nauthorization: Bearer x\r\nauthorization: Bearer x\r\n",
        "host: x\r\nauthorization: Bearer x\r\nAuthorization: Basic y\r\n",
        "host: x\r\ncontent-type: text/plain\r\ncontent-type: application/json\r\n",
        "host: x\r\norigin: http://x.test\r\norigin: http://evil.test\r\n",
    ] {
        ask(&get, headers).refuses(400, "invalid_input");
        ask(&format!("POST {path} HTTP/1.1"), headers).refuses(400, "invalid_input");
        ask(&format!("OPTIONS {path} HTTP/1.1"), headers).refuses(400, "invalid_input");
        ask("GET /nowhere HTTP/1.1", headers).refuses(400, "invalid_input");
        ask(&format!("GET http://x{path} HTTP/1.1"), headers).refuses(400, "invalid_input");
    }
    let old = format!("GET {path} HTTP/1.0");
    assert!(ask(&old, "").status < 300);
    ask(&old, "host: x\r\nhost: x\r\n").refuses(400, "invalid_input");
}
