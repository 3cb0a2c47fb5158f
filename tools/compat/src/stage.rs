//! Brings servers, proxies and clients together, and plays all trials.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use devdb::Proxy as Network;
use futures_util::future::{join_all, try_join_all};
use rig::{Cluster, Programs, Setup};
use tokio::sync::watch;

use crate::{
    certificate::Certificate,
    client::{self, Browser, Client, Clients, Packages},
    conversation::Conversation,
    observed::Observed,
    proxy::{self, Proxy},
    refusals::{Refusals, STREAMS_PER_USER, Trial},
    report::{ClientRow, ProxyRow, Report},
    requests::{self, VERSIONS},
    route::{HOST_NAME, Route},
    streams::{self, Candidate, Cutter, Listener, Outcome},
    subscriber::Subscriber,
    tap::Tap,
};

/// The servers, and what starts clients.
#[derive(Debug)]
pub(crate) struct Stage {
    cluster: Cluster,
    clients: Clients,
    folder: PathBuf,
}

/// A proxy that runs, with both routes to it.
struct Front {
    proxy: Proxy,
    running: proxy::Running,
    routes: Vec<Route>,
}

/// A client that can be tried here.
struct Guest {
    client: Client,
    title: String,
}

impl Stage {
    /// Starts the servers, and fetches what these clients need.
    pub(crate) async fn prepare(
        programs: Programs,
        folder: &Path,
        clients: &[Client],
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let browser = Browser::serve(folder).await?;
        let setup = Setup {
            programs,
            servers: 1,
            notifiers: 1,
            logs: folder.join("servers"),
            environment: environment(&browser.origin()),
            settings: Vec::new(),
        };
        let cluster = setup.start().await?;
        let is_needed = clients.iter().any(|client| client.needs_packages());
        let packages = if is_needed { Packages::fetch(folder) } else { Packages::none() };
        Ok(Self { cluster, clients: Clients { packages, browser }, folder: folder.to_owned() })
    }

    /// Tries them all, at the same time where they do not disturb each other.
    pub(crate) async fn play(
        mut self,
        proxies: &[Proxy],
        clients: &[Client],
        pauses: &[Duration],
    ) -> Result<Report> {
        let mut report = Report::default();
        let network = Network::start(self.cluster.servers[0].address()).await?;
        let fronts = self.fronts(proxies, &network, &mut report).await?;
        let guests = self.guests(clients, &mut report);
        let mut candidates = Vec::new();
        for front in &fronts {
            candidates.push(front.candidate(&self.cluster).await?);
        }
        let mut running = Vec::new();
        for guest in &guests {
            candidates.push(self.candidate(guest.client, &mut running).await?);
        }

        println!("Streams: cut, restart, kill −9.");
        let mut outcomes = streams::play(&candidates, &mut self.cluster).await?;
        let of_clients = outcomes.split_off(fronts.len());
        drop(running);

        network.delay(requests::DISTANCE);
        println!("POSTs after pauses, and refusals.");
        let rows = fronts.iter().zip(&candidates).zip(outcomes);
        let rows = rows.map(|((front, candidate), outcomes)| {
            front.requests(&self.cluster, candidate, outcomes, pauses)
        });
        let refusals = guests.iter().map(|guest| self.refusals(guest.client));
        let (rows, refusals) = tokio::join!(try_join_all(rows), join_all(refusals));
        report.proxies = rows?;
        for ((guest, mut outcomes), refusals) in guests.into_iter().zip(of_clients).zip(refusals) {
            let outcome = outcomes.pop().context("a client has one stream")?;
            report.clients.push(ClientRow { name: guest.title, outcome, refusals });
        }
        Ok(report)
    }

    /// Starts those proxies that are installed.
    async fn fronts(
        &self,
        proxies: &[Proxy],
        network: &Network,
        report: &mut Report,
    ) -> Result<Vec<Front>> {
        if proxies.is_empty() {
            return Ok(Vec::new());
        }
        let certificate = Certificate::make(&self.folder)?;
        let servers = [network.address(), self.cluster.notifiers[0].address()];
        let mut fronts = Vec::new();
        for proxy in proxies.iter().copied() {
            if let Err(why) = proxy.program() {
                report.skipped.push(why);
                continue;
            }
            let running = proxy.start(&self.folder, servers, &certificate).await?;
            let address = running.place.address;
            let routes =
                VERSIONS.map(|(_, version)| Route::new(address, version, &certificate)).to_vec();
            fronts.push(Front { proxy, running, routes });
        }
        Ok(fronts)
    }

    /// Those clients that can be tried here.
    fn guests(&self, clients: &[Client], report: &mut Report) -> Vec<Guest> {
        let mut guests = Vec::new();
        for client in clients.iter().copied() {
            let title = self.clients.title(client);
            match self.clients.obstacle(client) {
                Some(why) => report.skipped.push(format!("{title}: {why}")),
                None => guests.push(Guest { client, title }),
            }
        }
        guests
    }

    /// A client on a stream that can be cut.
    async fn candidate(
        &self,
        client: Client,
        running: &mut Vec<client::Running>,
    ) -> Result<Candidate> {
        let name = format!("{client:?}");
        let conversation = Conversation::begin(&self.cluster, &name, None).await?;
        let tap = Tap::start(self.cluster.notifiers[0].address()).await?;
        let url = format!("http://{}/events", tap.address);
        let token = conversation.receiver.token.to_string();
        let started = self.clients.start(client, &format!("{name}-streams"), [&url, &token])?;
        let observed = started.observed.clone();
        running.push(started);
        let listeners = vec![Listener { label: "", observed, cutter: Cutter::Tap(tap) }];
        Ok(Candidate { name, conversation, listeners })
    }

    async fn refusals(&self, client: Client) -> Refusals {
        let trial = Trial { client, clients: &self.clients, cluster: &self.cluster };
        trial.play().await.unwrap_or_else(|error| Refusals {
            problems: vec![format!("{error:#}")],
            ..Refusals::default()
        })
    }
}

impl Front {
    /// A person who follows one stream over HTTP/1.1 and one over HTTP/2.
    async fn candidate(&self, cluster: &Cluster) -> Result<Candidate> {
        let name = self.proxy.name();
        let way = self.routes.last().cloned();
        let conversation = Conversation::begin(cluster, name, way).await?;
        let token = conversation.receiver.token.to_string();
        let listener = |(route, (label, version)): (&Route, (&'static str, _))| {
            let observed = Observed::default();
            let subscriber = Subscriber {
                route: route.clone(),
                token: token.clone(),
                token_in_address: version == VERSIONS[0].1,
                observed: observed.clone(),
            };
            let cuts = watch::Sender::new(0);
            let task = tokio::spawn(subscriber.follow(cuts.subscribe()));
            Listener { label, observed, cutter: Cutter::Subscriber(cuts, task) }
        };
        let listeners = self.routes.iter().zip(VERSIONS).map(listener).collect();
        Ok(Candidate { name: name.to_owned(), conversation, listeners })
    }

    /// The trials of requests. The streams stay open meanwhile and must not end.
    async fn requests(
        &self,
        cluster: &Cluster,
        candidate: &Candidate,
        outcomes: Vec<Outcome>,
        pauses: &[Duration],
    ) -> Result<ProxyRow> {
        let name = self.proxy.name();
        let conversation = &candidate.conversation;
        let ended_before = candidate.ends();
        let mut large_bodies = Vec::new();
        for route in &self.routes {
            large_bodies.push(requests::large_body(route, conversation).await);
        }
        Ok(ProxyRow {
            name: format!("{name} {}", self.proxy.version()),
            outcomes,
            large_bodies,
            believed: requests::forged_addresses(&self.routes[0], cluster, name).await?,
            unreachable: requests::unreachable(&self.routes[1]).await,
            posts: requests::posts(&self.routes, conversation, pauses).await,
            failures: conversation.failures(),
            ended_idle: candidate.ends() - ended_before,
            logs_with_tokens: self.logs_with_tokens(&conversation.receiver.token)?,
        })
    }

    fn logs_with_tokens(&self, token: &str) -> Result<Vec<String>> {
        let mut logs = self.running.logs_with(token)?;
        logs.extend(self.running.logs_with("access_token=")?);
        logs.sort();
        logs.dedup();
        Ok(logs)
    }
}

fn environment(origin: &str) -> Vec<(String, String)> {
    let public = format!("https://{HOST_NAME}");
    let values = [
        ("HTTP__TRUSTED_PROXIES", "127.0.0.1/32".to_owned()),
        ("HTTP__ALLOWED_ORIGINS", origin.to_owned()),
        ("SERVER__PUBLIC_URL", public.clone()),
        ("NOTIFY__PUBLIC_URL", public),
        ("AUTH__SECURE_COOKIE", "true".to_owned()),
        ("NOTIFY__STREAMS_PER_USER", STREAMS_PER_USER.to_string()),
    ];
    values.map(|(name, value)| (format!("FECHATTER__{name}"), value)).to_vec()
}
