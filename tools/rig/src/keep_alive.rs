//! A minimal HTTP/1.1 client with a persistent connection. It uses little CPU time, so that
//! hundreds of callers can send requests without a pause.

use std::{fmt::Write, io, net::SocketAddr};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection for consecutive requests. It cannot be used again after an error, or after the
/// future of a call was dropped before it finished.
#[derive(Debug)]
pub struct KeepAlive {
    socket: TcpStream,
    /// The bytes of the last response.
    bytes: Vec<u8>,
}

/// A response. Its body is not decoded.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Response<'a> {
    pub status: u16,
    head: &'a str,
    pub body: &'a [u8],
}

/// Builds the text of an HTTP/1.1 request. `line` consists of the method and the path, for example
/// `GET /api/chat`.
#[must_use]
pub fn request(line: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = format!("{line} HTTP/1.1\r\nhost: rig\r\n");
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        let _ = write!(request, "content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    let _ = write!(request, "\r\n{body}");
    request
}

impl KeepAlive {
    /// Opens a connection.
    ///
    /// # Errors
    /// When the connection cannot be opened.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, bytes: Vec::new() })
    }

    /// Sends a [`request`] and waits for the complete response.
    ///
    /// # Errors
    /// When the connection fails, or the response is not supported: it needs a content length, or a
    /// status without a body (204, 304).
    pub async fn call(&mut self, request: &str) -> io::Result<Response<'_>> {
        self.socket.write_all(request.as_bytes()).await?;
        self.bytes.clear();
        let head = loop {
            if let Some(end) = memmem::find(&self.bytes, b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let (status, length) = parse(text(&self.bytes[..head])?).ok_or_else(|| {
            io::Error::other("the response has no status, or has a body without a content length")
        })?;
        while self.bytes.len() < head + length {
            self.read_more().await?;
        }
        let (head, body) = self.bytes.split_at(head);
        Ok(Response { status, head: text(head)?, body })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.socket.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Response<'_> {
    /// Returns the value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(io::Error::other)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// Returns the status and the length of the body in bytes.
fn parse(head: &str) -> Option<(u16, usize)> {
    let status = head.get(9..12)?.parse().ok()?;
    let length = match header(head, "content-length") {
        Some(length) => length.parse().ok()?,
        None if matches!(status, 204 | 304) => 0,
        None => return None,
    };
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_response_after_the_other_is_read_to_its_end() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 200];
            for parts in [
                ["HTTP/1.1 201 Created\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r", "\nhel", "lo"],
                ["HTTP/1.1 304 ", "Not Modified\r\n", "etag: y\r\n\r\n"],
            ] {
                assert!(socket.read(&mut asked).await.unwrap() > 0);
                for part in parts {
                    socket.write_all(part.as_bytes()).await.unwrap();
                    socket.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = KeepAlive::connect(address).await.unwrap();
        let created = connection.call(&request("POST /x", &[], "{}")).await.unwrap();
        assert_eq!((created.status, created.body), (201, &b"hello"[..]));
        assert_eq!(created.header("etag"), Some("\"x\""));
        let same = connection.call(&request("GET /x", &[("a", "b")], "")).await.unwrap();
        assert_eq!((same.status, same.body), (304, &b""[..]));
        assert_eq!(same.header("content-length"), None);
        assert!(connection.call(&request("GET /x", &[], "")).await.is_err());
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        assert_eq!(
            request("POST /x", &[("authorization", "Bearer t")], "{}"),
            "POST /x HTTP/1.1\r\nhost: rig\r\nauthorization: Bearer t\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        );
    }
}
