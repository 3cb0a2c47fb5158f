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
    observed::{Observed, What},
    proxy::{self, Proxy},
    refusals::{Refusals, STREAMS_PER_USER, Trial},
    report::{ClientRow, ProxyRow, Report},
    requests::{self, Posts, VERSIONS},
    route::{HOST_NAME, Route},
    streams::{self, Candidate, Cutter, Listener},
    subscriber::Subscriber,
    tap::Tap,
};

/// The pauses between POSTs, in seconds.
const PAUSES: [u64; 6] = [5, 10, 30, 60, 75, 80];
const QUICK_PAUSES: [u64; 2] = [5, 10];
/// How far `fechatter_server` is from the proxies: an idle connection then ends on one side first.
const DISTANCE: Duration = Duration::from_millis(1);

/// The servers, and what starts clients.
#[derive(Debug)]
pub(crate) struct Stage {
    cluster: Cluster,
    browser: Browser,
    folder: PathBuf,
}

/// A proxy that runs, with what its trials need.
struct Front {
    proxy: Proxy,
    running: proxy::Running,
    routes: Vec<Route>,
}

impl Stage {
    /// Starts the servers.
    pub(crate) async fn prepare(programs: Programs, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let browser = Browser::serve(folder).await?;
        let public = format!("https://{HOST_NAME}");
        let environment = [
            ("HTTP__TRUSTED_PROXIES", "127.0.0.1/32".to_owned()),
            ("HTTP__ALLOWED_ORIGINS", browser.origin()),
            ("SERVER__PUBLIC_URL", public.clone()),
            ("NOTIFY__PUBLIC_URL", public),
            ("AUTH__SECURE_COOKIE", "true".to_owned()),
            ("NOTIFY__STREAMS_PER_USER", STREAMS_PER_USER.to_string()),
        ];
        let environment = environment.map(|(name, value)| (format!("FECHATTER__{name}"), value));
        let setup = Setup {
            programs,
            servers: 1,
            notifiers: 1,
            logs: folder.join("servers"),
            environment: environment.to_vec(),
            settings: Vec::new(),
        };
        let cluster = setup.start().await?;
        Ok(Self { cluster, browser, folder: folder.to_owned() })
    }

    /// Tries them all, at the same time where they do not disturb each other.
    pub(crate) async fn play(
        mut self,
        proxies: Vec<Proxy>,
        clients: Vec<Client>,
        quick: bool,
    ) -> Result<Report> {
        let mut report = Report::default();
        let network = Network::start(self.cluster.servers[0].address()).await?;
        network.delay(DISTANCE);
        let fronts = self.fronts(proxies, &network, &mut report).await?;
        let packages = match clients.is_empty() {
            true => Packages::none(),
            false => Packages::fetch(&self.folder),
        };
        let ready = Clients { packages, browser: self.browser };
        let mut tried = Vec::new();
        for client in clients {
            match ready.obstacle(client) {
                Some(why) => report.skipped.push(format!("{}: {why}", client.name())),
                None => tried.push(client),
            }
        }
        let mut candidates = Vec::new();
        for front in &fronts {
            candidates.push(front.candidate(&self.cluster).await?);
        }
        let mut open = Vec::new();
        for client in &tried {
            let (candidate, running) = candidate(*client, &ready, &self.cluster).await?;
            candidates.push(candidate);
            open.push(running);
        }
        println!("Streams: cut, restart, kill −9.");
        let mut outcomes = streams::play(&candidates, &mut self.cluster).await?;
        let of_clients = outcomes.split_off(fronts.len());
        drop(open);

        println!("POSTs after pauses, and refusals.");
        let pauses = if quick { &QUICK_PAUSES[..] } else { &PAUSES };
        let pauses: Vec<_> = pauses.iter().map(|pause| Duration::from_secs(*pause)).collect();
        let cluster = &self.cluster;
        let rows = fronts.iter().zip(&candidates).zip(outcomes).map(
            async |((front, candidate), outcomes)| {
                let mut row = front.requests(cluster, candidate, &pauses).await?;
                row.outcomes = outcomes;
                Ok::<_, anyhow::Error>(row)
            },
        );
        let trials: Vec<_> = tried
            .iter()
            .map(|client| Trial { client: *client, clients: &ready, cluster })
            .collect();
        let (rows, refusals) =
            tokio::join!(try_join_all(rows), join_all(trials.iter().map(Trial::play)));
        report.proxies = rows?;
        for ((client, mut outcomes), refusals) in tried.iter().zip(of_clients).zip(refusals) {
            let refusals = refusals.unwrap_or_else(|error| Refusals {
                problems: vec![format!("{error:#}")],
                ..Refusals::default()
            });
            let name = format!("{} {}", client.name(), ready.version(*client));
            let outcome = outcomes.pop().context("a client has one stream")?;
            report.clients.push(ClientRow { name, outcome, refusals });
        }
        Ok(report)
    }

    /// Starts those proxies that are installed.
    async fn fronts(
        &self,
        proxies: Vec<Proxy>,
        network: &Network,
        report: &mut Report,
    ) -> Result<Vec<Front>> {
        let certificate = Certificate::make(&self.folder)?;
        let servers = [network.address(), self.cluster.notifiers[0].address()];
        let mut fronts = Vec::new();
        for proxy in proxies {
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
}

impl Front {
    /// Somebody who follows a stream over HTTP/1.1 and one over HTTP/2.
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

    /// The trials of requests; the streams stay open, and nothing happens on them but messages.
    async fn requests(
        &self,
        cluster: &Cluster,
        candidate: &Candidate,
        pauses: &[Duration],
    ) -> Result<ProxyRow> {
        let name = self.proxy.name();
        let conversation = &candidate.conversation;
        let ended_before = candidate.listeners.iter().map(ended).sum::<usize>();
        let mut large_bodies = Vec::new();
        for route in &self.routes {
            large_bodies.push(requests::large_body(route, conversation).await);
        }
        let believed = requests::forged_addresses(&self.routes[0], cluster, name).await?;
        let posts: Posts = requests::posts(&self.routes, conversation, pauses).await;
        let ended_after = candidate.listeners.iter().map(ended).sum::<usize>();
        let mut logs_with_tokens = self.running.logs_with(&conversation.receiver.token)?;
        logs_with_tokens.extend(self.running.logs_with("access_token=")?);
        logs_with_tokens.sort();
        logs_with_tokens.dedup();
        Ok(ProxyRow {
            name: format!("{name} {}", self.proxy.version()),
            outcomes: Vec::new(),
            failures: conversation.failures(),
            posts,
            large_bodies,
            believed,
            logs_with_tokens,
            ended_idle: ended_after - ended_before,
        })
    }
}

/// A client on a stream that can be cut.
async fn candidate(
    client: Client,
    clients: &Clients,
    cluster: &Cluster,
) -> Result<(Candidate, client::Running)> {
    let conversation = Conversation::begin(cluster, client.name(), None).await?;
    let tap = Tap::start(cluster.notifiers[0].address()).await?;
    let url = format!("http://{}/events", tap.address);
    let token = conversation.receiver.token.to_string();
    let running = clients.start(client, &format!("{client:?}-streams"), [&url, &token])?;
    let observed = running.observed.clone();
    let listeners = vec![Listener { label: "", observed, cutter: Cutter::Tap(tap) }];
    Ok((Candidate { name: client.name().to_owned(), conversation, listeners }, running))
}

fn ended(listener: &Listener) -> usize {
    let is_end = |what: &What| matches!(what, What::Ended { .. });
    listener.observed.all().iter().filter(|observation| is_end(&observation.what)).count()
}
