//! T16: five times as much is said as can be written, people sign in by the hundred, headers never end, and uploads are
//! huge. What is let in is served in time, the rest is refused at once, and nothing else suffers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rig::KeepAlive;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    flood::Flood,
    load::Mix,
    report::Row,
    stage::{Cast, Options, Stage},
};

/// A commit takes 100 ms: five times as much as such a disk can do is what the machine that serves it can still ask for.
const SLOW_DISK: [&str; 2] = ["commit_delay=100000", "commit_siblings=0"];
const SECOND: Duration = Duration::from_secs(1);
/// More than the server has room for in its queue.
const CONNECTIONS: usize = 6_000;
/// How many times the capacity is asked for.
const TIMES_CAPACITY: f64 = 5.0;
/// How many senders show what the capacity is.
const ENOUGH: usize = 256;
/// How soon those who are let in have their answer, and the others theirs.
const ADMITTED: Duration = Duration::from_secs(2);
const REFUSED: Duration = Duration::from_secs(1);
/// How soon afterwards everything is as before.
const RECOVERED: Duration = Duration::from_secs(10);
/// What the servers' memory may still grow by, in KiB, once the flood has lasted for a while.
const FLAT: u64 = 32 * 1024;

const ACCOUNTS: usize = 8;
const SIGN_INS_A_SECOND: u32 = 200;
/// How long a server has for closing what does not come to an end: it waits for a third of this.
const CLOSED: Duration = Duration::from_secs(30);
/// What an upload says that it has, in bytes.
const HUGE: u64 = 1 << 30;
/// What may have been taken of an upload before it is refused, with what lies in the system's buffers.
const TAKEN: u64 = 64 << 20;
const UPLOADS: usize = 8;

pub(super) async fn flooded(options: &Options) -> Result<Row> {
    let options =
        &Options { settings: SLOW_DISK.map(ToOwned::to_owned).to_vec(), ..options.clone() };
    let cast = Cast { servers: 1, mix: Mix::Sends, ..options.cast() };
    let mut stage = options.stage(cast).await?;
    note_memory(&mut stage, "at first")?;
    let mut flood = Flood::connect(&stage.cluster, CONNECTIONS).await?;
    let capacity = flood.send(ENOUGH, options.either(SECOND * 3, SECOND * 10)).await?.rate();
    note_memory(&mut stage, "once everybody is connected")?;

    let duration = options.either(SECOND * 5, SECOND * 30);
    // Debug builds on a slow machine are busy with requests before the disk is: nobody need be refused then.
    let has_to_refuse = options.either(false, true);
    drown(&mut stage, &mut flood, capacity, (duration, has_to_refuse)).await?;
    sign_in(&mut stage, &mut flood, options.either(SECOND * 4, SECOND * 20)).await?;
    note_memory(&mut stage, "after the sign-ins")?;
    leave_headers_open(&mut stage, options.either(500, 2_000)).await?;
    note_memory(&mut stage, "after the open headers")?;
    upload(&mut stage).await?;
    note_memory(&mut stage, "after the uploads")?;

    flood.check(&stage.cluster).await?;
    stage.finish().await
}

/// Twice for so long, so that growing memory shows.
async fn drown(
    stage: &mut Stage,
    flood: &mut Flood,
    capacity: f64,
    (duration, has_to_refuse): (Duration, bool),
) -> Result<()> {
    let mut memory = Vec::new();
    for half in ["half of the flood", "all of it"] {
        let tally = flood.send_at(capacity * TIMES_CAPACITY, duration).await?;
        memory.push(note_memory(stage, half)?);
        let [admitted, refused] = [&tally.admitted, &tally.refused];
        ensure!(refused.count() > 0 || !has_to_refuse, "this was no overload");
        stage.delays.recovery("admitted p99", admitted.percentile(99), ADMITTED);
        if refused.count() > 0 {
            stage.delays.recovery("refused p99", refused.percentile(99), REFUSED);
        }
        stage.delays.note(format!(
            "a capacity of {capacity:.0} messages/s, {:.1} times as many sent, {:.1} times acknowledged; admitted: \
             {admitted}; refused: {refused}",
            tally.offered() / capacity,
            tally.rate() / capacity
        ));
        stage.times += 1;
    }
    stage.delays.recovery("sends", stage.load.next_acknowledged().await, RECOVERED);
    ensure!(memory[1] <= memory[0] + FLAT, "memory grows: {memory:?} KiB");
    Ok(())
}

/// Lets people sign in while others send.
async fn sign_in(stage: &mut Stage, flood: &mut Flood, duration: Duration) -> Result<()> {
    let requests = stage.cluster.rest.create_accounts_for_sign_in(ACCOUNTS).await?;
    let before = flood.send(ENOUGH, duration).await?.rate();
    let signing_in = tokio::spawn(sign_in_for(duration, address(stage), requests));
    let during = flood.send(ENOUGH, duration).await?.rate();
    let [admitted, refused] = signing_in.await??;
    stage.delays.note(format!(
        "{SIGN_INS_A_SECOND} sign-ins/s, {admitted} admitted and {refused} refused: {:.2} of the sends before",
        during / before
    ));
    stage.times += 1;
    Ok(())
}

/// How many were let in, and how many were refused.
async fn sign_in_for(
    duration: Duration,
    address: SocketAddr,
    requests: Vec<String>,
) -> Result<[usize; 2]> {
    let deadline = Instant::now() + duration;
    let mut ticks = interval(SECOND / SIGN_INS_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = JoinSet::new();
    for number in 0.. {
        ticks.tick().await;
        if Instant::now() >= deadline {
            break;
        }
        let request = requests[number % requests.len()].clone();
        open.spawn(async move {
            let mut connection = KeepAlive::connect(address).await?;
            anyhow::Ok(connection.call(&request).await?.status)
        });
    }
    let mut counts = [0; 2];
    while let Some(status) = open.join_next().await {
        match status?? {
            200 => counts[0] += 1,
            429 | 503 => counts[1] += 1,
            status => anyhow::bail!("a sign-in was answered with {status}"),
        }
    }
    Ok(counts)
}

/// Opens connections on which no request ever becomes whole; the servers must end them, and serve others meanwhile.
async fn leave_headers_open(stage: &mut Stage, count: usize) -> Result<()> {
    let mut open = JoinSet::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(address(stage)).await?;
        socket.write_all(b"GET /api/chat HTTP/1.1\r\nhost: x\r\nx-never-").await?;
        open.spawn(async move { timeout(CLOSED, socket.read_to_end(&mut Vec::new())).await });
    }
    stage.delays.recovery("sends", stage.load.next_acknowledged().await, RECOVERED);
    while let Some(closed) = open.join_next().await {
        // How it is closed is no matter.
        let _ = closed?.context("a connection without a whole request stays open")?;
    }
    stage.times += 1;
    Ok(())
}

/// Uploads more than any request may have; the servers must not take it, and serve others meanwhile.
async fn upload(stage: &mut Stage) -> Result<()> {
    let mut open = JoinSet::new();
    for _ in 0..UPLOADS {
        let socket = TcpStream::connect(address(stage)).await?;
        let (chat, members) = &stage.chats[0];
        let length = HUGE.to_string();
        let head = members[0].raw_request_with_headers(
            &format!("POST /api/chat/{chat}/messages"),
            &[("content-type", "application/json"), ("content-length", &*length)],
            "",
        );
        open.spawn(timeout(CLOSED, push(socket, head)));
    }
    stage.delays.recovery("sends", stage.load.next_acknowledged().await, RECOVERED);
    while let Some(taken) = open.join_next().await {
        let taken = taken?.context("an upload goes on and on")??;
        ensure!(taken < TAKEN, "{taken} bytes of an upload were taken");
    }
    stage.times += 1;
    Ok(())
}

/// Sends until the server will not have more of it; tells how much that was.
async fn push(mut socket: TcpStream, head: String) -> Result<u64> {
    socket.write_all(head.as_bytes()).await?;
    let (mut reader, mut writer) = socket.split();
    let part = vec![b' '; 64 * 1024];
    let mut taken = 0;
    let mut answer = Vec::new();
    let pushing = async {
        while taken < HUGE && writer.write_all(&part).await.is_ok() {
            taken += part.len() as u64;
        }
    };
    let ((), answered) = tokio::join!(pushing, reader.read_to_end(&mut answer));
    if answered.is_ok() {
        let status = answer.get(9..12).unwrap_or_default();
        ensure!(
            status == b"413",
            "an upload was answered with {}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(taken)
}

/// Of the one server.
fn address(stage: &Stage) -> SocketAddr {
    stage.cluster.servers[0].address()
}

/// The server's, in KiB.
fn note_memory(stage: &mut Stage, when: &str) -> Result<u64> {
    let memory = stage.cluster.servers[0].memory().context("the system tells nobody's memory")?;
    stage.delays.note(format!("memory {when}: {memory} KiB"));
    Ok(memory)
}
