//! How fast bytes reach many sockets, with one `write()` each and nothing to decide.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use rig::Person;
use tokio::sync::oneshot;

use crate::{clock::Clock, crowd::Crowd, figure::as_f64, processes::thread_cpu};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const READY: &str = "event: Ready\ndata: {\"cursor\":\"0-0\"}\n\n";

/// What it took to write to everybody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// Deliveries a second, until the last one was read.
    pub(crate) rate: f64,
    /// The writer's seconds on a processor for a million deliveries.
    pub(crate) cpu: f64,
}

/// Writes so many messages like the sample to a crowd of all these people, from one thread.
pub(crate) async fn writes(people: &[Person], sample: &str, messages: usize) -> Result<Floor> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (go, gone) = oneshot::channel();
    let (said, heard) = oneshot::channel();
    let (streams, frame) = (people.len(), chunk(sample));
    let write = move || -> Result<_> {
        let mut sockets = accept(&listener, streams)?;
        gone.blocking_recv()?;
        let before = thread_cpu()?;
        for _ in 0..messages {
            for socket in &mut sockets {
                socket.write_all(&frame)?;
            }
        }
        // The sockets go along, so that they stay open until everything has been read.
        Ok((thread_cpu()?.saturating_sub(before), sockets))
    };
    thread::spawn(|| said.send(write()));
    let crowd = Crowd::gather(Clock::new(), &Arc::from([address]), people).await?;
    let began = Instant::now();
    go.send(()).map_err(|()| anyhow!("nobody writes"))?;
    crowd.received(messages * streams).await?;
    let took = began.elapsed();
    let (spent, _sockets) = heard.await.context("nobody has written")??;
    let deliveries = as_f64(messages * streams);
    Ok(Floor { rate: deliveries / took.as_secs_f64(), cpu: spent.as_secs_f64() / deliveries * 1e6 })
}

/// Waits for everybody, and lets each stream begin.
fn accept(listener: &TcpListener, streams: usize) -> io::Result<Vec<TcpStream>> {
    let begin = |_| {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut asked = Vec::new();
        let mut bytes = [0; 2048];
        while !asked.ends_with(b"\r\n\r\n") {
            match socket.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => asked.extend_from_slice(&bytes[..read]),
            }
        }
        socket.write_all(&[HEAD.as_bytes(), &chunk(READY)].concat())?;
        Ok(socket)
    };
    (0..streams).map(begin).collect()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
