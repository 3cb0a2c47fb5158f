//! An event stream (`GET /events`) over a plain TCP socket. It uses few resources, so that one
//! process can have thousands of streams.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::frames::{self, Frame};

/// The maximum size of one read, in bytes.
const READ_SIZE: usize = 16 * 1024;
/// The maximum time until the response head has arrived.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The parameters of a stream.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub token: &'a str,
    /// The cursor to resume from. With `None`, the stream begins at the newest event.
    pub cursor: Option<&'a str>,
    /// The size of the socket's receive buffer in bytes. `None` is the default of the operating
    /// system.
    pub receive_buffer: Option<u32>,
}

/// Why a stream could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The server returned this status.
    Refused(u16),
    /// The connection failed, or there was no valid response in time.
    Failed(io::Error),
}

/// An open stream.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    /// The bytes after the response head that are not parsed yet. The body ends with the
    /// connection.
    body: Vec<u8>,
}

impl Connection {
    /// Opens a stream, without reading a frame.
    ///
    /// # Errors
    /// When the server refuses the stream, or does not respond in time.
    pub async fn open(target: Target<'_>) -> Result<Self, OpenError> {
        match timeout(RESPONSE_TIMEOUT, Self::request(target)).await {
            Ok(response) => response,
            Err(_) => Err(OpenError::Failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn request(target: Target<'_>) -> Result<Self, OpenError> {
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

    /// Calls `on_frame` for every complete frame that has been received. If there is none, waits
    /// for more data. Returns `false` at the end of the stream. If this future is dropped, no data
    /// is lost.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn read(&mut self, on_frame: &mut impl FnMut(Frame<'_>)) -> io::Result<bool> {
        let parsed = frames::split(&self.body, on_frame);
        self.body.drain(..parsed);
        if parsed > 0 {
            return Ok(true);
        }
        self.socket.readable().await?;
        let mut bytes = [0; READ_SIZE];
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
