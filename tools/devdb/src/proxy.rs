//! A TCP proxy between two programs on this machine that simulates network faults.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// The maximum size of one read, in bytes.
const CHUNK_SIZE: usize = 16 * 1024;
/// The maximum number of chunks that a direction of a connection buffers: 1 MiB.
const BUFFERED_CHUNKS: usize = 64;

/// The wait after a failed `accept` (for example because of too many open files).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// A TCP proxy on 127.0.0.1 that can simulate network faults. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    target: SocketAddr,
    black_hole: bool,
    delay: Duration,
    /// The number of calls to [`Proxy::cut`]. A connection is closed when this number changes.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port, and forwards each connection to `target`.
    ///
    /// # Errors
    ///
    /// When the proxy cannot listen on a port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.into_std()?;
        let address = listener.local_addr()?;
        let rules = Rules { target, black_hole: false, delay: Duration::ZERO, cuts: 0 };
        let rules = watch::Sender::new(rules);
        let receiver = rules.subscribe();
        // The proxy has its own thread, so that it works while the caller's threads are blocked.
        // All of its tasks run on this thread, which keeps the number of context switches low.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || runtime.block_on(accept(listener, receiver)));
        Ok(Self { address, rules })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards new connections to another server. Open connections are not changed;
    /// [`cut`](Self::cut) closes them.
    pub fn retarget(&self, target: SocketAddr) {
        self.rules.send_modify(|rules| rules.target = target);
    }

    /// Closes every open connection on both sides. Data that was not yet forwarded is lost.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// While on, forwards no data in either direction and closes no connection. Neither side is
    /// notified, and new connections are accepted. When turned off, the proxy forwards the data
    /// that was sent in the meantime, as TCP retransmits lost packets. After a [`cut`](Self::cut)
    /// this data is lost.
    pub fn black_hole(&self, on: bool) {
        self.rules.send_modify(|rules| rules.black_hole = on);
    }

    /// Delays all data in each direction by this time (latency). Does not limit the throughput
    /// further.
    pub fn delay(&self, delay: Duration) {
        self.rules.send_modify(|rules| rules.delay = delay);
    }
}

async fn accept(listener: std::net::TcpListener, rules: watch::Receiver<Rules>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut dropped = rules.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = dropped.wait_for(|_| false) => return Ok(()),
        };
        match accepted {
            Ok((client, _)) => {
                tokio::spawn(serve(client, rules.clone()));
            }
            Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
}

/// Serves a connection until one side closes it, it is cut, or the proxy is dropped.
async fn serve(client: TcpStream, mut rules: watch::Receiver<Rules>) {
    let cuts = rules.borrow_and_update().cuts;
    let relay = relay(client, rules.clone());
    tokio::select! {
        // If one side fails, both sides are closed; the error has no other use.
        _ = relay => {}
        _ = rules.wait_for(|rules| rules.cuts != cuts) => {}
    }
}

async fn relay(client: TcpStream, mut rules: watch::Receiver<Rules>) -> io::Result<()> {
    let target = wait_for_passage(&mut rules).await?.target;
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        forward(from_client, to_server, rules.clone()),
        forward(from_server, to_client, rules),
    )?;
    Ok(())
}

/// Forwards one direction of a connection. Reads and writes run concurrently, so that the delay of
/// a chunk does not add to the delay of the next chunk.
async fn forward(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(BUFFERED_CHUNKS);
    tokio::try_join!(read_chunks(from, sender, rules.clone()), write_chunks(receiver, to, rules))?;
    Ok(())
}

async fn read_chunks(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_SIZE);
        let length = from.read_buf(&mut chunk).await;
        // During a black hole, the end of this side is not forwarded to the other side either.
        wait_for_passage(&mut rules).await?;
        let length = length?;
        if length == 0 || chunks.send((Instant::now(), chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_chunks(
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    while let Some((arrival, chunk)) = chunks.recv().await {
        let delay = rules.borrow().delay;
        // Even a sleep until a past time takes a millisecond.
        if !delay.is_zero() {
            sleep_until(arrival + delay).await;
        }
        wait_for_passage(&mut rules).await?;
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

/// Waits until there is no black hole, and returns the rules.
async fn wait_for_passage(rules: &mut watch::Receiver<Rules>) -> io::Result<Rules> {
    let open = rules.wait_for(|rules| !rules.black_hole).await;
    open.map(|rules| *rules).map_err(io::Error::other)
}
