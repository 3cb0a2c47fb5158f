//! The trials of what a client does when it gets no stream, or not the one that it asked for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rig::{Cluster, Connection, Person, Target};
use tokio::time::{sleep, sleep_until};

use crate::{
    client::{Client, Clients, Running},
    conversation::Conversation,
    observed::Observed,
    tap::Tap,
};

/// Time for a browser to start, and for the first event.
const STARTING: Duration = Duration::from_secs(30);
/// A token that is good for this long is good until the client has its stream.
const TOKEN: Duration = Duration::from_secs(12);
/// The time for which requests after a refusal are counted.
const COUNTING: Duration = Duration::from_secs(10);
/// The time that a client that is refused has to come back once it would be admitted.
const COMING_BACK: Duration = Duration::from_secs(15);
/// The time for which the server seems to be down.
const DOWN: Duration = Duration::from_secs(3);
/// The limits of one person in the cluster.
pub(crate) const STREAMS_PER_USER: usize = 10;

/// The acts of a client, in words, and those of them that are against the contract.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    pub(crate) expired_token: String,
    pub(crate) bad_cursor: String,
    pub(crate) too_many_streams: String,
    pub(crate) bad_gateway: String,
    pub(crate) problems: Vec<String>,
}

/// Everything that the trials of one client need.
pub(crate) struct Trial<'a> {
    pub(crate) client: Client,
    pub(crate) clients: &'a Clients,
    pub(crate) cluster: &'a Cluster,
}

impl Trial<'_> {
    pub(crate) async fn play(&self) -> Result<Refusals> {
        let mut refusals = Refusals::default();
        refusals.expired_token = self.expired_token(&mut refusals.problems).await?;
        refusals.bad_cursor = self.bad_cursor(&mut refusals.problems).await?;
        refusals.too_many_streams = self.too_many_streams(&mut refusals.problems).await?;
        refusals.bad_gateway = self.bad_gateway().await?;
        Ok(refusals)
    }

    async fn expired_token(&self, problems: &mut Vec<String>) -> Result<String> {
        let conversation = self.conversation("expired").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let ends = i64::try_from((now + TOKEN).as_secs())?;
        let token = self.cluster.town.token_until(&conversation.receiver, ends)?;
        let tap = self.tap().await?;
        let running = self.start("expired", &tap, "", &token)?;
        let ready = |observed: &Observed| observed.time_of_event("Ready").is_some();
        ensure!(running.observed.wait(TOKEN, ready).await, "there was no stream in time");
        let goodbye = |observed: &Observed| observed.time_of_event("Goodbye").is_some();
        if !running.observed.wait(TOKEN + Duration::from_secs(3), goodbye).await {
            problems.push("no Goodbye for an expired token".to_owned());
        }
        let refused = self.refused(&tap, 401).await;
        let Some(refused) = refused else {
            return Ok("`Goodbye`; does not ask again".to_owned());
        };
        sleep_until((refused + COUNTING).into()).await;
        let asked = asked_since(&tap, refused);
        Ok(format!("`Goodbye`, then 401: {}", reaction(&running, asked)))
    }

    async fn bad_cursor(&self, problems: &mut Vec<String>) -> Result<String> {
        let conversation = self.conversation("cursor").await?;
        let tap = self.tap().await?;
        let running = self.start("cursor", &tap, "?cursor=nonsense", token(&conversation))?;
        let ready = |observed: &Observed| observed.time_of_event("Ready").is_some();
        let came = running.observed.wait(STARTING, ready).await;
        let events = running.observed.events();
        if events.first().is_none_or(|event| event != "Reset") {
            problems.push(format!("a bad cursor was answered by {events:?}"));
        }
        if !came {
            let times = tap.asked().len();
            return Ok(format!("`Reset`, no `Ready` ({times} requests)"));
        }
        conversation.send("after the reset").await?;
        let message = |observed: &Observed| !observed.messages().is_empty();
        let goes_on = running.observed.wait(Duration::from_secs(5), message).await;
        if !goes_on {
            problems.push("no message comes after a Reset".to_owned());
        }
        let times = tap.asked().len();
        Ok(format!("`Reset`, then `Ready` and new events ({times} requests)"))
    }

    async fn too_many_streams(&self, problems: &mut Vec<String>) -> Result<String> {
        let conversation = self.conversation("429").await?;
        let held = self.hold_all(&conversation.receiver).await?;
        let tap = self.tap().await?;
        let running = self.start("429", &tap, "", token(&conversation))?;
        let Some(refused) = self.refused(&tap, 429).await else {
            problems.push("a stream too many was not answered by 429".to_owned());
            return Ok(format!("no 429: {:?}", tap.asked()));
        };
        sleep_until((refused + COUNTING).into()).await;
        let reaction = reaction(&running, asked_since(&tap, refused));
        drop(held);
        let ready = |observed: &Observed| observed.time_of_event("Ready").is_some();
        let came = running.observed.wait(COMING_BACK, ready).await;
        let after = if came { "gets its stream afterwards" } else { "never gets a stream" };
        Ok(format!("{reaction}; {after}"))
    }

    /// The end of a stream whose proxy says that its server is down.
    async fn bad_gateway(&self) -> Result<String> {
        let conversation = self.conversation("502").await?;
        let tap = self.tap().await?;
        let running = self.start("502", &tap, "", token(&conversation))?;
        let ready = |observed: &Observed| observed.time_of_event("Ready").is_some();
        ensure!(running.observed.wait(STARTING, ready).await, "there was no stream in time");
        tap.down(true);
        tap.cut();
        let refused =
            self.refused(&tap, 502).await.context("the stream was not asked for again")?;
        sleep_until((refused + DOWN).into()).await;
        tap.down(false);
        conversation.send("after 502").await?;
        let message = |observed: &Observed| !observed.messages().is_empty();
        let came = running.observed.wait(COMING_BACK, message).await;
        let reaction = if came { "comes back" } else { "stops" };
        Ok(reaction.to_owned())
    }

    /// Two people of whom nobody else hears.
    async fn conversation(&self, trial: &str) -> Result<Conversation> {
        let name = format!("{:?} {trial}", self.client);
        Conversation::begin(self.cluster, &name, None).await
    }

    async fn tap(&self) -> Result<Tap> {
        Ok(Tap::start(self.cluster.notifiers[0].address()).await?)
    }

    fn start(&self, trial: &str, tap: &Tap, query: &str, token: &str) -> Result<Running> {
        let url = format!("http://{}/events{query}", tap.address);
        let run = format!("{:?}-{trial}", self.client);
        self.clients.start(self.client, &run, [&url, token])
    }

    /// Opens as many streams as one person may have.
    async fn hold_all(&self, person: &Person) -> Result<Vec<Connection>> {
        let mut held = Vec::new();
        for _ in 0..STREAMS_PER_USER {
            let target = Target {
                address: self.cluster.notifiers[0].address(),
                token: &person.token,
                cursor: None,
                receive_buffer: None,
            };
            let opened = Connection::open(target).await;
            held.push(opened.ok().context("there is no stream to hold")?);
        }
        Ok(held)
    }

    /// When the client was first answered with this status.
    async fn refused(&self, tap: &Tap, status: u16) -> Option<Instant> {
        let deadline = Instant::now() + STARTING;
        while Instant::now() < deadline {
            let found = tap.asked().into_iter().find(|asked| asked.status == Some(status));
            if found.is_some() {
                return found.map(|asked| asked.at);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

fn token(conversation: &Conversation) -> &str {
    &conversation.receiver.token
}

/// The number of requests after this one, within the time of counting.
fn asked_since(tap: &Tap, refused: Instant) -> usize {
    let asked = tap.asked().into_iter();
    asked.filter(|asked| asked.at > refused && asked.at <= refused + COUNTING).count()
}

fn reaction(running: &Running, asked: usize) -> String {
    match (running.observed.stopped(), asked) {
        (Some(why), 0) if why.is_empty() => "stops".to_owned(),
        (Some(why), 0) => format!("sees `{}`, stops", first_part(&why)),
        (Some(why), asked) => format!("asks again {asked} times, then stops: {why}"),
        (None, 0) => "does not ask again".to_owned(),
        (None, asked) => {
            let times = if asked == 1 { "once".to_owned() } else { format!("{asked} times") };
            let known = match running.observed.last_end().unwrap_or_default() {
                text if text.is_empty() => "does not see the status".to_owned(),
                text => format!("sees `{}`", first_part(&text)),
            };
            format!("{known}, asks again {times} in {} s", COUNTING.as_secs())
        }
    }
}

/// Messages of libraries are long.
fn first_part(text: &str) -> &str {
    text.split_once(',').map_or(text, |(first, _)| first)
}
