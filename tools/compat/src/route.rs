//! Requests to a proxy over TLS, each over a connection of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, Version,
    body::Incoming,
    client::conn::{http1, http2},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::certificate::Certificate;

/// The name of the server in every configuration.
pub(crate) const HOST_NAME: &str = "chat.example";

/// The way to a proxy with one version of HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) address: SocketAddr,
    pub(crate) version: Version,
    /// The client's own address.
    pub(crate) from: IpAddr,
    pub(crate) certificate: Certificate,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) header: Option<(&'a str, &'a str)>,
    /// JSON, or nothing.
    pub(crate) body: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str, token: Option<&'a str>) -> Self {
        Self { method: Method::GET, path, token, header: None, body: String::new() }
    }

    pub(crate) fn post(path: &'a str, token: Option<&'a str>, body: String) -> Self {
        Self { method: Method::POST, path, token, header: None, body }
    }
}

impl Route {
    pub(crate) fn new(address: SocketAddr, version: Version, certificate: &Certificate) -> Self {
        let from = Ipv4Addr::LOCALHOST.into();
        Self { address, version, from, certificate: certificate.clone() }
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Answer> {
        let response = self.open(call).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.context("reading the answer")?;
        Ok(Answer { status, body: body.to_bytes() })
    }

    /// Asks, and leaves the answer's body to be read.
    pub(crate) async fn open(&self, call: Call<'_>) -> Result<Response<Incoming>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let socket = socket.connect(self.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let stream = self.certificate.connect(socket, self.protocol()).await?;
        let protocol = stream.get_ref().1.alpn_protocol();
        ensure!(
            protocol == Some(self.protocol()) || self.version == Version::HTTP_11,
            "the proxy does not speak HTTP/2"
        );
        self.send(stream, self.request(call)?).await
    }

    async fn send(
        &self,
        stream: TlsStream<TcpStream>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        let stream = TokioIo::new(stream);
        if self.version == Version::HTTP_2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await.context("asking")
        } else {
            let (mut sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await.context("asking")
        }
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>> {
        let authority = format!("{HOST_NAME}:{}", self.address.port());
        let mut request = Request::builder().method(call.method);
        request = if self.version == Version::HTTP_2 {
            request.uri(format!("https://{authority}{}", call.path))
        } else {
            request.uri(call.path).header(HOST, authority)
        };
        if let Some(token) = call.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((name, value)) = call.header {
            request = request.header(name, value);
        }
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::from(call.body))?)
    }

    fn protocol(&self) -> &'static [u8] {
        if self.version == Version::HTTP_2 { b"h2" } else { b"http/1.1" }
    }
}
