//! Uploads beside copying and hashing the same bytes, downloads beside nginx, and sends beside a large upload.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{self, SHA256};
use devdb::{ChildGuard, ShutdownMethod, reserve_port};
use rig::{Cluster, Person};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::seats;
use crate::{
    figure::{Figure, as_f64},
    load::{Run, Senders},
    processes::resident,
    report::{
        Report,
        Target::{Least, Most},
        Targets,
    },
    stage::Stage,
    timed::Timed,
};

const TARGETS: Targets = &[
    ("upload_ratio", Least(0.5)),
    ("upload_memory", Most(2.0)),
    ("download_ratio", Least(0.7)),
    ("download_first_byte_p99", Most(10.0)),
    ("sends_ratio", Least(0.8)),
];

const MIB: usize = 1024 * 1024;
/// The file that is uploaded, in MiB.
const UPLOAD: usize = 100;
const UPLOADS: usize = 5;
/// The number of uploads at the same time of which the memory is measured.
const AT_ONCE: usize = 4;
/// The clients that download.
const READERS: usize = 64;
const READING: Duration = Duration::from_secs(5);
const RUNS: usize = 3;
/// The pause between two downloads of a client where the time to the first byte is measured: together,
/// the clients then take about 200 MiB a second.
const PAUSE: Duration = Duration::from_millis(320);
/// The file that is uploaded while people send, in MiB.
const HUGE: usize = 1_024;
const SENDERS: usize = 16;
const SENDING: Duration = Duration::from_secs(6);

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let store = stage.logs.join("files");
    let cluster = stage
        .start(&[
            ("FECHATTER__FILES__PATH", &store.display().to_string()),
            ("FECHATTER__FILES__MAX_MEBIBYTES", "2048"),
            ("FECHATTER__FILES__MAX_UPLOAD_MEBIBYTES", "2048"),
            ("FECHATTER__FILES__WORKSPACE_MEBIBYTES", "1000000"),
            ("FECHATTER__FILES__PERSON_MEBIBYTES", "1000000"),
        ])
        .await?;
    let person = cluster.town.workspace("files", 1).await?.people[0].clone();
    let conditions = format!(
        "{UPLOAD} MiB {UPLOADS} times in turn with copying, hashing and syncing a file of that size; {READERS} clients \
         reading 1 MiB again and again, in turn from nginx, and 200 times a second together; {SENDERS} senders with and \
         without an upload of {HUGE} MiB; all on one disk, the clients on the same processors"
    );
    let mut rows = report.under("files", TARGETS, &conditions);

    let (mut uploads, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..stage.repetitions(UPLOADS, READING).0 {
        copies.push(
            spawn_blocking({
                let store = store.clone();
                move || copy(&store)
            })
            .await??,
        );
        uploads.push(upload(&person, UPLOAD).await?.as_secs_f64());
    }
    let ratios: Vec<_> = copies.iter().zip(&uploads).map(|(copy, upload)| copy / upload).collect();
    let rate = |times: &[f64]| Figure::over(times, |time| as_f64(UPLOAD) / time);
    rows.add("upload", rate(&uploads), "MiB/s");
    rows.add("copy", rate(&copies), "MiB/s");
    rows.add("upload_ratio", Figure::over(&ratios, |ratio| *ratio), "of copying");
    rows.add("upload_memory", memory_of_uploads(&cluster, &person).await?, "MiB each");

    let path = upload_path(&person, 1).await?;
    let ours = Target {
        address: cluster.servers[0].address(),
        request: person.raw_request(&format!("GET {path}"), ""),
    };
    let nginx = Nginx::start(&stage.logs.join("nginx"), &store, &path)?;
    let (runs, each) = stage.repetitions(RUNS, READING);
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        own.push(download(&ours, each, Duration::ZERO).await?);
        if let Some(nginx) = &nginx {
            others.push(download(&nginx.target, each, Duration::ZERO).await?);
        }
    }
    rows.add("download", Figure::over(&own, |run| run.rate), "MiB/s");
    rows.add("download_all_first_byte_p99", Figure::over(&own, Download::p99), "ms");
    if nginx.is_some() {
        rows.add("nginx", Figure::over(&others, |run| run.rate), "MiB/s");
        rows.add("nginx_all_first_byte_p99", Figure::over(&others, Download::p99), "ms");
        let ratios: Vec<_> =
            own.iter().zip(&others).map(|(own, other)| own.rate / other.rate).collect();
        rows.add("download_ratio", Figure::over(&ratios, |ratio| *ratio), "of nginx");
    }
    drop(nginx);
    let paced = download(&ours, each, PAUSE).await?;
    rows.add("download_first_byte_p99", paced.p99(), "ms");

    let seats = seats(&cluster, 10, SENDERS).await?;
    let mut senders = Senders::connect(&cluster, &seats).await?;
    senders.send(&cluster, Duration::from_secs(1)).await?;
    let (runs, each) = stage.repetitions(RUNS, SENDING);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        alone.push(senders.send(&cluster, each).await?);
        let stop = CancellationToken::new();
        let uploading = tokio::spawn(upload_until(person.clone(), stop.clone()));
        beside.push(senders.send(&cluster, each).await?);
        stop.cancel();
        uploading.await??;
    }
    rows.add("sends_alone", Run::rates(&alone), "sends/s");
    rows.add("sends_beside_upload", Run::rates(&beside), "sends/s");
    let ratios: Vec<_> =
        alone.iter().zip(&beside).map(|(alone, beside)| beside.rate / alone.rate).collect();
    rows.add("sends_ratio", Figure::over(&ratios, |ratio| *ratio), "of alone");
    Run::check(alone.iter().chain(&beside))
}

/// Copies a file beside the store, hashes it on the way and syncs it, as an upload does. Returns the seconds.
fn copy(store: &Path) -> Result<f64> {
    let [from, to] = ["original", "copy"].map(|name| store.with_file_name(name));
    let mut file = File::create(&from)?;
    let block = noise();
    for _ in 0..UPLOAD {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let began = Instant::now();
    let (mut input, mut output) = (File::open(&from)?, File::create(&to)?);
    let (mut hash, mut buffer) = (digest::Context::new(&SHA256), vec![0; 65_536]);
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        output.write_all(&buffer[..length])?;
    }
    std::hint::black_box(hash.finish());
    output.sync_all()?;
    let took = began.elapsed().as_secs_f64();
    fs::remove_file(from)?;
    fs::remove_file(to)?;
    Ok(took)
}

/// A mebibyte that is no other one's.
fn noise() -> Vec<u8> {
    let mut block = vec![0; MIB];
    rand::fill(&mut block[..]);
    block
}

/// Uploads so many MiB and returns the time to the answer.
async fn upload(person: &Person, mebibytes: usize) -> Result<Duration> {
    let block = noise();
    let began = Instant::now();
    let mut socket = begin(person, mebibytes).await?;
    for _ in 0..mebibytes {
        socket.write_all(&block).await?;
    }
    let mut answer = [0; 512];
    let length = socket.read(&mut answer).await?;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "an upload was refused");
    Ok(began.elapsed())
}

async fn begin(person: &Person, mebibytes: usize) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(person.address()).await?;
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\nX-File-Name: noise\r\n\
         Content-Length: {}\r\n\r\n",
        person.token,
        mebibytes * MIB
    );
    socket.write_all(head.as_bytes()).await?;
    Ok(socket)
}

/// Uploads a huge file again and again until it is told to stop, then even in the middle of one.
async fn upload_until(person: Person, stop: CancellationToken) -> Result<()> {
    let uploading = async {
        loop {
            upload(&person, HUGE).await?;
        }
    };
    tokio::select! {
        result = uploading => result,
        () = stop.cancelled() => Ok(()),
    }
}

/// Returns the memory that the server takes more for each upload in progress, in MiB.
async fn memory_of_uploads(cluster: &Cluster, person: &Person) -> Result<f64> {
    let server = &cluster.servers[0];
    let before = resident(server)?;
    let mut uploads = JoinSet::new();
    for _ in 0..AT_ONCE {
        let person = person.clone();
        uploads.spawn(async move { upload(&person, UPLOAD).await });
    }
    let mut most = before;
    while !uploads.is_empty() {
        most = most.max(resident(server)?);
        if let Ok(uploaded) =
            tokio::time::timeout(Duration::from_millis(5), uploads.join_next()).await
        {
            uploaded.transpose()?.transpose()?;
        }
    }
    Ok(as_f64(most - before) / as_f64(AT_ONCE) / as_f64(MIB))
}

/// Uploads a file of so many MiB and returns the path under which it is read.
async fn upload_path(person: &Person, mebibytes: usize) -> Result<String> {
    let bytes = noise().repeat(mebibytes);
    let urls = person.upload("noise", bytes).await.ok().context("an upload failed")?;
    Ok(format!("/api{}", urls[0].as_str().context("no url")?))
}

/// A request that is answered with a file.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    request: String,
}

/// The downloads of some seconds.
#[derive(Debug)]
struct Download {
    /// In MiB a second.
    rate: f64,
    first_bytes: Timed,
}

impl Download {
    fn p99(&self) -> f64 {
        self.first_bytes.p99().as_secs_f64() * 1_000.0
    }
}

/// Lets all readers download, each again after a pause.
async fn download(target: &Target, duration: Duration, pause: Duration) -> Result<Download> {
    let (began, deadline) = (Instant::now(), Instant::now() + duration);
    let target = Arc::new(target.clone());
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read_until(Arc::clone(&target), deadline, pause));
    }
    let (mut bytes, mut first_bytes) = (0, Vec::new());
    while let Some(read) = readers.join_next().await {
        let (length, times) = read??;
        bytes += length;
        first_bytes.extend(times);
    }
    let rate = as_f64(bytes) / as_f64(MIB) / began.elapsed().as_secs_f64();
    Ok(Download { rate, first_bytes: Timed::new(first_bytes).context("nothing was read")? })
}

/// Returns the number of bytes that were read, and the time to the first byte of each answer.
async fn read_until(
    target: Arc<Target>,
    deadline: Instant,
    pause: Duration,
) -> Result<(usize, Vec<Duration>)> {
    let mut socket = TcpStream::connect(target.address).await?;
    let (mut bytes, mut times) = (0, Vec::new());
    let mut buffer = vec![0; 256 * 1024];
    while Instant::now() < deadline {
        // Between half of the pause and one and a half, so that they do not come together.
        sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        let began = Instant::now();
        socket.write_all(target.request.as_bytes()).await?;
        let mut length = socket.read(&mut buffer).await?;
        times.push(began.elapsed());
        ensure!(buffer[..length].starts_with(b"HTTP/1.1 200"), "a download was refused");
        let head = buffer[..length].windows(4).position(|end| end == b"\r\n\r\n");
        length -= head.context("the head comes in parts")? + 4;
        while length < MIB {
            let more = socket.read(&mut buffer).await?;
            ensure!(more > 0, "a download ended early");
            length += more;
        }
        bytes += length;
    }
    Ok((bytes, times))
}

/// A private nginx that serves the same file.
struct Nginx {
    target: Target,
    _process: ChildGuard,
}

impl Nginx {
    /// Starts it, if it is installed.
    fn start(folder: &Path, store: &Path, path: &str) -> Result<Option<Self>> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
        let Some(program) = program.into_iter().find(|program| program.exists()) else {
            eprintln!("nginx is not installed: downloads are not compared with it");
            return Ok(None);
        };
        fs::create_dir_all(folder)?;
        let port = reserve_port()?;
        let configuration = folder.join("nginx.conf");
        let (place, store) = (folder.display(), store.canonicalize()?);
        fs::write(
            &configuration,
            format!(
                "daemon off; user root; worker_processes auto; pid {place}/pid; error_log {place}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; sendfile on; keepalive_requests 1000000; default_type application/octet-stream;\n\
                 client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
                 uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
                 server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
                store.display()
            ),
        )?;
        let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(5));
        let process = ChildGuard::start(program, shutdown, |command| {
            command.arg("-c").arg(&configuration).arg("-e").arg(folder.join("error.log"));
        })?;
        // The url of an upload is its place in the store, with an extension.
        let file = path.trim_start_matches("/api/files").trim_end_matches(".bin");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < deadline, "nginx does not start: see {place}/error.log");
            std::thread::sleep(Duration::from_millis(20));
        }
        let request = rig::request(&format!("GET {file}"), &[], "");
        Ok(Some(Self { target: Target { address, request }, _process: process }))
    }
}
