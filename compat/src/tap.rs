//! A TCP proxy in front of `notify_server` that notes each request and each answer, and can cut all connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// One `GET`, and the status of its answer once that has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) status: Option<u16>,
}

/// A running tap. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    cuts: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let asked = Arc::default();
        let cuts = watch::Sender::new(0);
        let task = tokio::spawn(accept(listener, target, Arc::clone(&asked), cuts.clone()));
        Ok(Self { address, asked, cuts, task })
    }

    /// Closes every open connection on both sides.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    cuts: watch::Sender<u64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (asked, mut cuts) = (Arc::clone(&asked), cuts.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                _ = relay(client, target, &asked) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn relay(client: TcpStream, target: SocketAddr, asked: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let last = Mutex::new(None);
    let note_request = |bytes: &[u8]| {
        if bytes.starts_with(b"GET ") {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(Asked { at: Instant::now(), status: None });
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked.len() - 1);
        }
    };
    let note_answer = |bytes: &[u8]| {
        let last = *last.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(last), Some(status)) = (last, status(bytes)) {
            asked.lock().unwrap_or_else(PoisonError::into_inner)[last].status = Some(status);
        }
    };
    let (from_client, to_client) = client.into_split();
    // The first request is noted even if nobody answers.
    let mut from_client = from_client;
    let mut first = vec![0; 16 * 1024];
    let length = from_client.read(&mut first).await?;
    note_request(&first[..length]);
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    server.write_all(&first[..length]).await?;
    let (from_server, to_server) = server.into_split();
    // Either side's end is the connection's.
    tokio::select! {
        ended = forward(from_client, to_server, note_request) => ended,
        ended = forward(from_server, to_client, note_answer) => ended,
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    note: impl Fn(&[u8]),
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        note(&bytes[..length]);
        to.write_all(&bytes[..length]).await?;
    }
}

/// The status, if these bytes begin an answer.
fn status(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    str::from_utf8(digits).ok()?.parse().ok()
}
