//! Requests that no client makes: half sent, and answers that nobody takes.

use std::{io, net::SocketAddr, time::Duration};

use fechatter_core::ChatId;
use rig::{Person, request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use super::FROM;

/// Of a client that does not read, in bytes.
pub(super) const SMALL_BUFFER: u32 = 4_096;
/// How often it looks for an answer, and for the end.
const LOOK: Duration = Duration::from_millis(20);
/// Longer than the servers keep such connections.
const HELD: Duration = Duration::from_secs(40);
/// Limits of reading a stream: bytes and time.
const SOME: usize = 4 << 20;
const A_WHILE: Duration = Duration::from_secs(3);
/// Of what a header begins with, in bytes: within what the servers take, and beyond.
const HEADERS: [usize; 2] = [8_000, 400_000];
/// Of a body, in bytes.
const WHOLE: usize = 1 << 20;

/// Sends this over a connection of its own, waits for the status and takes nothing of the answer.
pub(super) async fn ask(
    address: SocketAddr,
    receive_buffer: Option<u32>,
    request: &[u8],
) -> io::Result<(TcpStream, u16)> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let mut socket = socket.connect(address).await?;
    timeout(HELD, async {
        // A server may answer, and close, before it has everything.
        let _ = socket.write_all(request).await;
        let mut head = [0; 12];
        loop {
            match socket.peek(&mut head).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                12 => break,
                _ => sleep(LOOK).await,
            }
        }
        let status = str::from_utf8(&head[9..]).ok().and_then(|digits| digits.parse().ok());
        Ok((socket, status.ok_or(io::ErrorKind::InvalidData)?))
    })
    .await?
}

/// Keeps a connection without reading until the server has closed it.
pub(super) async fn until_closed(socket: TcpStream) {
    let began = tokio::time::Instant::now();
    // The end is behind what waits to be read, but the other direction breaks.
    while began.elapsed() < HELD && !socket.try_write(b"\r\n").is_err_and(is_closed) {
        sleep(LOOK * 50).await;
    }
}

#[expect(clippy::needless_pass_by_value, reason = "that is how a result hands it over")]
fn is_closed(error: io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock
}

/// Reads the beginning of a stream.
pub(super) async fn read_some(mut socket: TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    let mut taken = 0;
    let reading = async {
        while taken < SOME
            && let Ok(read @ 1..) = socket.read(&mut bytes).await
        {
            taken += read;
        }
    };
    // A stream that has nothing more to tell stays open.
    let _ = timeout(A_WHILE, reading).await;
}

/// A header without its end.
pub(super) fn half_header(number: usize) -> Vec<u8> {
    let length = HEADERS[(number / 2) % HEADERS.len()];
    let mut half = request("GET /api/chat", &[FROM], "").into_bytes();
    half.truncate(half.len() - 2);
    half.extend_from_slice(b"x-never: ");
    half.resize(length, b'x');
    half
}

/// A header and the half of its body: of a message, or before sign-in.
pub(super) fn half_body(number: usize, person: &Person, chat: ChatId) -> Vec<u8> {
    let length = WHOLE.to_string();
    let headers = [FROM, ("content-type", "application/json"), ("content-length", &*length)];
    let head = match number % 2 {
        0 => person.raw_request_with_headers(
            &format!("POST /api/chat/{chat}/messages"),
            &headers,
            "",
        ),
        _ => request("POST /api/signin", &headers, ""),
    };
    let mut half = head.into_bytes();
    half.resize(half.len() + WHOLE / 2, b' ');
    half
}
