//! A TCP proxy that breaks on demand: what a network does to a connection, between two programs on this machine.

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

/// How much is read at once, and how many such pieces may be on their way: together 1 MiB a direction.
const PIECE: usize = 16 * 1024;
const ON_THEIR_WAY: usize = 64;

/// Between two tries to accept after a failure, such as too many open files.
const RETRY: Duration = Duration::from_millis(20);

/// Stands between clients and a server on 127.0.0.1, and can fail in the ways of a network. Dropping it cuts all
/// connections.
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
    /// How often everything was cut: a connection ends when this is no longer what it began with.
    cuts: u64,
}

impl Proxy {
    /// Listens on a free port, and connects whoever comes to `target`.
    ///
    /// # Errors
    ///
    /// When no port can be listened on.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.into_std()?;
        let address = listener.local_addr()?;
        let rules = Rules { target, black_hole: false, delay: Duration::ZERO, cuts: 0 };
        let rules = watch::Sender::new(rules);
        let obeyed = rules.subscribe();
        // A thread of its own: it goes on while the caller's are blocked, and costs few switches.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || runtime.block_on(accept(listener, obeyed)));
        Ok(Self { address, rules })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to another server from now on. Connections that are open stay where they are, unless they are
    /// [cut](Self::cut) next.
    pub fn retarget(&self, target: SocketAddr) {
        self.rules.send_modify(|rules| rules.target = target);
    }

    /// Closes every open connection on both sides, with whatever was on its way.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Lets nothing through in either direction, and closes nothing: neither side hears that the other is out of reach,
    /// and new connections are accepted as if all was well. What was sent meanwhile arrives once this is over, as TCP
    /// repeats what was lost; with a [cut](Self::cut) it never does.
    pub fn black_hole(&self, on: bool) {
        self.rules.send_modify(|rules| rules.black_hole = on);
    }

    /// Holds everything up for so long in each direction, without making it slower than that.
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
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// One connection, until a side closes it, it is cut, or the proxy is dropped.
async fn serve(client: TcpStream, mut rules: watch::Receiver<Rules>) {
    let cuts = rules.borrow_and_update().cuts;
    let relay = relay(client, rules.clone());
    tokio::select! {
        // A side that failed is all the news there is, and the other one hears it by being closed.
        _ = relay => {}
        _ = rules.wait_for(|rules| rules.cuts != cuts) => {}
    }
}

async fn relay(client: TcpStream, mut rules: watch::Receiver<Rules>) -> io::Result<()> {
    let target = passable(&mut rules).await?.target;
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

/// Reading and writing go on side by side, so that a delay holds up each piece and not the next one as well.
async fn forward(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let (pieces, arrived) = mpsc::channel(ON_THEIR_WAY);
    tokio::try_join!(take(from, pieces, rules.clone()), give(arrived, to, rules))?;
    Ok(())
}

async fn take(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let length = from.read_buf(&mut piece).await;
        // Nobody hears through a black hole that the other side has ended.
        passable(&mut rules).await?;
        let length = length?;
        if length == 0 || pieces.send((Instant::now(), piece)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    mut arrived: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    while let Some((arrival, piece)) = arrived.recv().await {
        let delay = rules.borrow().delay;
        // A timer takes a millisecond even if there is nothing to wait for.
        if !delay.is_zero() {
            sleep_until(arrival + delay).await;
        }
        passable(&mut rules).await?;
        to.write_all(&piece).await?;
    }
    to.shutdown().await
}

/// Waits out a black hole.
async fn passable(rules: &mut watch::Receiver<Rules>) -> io::Result<Rules> {
    let open = rules.wait_for(|rules| !rules.black_hole).await;
    open.map(|rules| *rules).map_err(io::Error::other)
}
