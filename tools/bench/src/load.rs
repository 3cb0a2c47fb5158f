//! Clients of which each makes its next call as soon as the last one is answered.

use std::{
    io, iter,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fechatter_core::ChatId;
use rig::{Cluster, KeepAlive, Person};
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    figure::{Figure, as_f64},
    processes::Usage,
    timed::Timed,
};

/// What everybody says.
pub(crate) const CONTENT: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
/// How long somebody waits who was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// The calls that one client makes, one after the other.
pub(crate) type Requests = Box<dyn Iterator<Item = String> + Send>;

/// A client with a connection of its own.
struct Sender {
    connection: KeepAlive,
    address: SocketAddr,
    requests: Requests,
}

/// All of them.
pub(crate) struct Senders(Vec<Sender>);

/// What came of a while of calls.
#[derive(Debug)]
pub(crate) struct Run {
    /// Of the calls that succeeded.
    pub(crate) times: Timed,
    /// How many succeeded a second.
    pub(crate) rate: f64,
    /// Milliseconds of processors' time a call: a Fechatter's, and ours.
    pub(crate) cpu: f64,
    pub(crate) generator_cpu: f64,
    /// What was answered instead of a success.
    pub(crate) errors: Vec<String>,
}

impl Senders {
    /// Connects clients who send messages, each with a session of their own.
    pub(crate) async fn connect(cluster: &Cluster, seats: &[(Person, ChatId)]) -> Result<Self> {
        let mut requests: Vec<Requests> = Vec::new();
        for (person, chat) in seats {
            let (person, chat) = (cluster.town.sign_in_again(person).await?, *chat);
            let message = move || person.raw_send_message_request(chat, CONTENT, Uuid::new_v4());
            requests.push(Box::new(iter::repeat_with(message)));
        }
        Self::calling(cluster, requests).await
    }

    /// Connects clients who make these calls.
    pub(crate) async fn calling(cluster: &Cluster, requests: Vec<Requests>) -> Result<Self> {
        let address = cluster.servers[0].address();
        let mut senders = Vec::new();
        for requests in requests {
            let connection = KeepAlive::connect(address).await?;
            senders.push(Sender { connection, address, requests });
        }
        Ok(Self(senders))
    }

    /// Lets them all make their calls for so long, or until they have made all of them.
    pub(crate) async fn send(&mut self, cluster: &Cluster, duration: Duration) -> Result<Run> {
        let before = Usage::of(cluster)?;
        let (began, deadline) = (Instant::now(), Instant::now() + duration);
        let mut open: JoinSet<_> =
            self.0.drain(..).map(|sender| sender.send_until(deadline)).collect();
        let (mut times, mut errors) = (Vec::new(), Vec::new());
        let mut in_time = 0;
        while let Some(sent) = open.join_next().await {
            let (sender, sent) = sent?;
            self.0.push(sender);
            in_time += sent.in_time;
            times.extend(sent.times);
            errors.extend(sent.errors);
        }
        let ended = Instant::now().min(deadline);
        // The last ones were answered after the deadline: they cost something, and count for no rate.
        let spent = Usage::of(cluster)?.since(before);
        let messages = as_f64(times.len());
        let milliseconds = |spent: Duration| spent.as_secs_f64() * 1000.0 / messages;
        Ok(Run {
            rate: as_f64(in_time) / (ended - began).as_secs_f64(),
            cpu: milliseconds(spent.fechatter()),
            generator_cpu: milliseconds(spent.generator),
            times: Timed::new(times)
                .with_context(|| format!("nothing was sent: {:?}", errors.first()))?,
            errors,
        })
    }
}

impl Run {
    /// Over several of them.
    pub(crate) fn rates(runs: &[Self]) -> Figure {
        Figure::over(runs, |run| run.rate)
    }

    /// Fails if a call did not succeed.
    pub(crate) fn check<'a>(runs: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        let errors: Vec<_> = runs.into_iter().flat_map(|run| &run.errors).collect();
        match errors.first() {
            Some(first) => bail!("{} calls failed, the first one: {first}", errors.len()),
            None => Ok(()),
        }
    }
}

/// What became of one client's calls.
#[derive(Debug, Default)]
struct Sent {
    times: Vec<Duration>,
    in_time: usize,
    errors: Vec<String>,
}

impl Sender {
    async fn send_until(mut self, deadline: Instant) -> (Self, Sent) {
        let mut sent = Sent::default();
        loop {
            let began = Instant::now();
            let Some(request) = self.requests.next().filter(|_| began < deadline) else {
                return (self, sent);
            };
            let answer = self.connection.call(&request).await;
            match answer.map(|response| response.status) {
                Ok(200..300) => {
                    sent.times.push(began.elapsed());
                    sent.in_time += usize::from(Instant::now() <= deadline);
                    continue;
                }
                Ok(status) => sent.errors.push(status.to_string()),
                Err(error) => {
                    sent.errors.push(error.to_string());
                    if let Err(error) = self.reconnect().await {
                        sent.errors.push(error.to_string());
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn reconnect(&mut self) -> io::Result<()> {
        self.connection = KeepAlive::connect(self.address).await?;
        Ok(())
    }
}
