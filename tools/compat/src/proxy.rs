//! The proxies: each runs the configuration of `docs/proxies.md` as a private instance.

mod apache;
mod caddy;
mod haproxy;
mod nginx;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use devdb::{ChildGuard, ShutdownMethod, reserve_port};
use tokio::{net::TcpStream, time::sleep};

use crate::{certificate::Certificate, page, programs};

const STARTING: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
    Apache,
}

/// The addresses and paths of a private instance, which take the place of those on the page.
#[derive(Debug)]
pub(crate) struct Place {
    /// For its files and logs.
    pub(crate) folder: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) fechatter_server: SocketAddr,
    pub(crate) notify_server: SocketAddr,
    pub(crate) certificate: Certificate,
}

/// The additions to one proxy's configuration, and the way to start it.
struct Instance {
    configuration: String,
    arguments: Vec<String>,
}

/// A proxy that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) place: Place,
    child: ChildGuard,
}

impl Proxy {
    pub(crate) const ALL: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Caddy, Self::Apache];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Apache => "Apache",
        }
    }

    /// The program, or why it cannot be tried.
    pub(crate) fn program(self) -> Result<PathBuf, String> {
        programs::find(self.command(), self.command())
    }

    pub(crate) fn version(self) -> String {
        let argument = if self == Self::Caddy { "version" } else { "-v" };
        self.program().map(|program| programs::version(&program, argument)).unwrap_or_default()
    }

    /// Starts it in this folder, in front of these servers.
    pub(crate) async fn start(
        self,
        folder: &Path,
        [fechatter_server, notify_server]: [SocketAddr; 2],
        certificate: &Certificate,
    ) -> Result<Running> {
        let program = self.program().map_err(anyhow::Error::msg)?;
        let folder = folder.join(self.command());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let place = Place {
            folder,
            address: (Ipv4Addr::LOCALHOST, reserve_port()?).into(),
            fechatter_server,
            notify_server,
            certificate: certificate.clone(),
        };
        let instance = self.instance(&place)?;
        fs::write(place.file("configuration"), &instance.configuration)?;
        let log = File::create(place.file("output.log"))?;
        let child = ChildGuard::start(
            program,
            ShutdownMethod::new("TERM", Duration::from_secs(2)),
            |command| {
                command.args(&instance.arguments).current_dir(&place.folder);
                command.env("HOME", &place.folder).env("XDG_DATA_HOME", &place.folder);
                command.env("XDG_CONFIG_HOME", &place.folder);
                if let Ok(error) = log.try_clone() {
                    command.stdout(log).stderr(error);
                }
            },
        );
        let mut running = Running { place, child: child.context("starting a proxy")? };
        running.ready().await.with_context(|| format!("{} does not start", self.name()))?;
        Ok(running)
    }

    fn instance(self, place: &Place) -> Result<Instance> {
        match self {
            Self::Nginx => nginx::instance(place, &page::configuration("nginx")?),
            Self::Haproxy => haproxy::instance(place, &page::configuration("haproxy")?),
            Self::Caddy => caddy::instance(place, &page::configuration("caddyfile")?),
            Self::Apache => apache::instance(place, &page::configuration("apache")?),
        }
    }

    /// The name of program, package and folder.
    fn command(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Apache => "apache2",
        }
    }
}

impl Place {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Replaces what is the same for all proxies. The paths come before the host name, which is part of them.
    fn changes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("127.0.0.1:6688", self.fechatter_server.to_string()),
            ("127.0.0.1:6687", self.notify_server.to_string()),
        ]
    }

    /// Certificate and key in two files, as three of the four proxies want them.
    fn certificate_changes(&self) -> [(&'static str, String); 2] {
        [
            ("/etc/ssl/chat.example.pem", self.certificate.public.display().to_string()),
            ("/etc/ssl/chat.example.key", self.certificate.key.display().to_string()),
        ]
    }
}

impl Running {
    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + STARTING;
        while TcpStream::connect(self.place.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it has ended ({status}): {}", self.output());
            }
            ensure!(Instant::now() < deadline, "it does not listen: {}", self.output());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn output(&self) -> String {
        fs::read_to_string(self.place.file("output.log")).unwrap_or_default()
    }

    /// The names of log files that contain this text.
    pub(crate) fn logs_with(&self, text: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.place.folder)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            let is_log = Path::new(&name).extension().is_some_and(|extension| extension == "log");
            if is_log && String::from_utf8_lossy(&fs::read(file.path())?).contains(text) {
                found.push(name);
            }
        }
        Ok(found)
    }
}
