//! The stream as bytes: what stands in its head, how it ends, and clients that speak HTTP strangely.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{PATIENCE, Person, Server, World};

/// Sends this and reads until there is so much in the answer.
async fn talk(server: &Server, request: &str, until: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&answer).contains(until) {
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "it ended early");
        }
    };
    timeout(PATIENCE, reading).await.expect("too little was said");
    (socket, String::from_utf8(answer).unwrap())
}

async fn rest(socket: &mut TcpStream) -> String {
    let mut rest = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut rest)).await.expect("it does not end").unwrap();
    rest
}

fn ask(person: &Person, version: &str, headers: &str) -> String {
    let token = &person.token;
    format!(
        "GET /events HTTP/{version}\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_is_that_of_every_answer_and_the_body_is_chunked_if_the_client_can_read_that() {
    let (_world, server, _, [_, bob, _]) = World::with_a_chat().await;
    let extra = "origin: http://localhost:5173\r\nx-request-id: mine\r\n";
    for version in ["1.1", "1.0"] {
        let request = ask(&bob, version, extra);
        let (_socket, answer) = talk(&server, &request, "\n\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        assert_eq!(status, format!("HTTP/{version} 200 OK"));
        for header in [
            "content-type: text/event-stream",
            "cache-control: no-store",
            "x-accel-buffering: no",
            "connection: close",
            "x-request-id: mine",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        ] {
            assert!(headers.lines().any(|line| line == header), "no {header} in {headers}");
        }
        for name in ["date", "x-server-time", "vary"] {
            let named = |line: &str| line.split(':').next() == Some(name);
            assert_eq!(headers.lines().filter(|line| named(line)).count(), 1, "{name}: {headers}");
        }
        assert!(!headers.contains("content-length"), "{headers}");
        let is_chunked = headers.lines().any(|line| line == "transfer-encoding: chunked");
        assert_eq!(is_chunked, version == "1.1", "{headers}");
        let frame = if is_chunked { body.split_once("\r\n").unwrap().1 } else { body };
        assert!(frame.starts_with("retry: ") && frame.contains("event: Ready\ndata: {"), "{body}");
        if is_chunked {
            let length = usize::from_str_radix(body.split_once("\r\n").unwrap().0, 16).unwrap();
            assert_eq!(frame.find("\n\n").unwrap() + 2, length, "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_one_host_and_one_token() {
    let (_world, server, _, [_, bob, _]) = World::with_a_chat().await;
    let good = ask(&bob, "1.1", "");
    for request in [
        good.replace("host: x\r\n", ""),
        good.replace("host: x\r\n", "host: x\r\nhost: x\r\n"),
        good.replace("host: x\r\n", "host: x y\r\n"),
        ask(&bob, "1.1", "authorization: Bearer x\r\n"),
    ] {
        let (_socket, answer) = talk(&server, &request, "}").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        assert!(answer.contains(r#""type":"invalid_input""#), "{answer}");
    }
    talk(&server, &ask(&bob, "1.0", "").replace("host: x\r\n", ""), "event: Ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_is_a_connection_of_its_address() {
    let mut world = World::new().await;
    world.config.limits.connections_per_address = 2;
    let server = world.serve();
    let alice = world.person("alice", world.workspace("Acme").await).await;
    let _streams = [server.stream(&alice).await, server.stream(&alice).await];

    let (_socket, refused) = talk(&server, "", "}").await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains(r#""type":"rate_limited""#), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_after_its_request_is_for_nobody() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let garbage = "GET /nowhere HTTP/1.1\r\n\r\n".repeat(1_000);
    let request = ask(&bob, "1.1", "") + &garbage;
    let (mut socket, _) = talk(&server, &request, "\n\n").await;
    socket.write_all(garbage.as_bytes()).await.unwrap();

    world.sends(&alice, chat, "hello").await;
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("hello") {
        let read = timeout(PATIENCE, socket.read_buf(&mut heard)).await;
        assert_ne!(read.expect("nothing came").unwrap(), 0);
    }
    world.revokes(&bob).await;
    let end = rest(&mut socket).await;
    assert!(end.contains(r#""reason":"session_revoked""#), "{end}");
    assert!(!end.contains("HTTP/1.1"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_at_once_leave_nothing_behind() {
    let (_world, server, _, [_, bob, _]) = World::with_a_chat().await;
    for pause in (0..40).map(|half| Duration::from_micros(500 * half)) {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(ask(&bob, "1.1", "").as_bytes()).await.unwrap();
        tokio::time::sleep(pause).await;
    }
    let admitted = async {
        let mut open = Vec::new();
        while open.len() < 10 {
            let answer = server.get("/events").bearer_auth(&bob.token).send().await.unwrap();
            match answer.status() {
                StatusCode::OK => open.push(answer),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, admitted).await.expect("a closed stream keeps its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_opens_no_stream_and_keeps_its_connection() {
    let (_world, server, _, [_, bob, _]) = World::with_a_chat().await;
    let head = ask(&bob, "1.1", "").replacen("GET", "HEAD", 1);
    let (mut socket, answer) = talk(&server, &head, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/event-stream\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");

    let next = "GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(next.as_bytes()).await.unwrap();
    assert!(rest(&mut socket).await.starts_with("HTTP/1.1 404 Not Found\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_first_frame_says_when_to_come_back() {
    let (_world, server, _, [_, bob, _]) = World::with_a_chat().await;
    for (headers, event) in [("", "Ready"), ("last-event-id: nonsense\r\n", "Reset")] {
        let (_socket, answer) = talk(&server, &ask(&bob, "1.0", headers), "\n\n").await;
        let frame = answer.split_once("\r\n\r\n").unwrap().1;
        let mut lines = frame.lines();
        let retry = lines.next().and_then(|line| line.strip_prefix("retry: "));
        assert!((1_000..3_000).contains(&retry.unwrap().parse::<u64>().unwrap()), "{frame}");
        assert!(lines.next().unwrap().starts_with("id: "), "{frame}");
        assert_eq!(lines.next(), Some(&*format!("event: {event}")), "{frame}");
    }
}
