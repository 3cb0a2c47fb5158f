//! `cargo xtask run`: both servers and their database, until Ctrl-C.

use std::{
    env, fs,
    fs::{File, Permissions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use devdb::{Postgres, Process, log_tail};
use reqwest::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    demo,
    workspace::{build, root},
};

/// How long servers may take to start: the first one migrates.
pub(crate) const STARTING: Duration = Duration::from_mins(1);

/// How long an earlier run's servers may take to end once that run was killed.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// What a machine of one's own may be lax about. Your environment and `.env` go before.
const DEVELOPMENT: [(&str, &str); 8] = [
    ("FECHATTER__ACCOUNTS__JOIN_POLICY", "open"),
    ("FECHATTER__ACCOUNTS__WORKSPACE_CREATION", "anyone"),
    ("FECHATTER__ACCOUNTS__REFUSE_COMMON_PASSWORDS", "false"),
    ("FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE", "6000"),
    ("FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE_OVERALL", "60000"),
    ("FECHATTER__ACCOUNTS__FREE_FAILURES", "100"),
    ("FECHATTER__AUTH__SECURE_COOKIE", "false"),
    ("FECHATTER__LOG__FORMAT", "human"),
];

#[derive(Args)]
pub(crate) struct Options {
    /// Where REST listens; streams are one below, operations ten and eleven above. Each port has its own data
    #[arg(long, default_value_t = 6688, value_parser = clap::value_parser!(u16).range(1025..=65000))]
    port: u16,
    /// Add the workspace "Acme" with Alice, Bob and Charlie, who talk
    #[arg(long)]
    demo: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let ports = Ports::above(options.port);
    ports.check_free().await?;
    let programs = build(&[], ["fechatter_server", "notify_server"])?;
    let home = home(options.port)?;
    // The servers look for `.env` in their folder.
    env::set_current_dir(root())?;

    // Until here, Ctrl-C ends this process, and the child processes then end too.
    let mut postgres = None;
    let database = if let Some(url) = devdb::configured_url() {
        println!("Using the database that DATABASE_URL names.");
        url
    } else {
        let own = postgres.insert(Postgres::persistent(&home.join("postgres"))?);
        let url = own.url("fechatter");
        devdb::create_database_if_absent(&url).await?;
        println!("PostgreSQL is up; its data is in {}.", home.display());
        url
    };
    let mut environment = ports.environment();
    environment.push(("DATABASE_URL".to_owned(), database));
    environment.extend(development_settings());
    environment.push(files_in(&home));
    environment.extend(keys(&programs[0], &home)?);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut servers = [
        start(&programs[0], &home, ports.of_rest(), &environment)?,
        start(&programs[1], &home, [ports.stream, ports.stream_operations], &environment)?,
    ];
    let outcome = tokio::select! {
        failure = serve(&mut servers, &mut postgres, &ports, &options) => failure,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    };

    println!("\nStopping.");
    let stopping = tokio::task::spawn_blocking(move || stop(servers, postgres));
    tokio::select! {
        stopped = stopping => stopped??,
        // Ctrl-C was pressed twice. The processes that still run end when this process ends.
        _ = interrupt.recv() => {}
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Servers first, side by side; then what they need.
fn stop(mut servers: [Process; 2], postgres: Option<Postgres>) -> Result<()> {
    for server in &mut servers {
        server.request_stop();
    }
    drop(servers);
    postgres.map_or(Ok(()), Postgres::stop)
}

/// Ends only when something of ours does.
async fn serve(
    servers: &mut [Process; 2],
    postgres: &mut Option<Postgres>,
    ports: &Ports,
    options: &Options,
) -> Result<()> {
    // A proxy from the environment is for other machines.
    let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
    for server in servers.iter_mut() {
        server.ready(&client, STARTING).await?;
    }
    println!("{}", instructions(ports, servers));
    if options.demo {
        println!("{}", demo::add(&client, &ports.rest_url()).await?);
    }
    println!("Ctrl-C ends everything.");
    loop {
        for server in servers.iter_mut() {
            server.check()?;
        }
        if let Some(postgres) = postgres
            && !postgres.is_running()
        {
            bail!("PostgreSQL has ended:\n{}", log_tail(postgres.log()));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// Starts a server at the root of the checkout, with an empty log.
pub(crate) fn start(
    program: &Path,
    home: &Path,
    [port, operations]: [u16; 2],
    environment: &[(String, String)],
) -> Result<Process> {
    let log = home.join(program.file_name().unwrap_or_default()).with_extension("log");
    File::create(&log)?;
    let addresses = [port, operations].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut server = Process::new(program, addresses, environment.to_vec(), log);
    server.start()?;
    Ok(server)
}

/// The four ports of a run.
pub(crate) struct Ports {
    rest: u16,
    stream: u16,
    rest_operations: u16,
    stream_operations: u16,
}

impl Ports {
    pub(crate) fn above(rest: u16) -> Self {
        Self { rest, stream: rest - 1, rest_operations: rest + 10, stream_operations: rest + 11 }
    }

    pub(crate) fn rest_url(&self) -> String {
        format!("http://localhost:{}", self.rest)
    }

    /// The ports of REST and its operations.
    pub(crate) fn of_rest(&self) -> [u16; 2] {
        [self.rest, self.rest_operations]
    }

    fn stream_url(&self) -> String {
        format!("http://localhost:{}", self.stream)
    }

    /// Before the build, which may take minutes.
    pub(crate) async fn check_free(&self) -> Result<()> {
        let ports = [
            (self.rest, "REST"),
            (self.stream, "streams"),
            (self.rest_operations, "REST's operations"),
            (self.stream_operations, "the streams' operations"),
        ];
        let deadline = Instant::now() + PORT_PATIENCE;
        for (port, purpose) in ports {
            while let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                if Instant::now() >= deadline {
                    bail!(
                        "port {port}, for {purpose}, cannot be used ({error}). \
                         End what listens there, or choose others with --port."
                    );
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        [
            ("SERVER__LISTEN", format!("127.0.0.1:{}", self.rest)),
            ("SERVER__OPERATIONS_LISTEN", format!("127.0.0.1:{}", self.rest_operations)),
            ("SERVER__PUBLIC_URL", self.rest_url()),
            ("NOTIFY__LISTEN", format!("127.0.0.1:{}", self.stream)),
            ("NOTIFY__OPERATIONS_LISTEN", format!("127.0.0.1:{}", self.stream_operations)),
            ("NOTIFY__PUBLIC_URL", self.stream_url()),
        ]
        .map(|(key, value)| (format!("FECHATTER__{key}"), value))
        .to_vec()
    }
}

/// The folder of this port's data. Root's stays open: the database in it belongs to another user.
fn home(port: u16) -> Result<PathBuf> {
    let home = devdb::persistent_home(&root(), &port.to_string());
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    fs::set_permissions(&home, Permissions::from_mode(0o755))?;
    Ok(home)
}

/// The setting of a file store in this folder.
pub(crate) fn files_in(folder: &Path) -> (String, String) {
    ("FECHATTER__FILES__PATH".to_owned(), folder.join("files").display().to_string())
}

pub(crate) fn development_settings() -> Vec<(String, String)> {
    let example = root().join("app.yml.example").display().to_string();
    DEVELOPMENT
        .map(|(key, value)| (key, value.to_owned()))
        .into_iter()
        .chain([("FECHATTER_CONFIG", example)])
        .filter(|(key, _)| env::var_os(key).is_none())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The keys of this port's data, made on first use.
pub(crate) fn keys(server: &Path, home: &Path) -> Result<Vec<(String, String)>> {
    if env::var_os("FECHATTER__AUTH__PRIVATE_KEY").is_some() {
        return Ok(Vec::new());
    }
    let file = home.join("keys.env");
    if !file.exists() {
        // Beside its place first: a half-written file would be taken for keys.
        let fresh = file.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let output = Command::new(server).args(["keygen", "--write"]).arg(&fresh).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} keygen failed:\n{complaint}", server.display());
        fs::rename(&fresh, &file)?;
    }
    env_file::read(&file)
}

/// Lines to paste into any POSIX shell, as often as one likes.
fn instructions(ports: &Ports, servers: &[Process; 2]) -> String {
    let (rest, stream) = (ports.rest_url(), ports.stream_url());
    let [rest_log, stream_log] = servers.each_ref().map(|server| server.log().display());
    format!(
        r#"
Fechatter is up.
  REST     {rest}   log: {rest_log}
  events   {stream}   log: {stream_log}

To try it, paste this into another terminal: sign up, follow the stream, make a chat, send a message.

JSON='Content-Type: application/json'
TOKEN=$(curl -s {rest}/api/signup -H "$JSON" -d '{{"fullname":"Robin","email":"robin-'"$$-$(date +%s)"'@try.test","password":"try-fechatter","workspace":"Try"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -sN {stream}/events -H "Authorization: Bearer $TOKEN" & sleep 1
CHAT=$(curl -s {rest}/api/chat -H "Authorization: Bearer $TOKEN" -H "$JSON" -d '{{"name":"lunch '"$$-$(date +%s)"'","chat_type":"PublicChannel"}}' | sed 's/"id":\([0-9]*\).*/\1/; s/.*[^0-9]//')
curl -s {rest}/api/chat/$CHAT/messages -H "Authorization: Bearer $TOKEN" -H "$JSON" -d '{{"content":"Noodles?"}}'
"#
    )
}
