//! Chromium without a window: it opens a page of ours, which sends back what it sees.

use std::{
    collections::HashMap,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Path as Parameter, State},
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::{get, post},
};
use devdb::{ChildGuard, ShutdownMethod};
use tokio::net::TcpListener;

use super::{Running, parse};
use crate::{observed::Observed, programs};

const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// The observations of each open page, by the name of its run.
type Runs = Arc<Mutex<HashMap<String, Observed>>>;

#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) program: Result<PathBuf, String>,
    folder: PathBuf,
    address: SocketAddr,
    runs: Runs,
}

impl Browser {
    /// Serves the pages.
    pub(crate) async fn serve(folder: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let runs = Runs::default();
        let routes = Router::new()
            .route(
                "/eventsource.html",
                get(Html(include_str!("../../clients/browser/eventsource.html"))),
            )
            .route("/fetch.html", get(Html(include_str!("../../clients/browser/fetch.html"))))
            .route("/seen.js", get(script))
            .route("/seen/{run}", post(seen))
            .with_state(Arc::clone(&runs));
        tokio::spawn(async { axum::serve(listener, routes).await });
        let program = programs::find("chromium", "chromium");
        Ok(Self { program, folder: folder.join("chromium"), address, runs })
    }

    /// The origin of the pages, which the servers must allow.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn open(&self, page: &str, run: &str, [url, token]: [&str; 2]) -> Result<Running> {
        let program = self.program.as_ref().map_err(|why| anyhow::Error::msg(why.clone()))?;
        let observed = Observed::default();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.insert(run.to_owned(), observed.clone());
        let folder = self.folder.join(run);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let output = File::create(folder.with_extension("log"))?;
        let url = url.replace('?', "%3F").replace('=', "%3D");
        let page = format!("{}/{page}?run={run}&url={url}&token={token}", self.origin());
        let shutdown = ShutdownMethod::new("TERM", Duration::from_secs(3)).and_remove(&folder);
        let child = ChildGuard::start(program, shutdown, |command| {
            command.args(ARGUMENTS).arg(format!("--user-data-dir={}", folder.display())).arg(page);
            if let Ok(error) = output.try_clone() {
                command.stdout(output).stderr(error);
            }
        });
        Ok(Running { observed, _child: child.context("starting Chromium")? })
    }
}

async fn script() -> impl IntoResponse {
    let script = include_str!("../../clients/browser/seen.js");
    ([(CONTENT_TYPE, "text/javascript")], script)
}

async fn seen(State(runs): State<Runs>, Parameter(run): Parameter<String>, line: String) {
    let runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(observed) = runs.get(&run) {
        observed.add(parse(&line));
    }
}
