//! A TCP proxy in front of `notify_server` that notes each request and each answer, and can cut connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
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

/// The bytes that are read at once.
const PIECE: usize = 16 * 1024;

/// Pages of any origin may see it, as if it came from their own.
const BAD_GATEWAY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\naccess-control-allow-origin: *\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

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
    notes: Arc<Notes>,
    cuts: watch::Sender<u64>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Notes {
    asked: Mutex<Vec<Asked>>,
    /// The next piece of an answer is to be cut in half.
    halve: AtomicBool,
    /// Requests get 502, as from a proxy whose server is down.
    down: AtomicBool,
}

impl Tap {
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let notes = Arc::default();
        let cuts = watch::Sender::new(0);
        let task = tokio::spawn(accept(listener, target, Arc::clone(&notes), cuts.clone()));
        Ok(Self { address, notes, cuts, task })
    }

    /// Closes every open connection on both sides.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Passes on half of what the server sends next, and then closes the connection.
    pub(crate) fn cut_in_half(&self) {
        self.notes.halve.store(true, Relaxed);
    }

    /// Answers each new request with 502, or no longer.
    pub(crate) fn down(&self, on: bool) {
        self.notes.down.store(on, Relaxed);
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.notes.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    notes: Arc<Notes>,
    cuts: watch::Sender<u64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (notes, mut cuts) = (Arc::clone(&notes), cuts.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                _ = relay(client, target, &notes) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, notes: &Notes) -> io::Result<()> {
    // The first request is noted even if there is no server.
    let mut first = vec![0; PIECE];
    let length = client.read(&mut first).await?;
    let last = Mutex::new(None);
    notes.request(&first[..length], &last);
    if notes.down.load(Relaxed) {
        notes.answer(BAD_GATEWAY, &last);
        return client.write_all(BAD_GATEWAY).await;
    }
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    server.write_all(&first[..length]).await?;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    // Either side's end is the connection's.
    tokio::select! {
        ended = forward(from_client, to_server, |bytes| {
            notes.request(bytes, &last);
            None
        }) => ended,
        ended = forward(from_server, to_client, |bytes| {
            notes.answer(bytes, &last);
            notes.halve.swap(false, Relaxed).then_some(bytes.len() / 2)
        }) => ended,
    }
}

/// Passes on what comes, until it ends or `look` says that only so many bytes more are to be passed on.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    look: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<()> {
    let mut bytes = vec![0; PIECE];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if let Some(last) = look(&bytes[..length]) {
            to.write_all(&bytes[..last]).await?;
            return to.shutdown().await;
        }
        to.write_all(&bytes[..length]).await?;
    }
}

impl Notes {
    /// Notes a request, and its place as the connection's last one.
    fn request(&self, bytes: &[u8], last: &Mutex<Option<usize>>) {
        if bytes.starts_with(b"GET ") {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(Asked { at: Instant::now(), status: None });
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked.len() - 1);
        }
    }

    /// Notes the status of the answer to the connection's last request.
    fn answer(&self, bytes: &[u8], last: &Mutex<Option<usize>>) {
        let last = *last.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(last), Some(status)) = (last, status(bytes)) {
            self.asked.lock().unwrap_or_else(PoisonError::into_inner)[last].status = Some(status);
        }
    }
}

/// The status, if these bytes begin an answer.
fn status(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    str::from_utf8(digits).ok()?.parse().ok()
}
