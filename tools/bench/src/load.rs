//! Senders of which each sends its next message as soon as the last one is answered.

use std::{
    io,
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

/// Somebody who sends to a chat, over a connection of their own.
#[derive(Debug)]
struct Sender {
    connection: KeepAlive,
    address: SocketAddr,
    person: Person,
    chat: ChatId,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Senders(Vec<Sender>);

/// What came of a while of sending.
#[derive(Debug)]
pub(crate) struct Run {
    /// Of the messages that were acknowledged.
    pub(crate) times: Timed,
    /// How many were acknowledged a second.
    pub(crate) rate: f64,
    /// Milliseconds of processors' time a message: a Fechatter's, and ours.
    pub(crate) cpu: f64,
    pub(crate) generator_cpu: f64,
    /// What was answered instead of 201.
    pub(crate) errors: Vec<String>,
}

impl Senders {
    /// Connects them, each with a session of their own.
    pub(crate) async fn connect(cluster: &Cluster, seats: &[(Person, ChatId)]) -> Result<Self> {
        let address = cluster.servers[0].address();
        let mut senders = Vec::new();
        for (person, chat) in seats {
            let person = cluster.town.sign_in_again(person).await?;
            let connection = KeepAlive::connect(address).await?;
            senders.push(Sender { connection, address, person, chat: *chat });
        }
        Ok(Self(senders))
    }

    /// Lets them all send for so long.
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
        // The last ones were answered after the deadline: they cost something, and count for no rate.
        let spent = Usage::of(cluster)?.since(before);
        let messages = as_f64(times.len());
        let milliseconds = |spent: Duration| spent.as_secs_f64() * 1000.0 / messages;
        Ok(Run {
            rate: as_f64(in_time) / (deadline - began).as_secs_f64(),
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

    /// Fails if anything but 201 was answered.
    pub(crate) fn check<'a>(runs: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        let errors: Vec<_> = runs.into_iter().flat_map(|run| &run.errors).collect();
        match errors.first() {
            Some(first) => bail!("{} messages were not sent, the first one: {first}", errors.len()),
            None => Ok(()),
        }
    }
}

/// What became of one sender's messages.
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
            let request = self.person.raw_send_message_request(self.chat, CONTENT, Uuid::new_v4());
            let began = Instant::now();
            if began >= deadline {
                return (self, sent);
            }
            let answer = self.connection.call(&request).await;
            match answer.map(|response| response.status) {
                Ok(201) => {
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
