//! One `GET /events` over a plain socket: cheap enough for thousands in a process.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::frames::{self, Frame};

/// How much is read at once.
const AT_ONCE: usize = 16 * 1024;
/// Longer than this no server that lives takes to answer.
const ANSWERING: Duration = Duration::from_secs(10);

/// The stream to open.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub token: &'a str,
    /// Where to resume; none is from now on.
    pub cursor: Option<&'a str>,
    /// The socket's, in bytes; none is what the system gives.
    pub receive_buffer: Option<u32>,
}

/// Why there is no stream.
#[derive(Debug)]
pub enum OpenError {
    /// The server answered with this status.
    Refused(u16),
    /// It did not answer.
    Failed(io::Error),
}

/// An open stream.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    // It has no other end than the connection's.
    body: Vec<u8>,
}

impl Connection {
    /// Opens a stream; its first frame is still to be read.
    ///
    /// # Errors
    /// When the server refuses, or does not answer in time.
    pub async fn open(target: Target<'_>) -> Result<Self, OpenError> {
        match timeout(ANSWERING, Self::ask(target)).await {
            Ok(answered) => answered,
            Err(_) => Err(OpenError::Failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn ask(target: Target<'_>) -> Result<Self, OpenError> {
        let Target { address, token, cursor, receive_buffer } = target;
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut socket = socket.connect(address).await?;
        let resume =
            cursor.map(|cursor| format!("last-event-id: {cursor}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{resume}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;

        let mut head = Vec::new();
        let end = loop {
            if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut head).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        let status = head.get(9..12).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        match status {
            Some(200) => {}
            Some(status) => return Err(OpenError::Refused(status)),
            None => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
        head.drain(..end);
        Ok(Self { socket, body: head })
    }

    /// Waits for more and hands on every frame that is whole by then; `false` at the stream's end. Losing this future
    /// loses nothing.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read(&mut self, hear: &mut impl FnMut(Frame<'_>)) -> io::Result<bool> {
        let taken = frames::split(&self.body, hear);
        self.body.drain(..taken);
        if taken > 0 {
            return Ok(true);
        }
        self.socket.readable().await?;
        let mut bytes = [0; AT_ONCE];
        match self.socket.try_read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.body.extend_from_slice(&bytes[..read]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}
