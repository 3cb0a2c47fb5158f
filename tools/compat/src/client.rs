//! The ready-made clients: each is a script in `clients/` that prints what it sees as JSON lines.

mod browser;
mod packages;

use std::{
    io::{BufRead, BufReader, pipe},
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use devdb::{ChildGuard, ShutdownMethod};

pub(crate) use browser::Browser;
pub(crate) use packages::Packages;

use crate::{
    observed::{Observed, What},
    page::checkout,
    programs,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    Eventsource,
    FetchEventSource,
    HttpxSse,
    SseclientPy,
    Requests,
    ChromiumEventSource,
    ChromiumFetch,
}

/// Starts clients, with what there is on this machine.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) packages: Packages,
    pub(crate) browser: Browser,
}

/// A client that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) observed: Observed,
    _child: ChildGuard,
}

impl Client {
    pub(crate) const ALL: [Self; 7] = [
        Self::Eventsource,
        Self::FetchEventSource,
        Self::HttpxSse,
        Self::SseclientPy,
        Self::Requests,
        Self::ChromiumEventSource,
        Self::ChromiumFetch,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Eventsource => "eventsource",
            Self::FetchEventSource => "fetch-event-source",
            Self::HttpxSse => "httpx-sse",
            Self::SseclientPy => "sseclient-py",
            Self::Requests => "requests",
            Self::ChromiumEventSource => "EventSource",
            Self::ChromiumFetch => "fetch",
        }
    }

    /// True if it comes from npm or `PyPI`.
    pub(crate) fn needs_packages(self) -> bool {
        !matches!(self, Self::ChromiumEventSource | Self::ChromiumFetch)
    }

    fn script(self) -> &'static str {
        match self {
            Self::Eventsource => "eventsource.js",
            Self::FetchEventSource => "fetch-event-source.js",
            Self::HttpxSse => "httpx_sse_client.py",
            Self::SseclientPy => "sseclient_py.py",
            Self::Requests => "requests_lines.py",
            Self::ChromiumEventSource => "eventsource.html",
            Self::ChromiumFetch => "fetch.html",
        }
    }
}

impl Clients {
    /// Why a client cannot be tried, if so.
    pub(crate) fn obstacle(&self, client: Client) -> Option<&str> {
        let needed = match client {
            Client::Eventsource | Client::FetchEventSource => &self.packages.node,
            Client::HttpxSse | Client::SseclientPy | Client::Requests => &self.packages.python,
            Client::ChromiumEventSource | Client::ChromiumFetch => &self.browser.program,
        };
        needed.as_ref().err().map(String::as_str)
    }

    /// The name of a client with the version of the package, or of the browser.
    pub(crate) fn title(&self, client: Client) -> String {
        let name = client.name();
        match (client, &self.browser.program) {
            (Client::ChromiumEventSource | Client::ChromiumFetch, Ok(program)) => {
                format!("`{name}` of Chromium {}", programs::version(program, "--version"))
            }
            (Client::ChromiumEventSource | Client::ChromiumFetch, Err(_)) => {
                format!("`{name}` of Chromium")
            }
            _ => format!("`{name}` {}", packages::pinned(name).unwrap_or_default()),
        }
    }

    /// Starts a client on a stream, under a name that no other run has.
    pub(crate) fn start(
        &self,
        client: Client,
        run: &str,
        [url, token]: [&str; 2],
    ) -> Result<Running> {
        let script = client.script();
        match client {
            Client::Eventsource | Client::FetchEventSource => {
                let script = self.packages.javascript.join(script);
                command(&self.packages.node, script, [url, token])
            }
            Client::HttpxSse | Client::SseclientPy | Client::Requests => {
                let script = checkout("compat/clients/python").join(script);
                command(&self.packages.python, script, [url, token])
            }
            Client::ChromiumEventSource | Client::ChromiumFetch => {
                self.browser.open(script, run, [url, token])
            }
        }
    }
}

/// Starts a script that prints JSON lines.
fn command(
    program: &Result<PathBuf, String>,
    script: PathBuf,
    [url, token]: [&str; 2],
) -> Result<Running> {
    let program = program.as_ref().map_err(|why| anyhow::Error::msg(why.clone()))?;
    let (output, its) = pipe()?;
    let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(1));
    let child = ChildGuard::start(program, shutdown, |command| {
        command.arg(script).env("EVENTS_URL", url).env("ACCESS_TOKEN", token);
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdout(Stdio::from(its));
    });
    let child = child.with_context(|| format!("starting {}", program.display()))?;
    let observed = Observed::default();
    let heard = observed.clone();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            heard.add(parse(&line));
        }
    });
    Ok(Running { observed, _child: child })
}

fn parse(line: &str) -> What {
    serde_json::from_str(line)
        .unwrap_or_else(|_| What::Stopped { text: format!("no JSON line: {line}") })
}
