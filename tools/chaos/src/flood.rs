//! Very many senders, each over a connection of its own, who take no answer for a reason to slow down.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fechatter_core::ChatId;
use rig::{Cluster, KeepAlive, Person};
use sqlx::query_scalar;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use crate::delays::Times;

/// Nobody's limit for one workspace is to be what stops them.
const WORKSPACES: usize = 4;
const MEMBERS: usize = 10;
/// How long a connection may rest before it is made anew: half of what the servers allow.
const IDLE: Duration = Duration::from_secs(5);
const CONTENT: &str =
    "Hello, is anybody there? It has been quiet in here for a while, and I have a question or two.";

/// All of them.
#[derive(Debug)]
pub struct Flood {
    senders: Vec<Sender>,
    acknowledged: Vec<Uuid>,
}

#[derive(Debug)]
struct Sender {
    address: SocketAddr,
    connection: KeepAlive,
    used: Instant,
    person: Person,
    chat: ChatId,
}

/// What came of a while of sending: from the beginning of each call to its answer.
#[derive(Debug, Default)]
pub struct Tally {
    /// The while.
    pub duration: Duration,
    /// Answered with 201.
    pub admitted: Times,
    /// Answered with 429 or 503.
    pub refused: Times,
}

/// What one sender was answered.
#[derive(Debug, Default)]
struct Answers {
    /// With the messages' keys.
    admitted: Vec<(Uuid, Duration)>,
    refused: Vec<Duration>,
    other: Vec<String>,
}

impl Flood {
    /// Connects so many senders, in turn to each server.
    ///
    /// # Errors
    /// When the database fails, or nobody listens.
    pub async fn connect(cluster: &Cluster, senders: usize) -> Result<Self> {
        let mut seats = Vec::new();
        for number in 0..WORKSPACES {
            let workspace = cluster.town.workspace(&format!("Crowd {number}"), MEMBERS).await?;
            let members: Vec<_> = workspace.people.iter().collect();
            let chat = cluster.town.channel("crowd", &members).await?;
            seats.extend(workspace.people.into_iter().map(|person| (person, chat)));
        }
        let mut connected = Vec::new();
        for number in 0..senders {
            let address = cluster.servers[number % cluster.servers.len()].address();
            let (person, chat) = seats[number % seats.len()].clone();
            let connection = KeepAlive::connect(address).await?;
            connected.push(Sender { address, connection, used: Instant::now(), person, chat });
        }
        Ok(Self { senders: connected, acknowledged: Vec::new() })
    }

    /// Lets some of them send for a while, each one its next message as soon as it has an answer.
    ///
    /// # Errors
    /// When something else was answered than 201, 429 or 503.
    pub async fn send(&mut self, senders: usize, duration: Duration) -> Result<Tally> {
        self.run(senders, None, duration).await
    }

    /// Lets all of them together send so many messages a second, as far as they are answered in time for that.
    ///
    /// # Errors
    /// When something else was answered than 201, 429 or 503.
    pub async fn send_at(&mut self, per_second: f64, duration: Duration) -> Result<Tally> {
        ensure!(per_second > 0.0, "nothing can be sent");
        let pace = Duration::from_secs(1).div_f64(per_second);
        let all = self.senders.len();
        self.run(all, Some(pace * u32::try_from(all)?), duration).await
    }

    async fn run(
        &mut self,
        senders: usize,
        pace: Option<Duration>,
        duration: Duration,
    ) -> Result<Tally> {
        let deadline = Instant::now() + duration;
        let mut open = JoinSet::new();
        for sender in self.senders.drain(..senders) {
            open.spawn(sender.insist(pace, deadline));
        }
        let mut all = Answers::default();
        while let Some(answered) = open.join_next().await {
            let (sender, answers) = answered?;
            self.senders.push(sender);
            all.admitted.extend(answers.admitted);
            all.refused.extend(answers.refused);
            all.other.extend(answers.other);
        }
        ensure!(
            all.other.is_empty(),
            "{} messages were answered with neither 201, 429 nor 503, the first one: {}",
            all.other.len(),
            all.other[0]
        );
        let (keys, admitted): (Vec<_>, Vec<_>) = all.admitted.into_iter().unzip();
        self.acknowledged.extend(keys);
        let (admitted, refused) = (admitted.into_iter(), all.refused.into_iter());
        Ok(Tally { duration, admitted: admitted.collect(), refused: refused.collect() })
    }

    /// Whether each message that was acknowledged is there, once.
    ///
    /// # Errors
    /// When it is not, or the database fails.
    pub async fn check(&self, cluster: &Cluster) -> Result<()> {
        let stored: i64 = query_scalar(
            "select count(*) from unnest($1) as key join messages on idempotency_key = key",
        )
        .bind(&self.acknowledged)
        .fetch_one(&cluster.db)
        .await?;
        let acknowledged = self.acknowledged.len();
        ensure!(
            usize::try_from(stored)? == acknowledged,
            "{acknowledged} messages were acknowledged and {stored} are there"
        );
        Ok(())
    }
}

impl Tally {
    /// Messages acknowledged a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        per_second(self.admitted.count(), self.duration)
    }

    /// Messages handed in a second.
    #[must_use]
    pub fn offered(&self) -> f64 {
        per_second(self.admitted.count() + self.refused.count(), self.duration)
    }
}

impl Sender {
    async fn insist(mut self, pace: Option<Duration>, deadline: Instant) -> (Self, Answers) {
        let mut answers = Answers::default();
        let mut ticks = pace.map(interval);
        if let (Some(pace), Some(ticks)) = (pace, &mut ticks) {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // Not all at the same moment.
            sleep(pace.mul_f64(rand::random())).await;
        }
        loop {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            if Instant::now() >= deadline {
                return (self, answers);
            }
            if let Err(error) = self.freshen().await {
                answers.other.push(error.to_string());
                return (self, answers);
            }
            let began = Instant::now();
            let key = Uuid::new_v4();
            let request = self.person.raw_send_message_request(self.chat, CONTENT, key);
            let answer = self.connection.call(&request).await.map(|response| response.status);
            match answer {
                Ok(201) => answers.admitted.push((key, began.elapsed())),
                Ok(429 | 503) => answers.refused.push(began.elapsed()),
                Ok(status) => answers.other.push(status.to_string()),
                Err(error) => {
                    answers.other.push(error.to_string());
                    return (self, answers);
                }
            }
            self.used = Instant::now();
        }
    }

    /// Servers close connections on which nothing has been asked for a while.
    async fn freshen(&mut self) -> io::Result<()> {
        if self.used.elapsed() > IDLE {
            self.connection = KeepAlive::connect(self.address).await?;
        }
        Ok(())
    }
}

fn per_second(count: usize, duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "nobody counts beyond 2^52 messages")]
    let count = count as f64;
    count / duration.as_secs_f64()
}
