//! Calls at a steady rate, however long their answers take.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use fechatter_core::ChatId;
use reqwest::Method;
use rig::{Answer, Person};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use uuid::Uuid;

use crate::{clock::Clock, timed::Timed};

/// Makes so many calls a second until something happens; tells how long each took. The first one that fails ends it.
pub(crate) async fn calls<F>(
    a_second: u32,
    until: impl Future<Output = Result<()>>,
    call: impl Fn(usize) -> F,
) -> Result<Timed>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut ticks = interval(Duration::from_secs(1) / a_second);
    let mut open = JoinSet::new();
    let mut times = Vec::new();
    tokio::pin!(until);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            happened = &mut until => break happened?,
            Some(took) = open.join_next() => times.push(took??),
            _ = ticks.tick() => {
                open.spawn(timed(call(number)));
                number += 1;
            }
        }
    }
    while let Some(took) = open.join_next().await {
        times.push(took??);
    }
    Timed::new(times).context("there was no time for a call")
}

/// Sends so many messages a second, everybody in turn, for so many seconds.
pub(crate) async fn messages(
    clock: Clock,
    senders: &[Person],
    chat: ChatId,
    (a_second, seconds): (u32, u32),
) -> Result<Timed> {
    let until = async {
        sleep(Duration::from_secs(seconds.into())).await;
        Ok(())
    };
    calls(a_second, until, |number| send(clock, &senders[number % senders.len()], chat)).await
}

/// Sends so many messages at once, everybody in turn, and waits until all are answered.
pub(crate) async fn at_once(
    clock: Clock,
    senders: &[Person],
    chat: ChatId,
    count: usize,
) -> Result<()> {
    let senders = senders.iter().cycle().take(count);
    let mut open: JoinSet<_> = senders.map(|sender| timed(send(clock, sender, chat))).collect();
    while let Some(took) = open.join_next().await {
        took??;
    }
    Ok(())
}

/// Sends one message, whose time is that of the call.
pub(crate) fn send(
    clock: Clock,
    sender: &Person,
    chat: ChatId,
) -> impl Future<Output = Answer> + Send + use<> {
    let sender = sender.clone();
    async move { sender.send(chat, &clock.message(), Uuid::new_v4()).await }
}

/// Asks for the list of chats.
pub(crate) fn list_chats(person: &Person) -> impl Future<Output = Answer> + Send + use<> {
    let person = person.clone();
    async move { person.call(Method::GET, "/api/chat", None).await }
}

async fn timed(call: impl Future<Output = Answer>) -> Result<Duration> {
    let began = Instant::now();
    match call.await {
        Answer::Ok { .. } => Ok(began.elapsed()),
        other => bail!("a call failed: {other:?}"),
    }
}
