//! Calls at a steady rate, however long their answers take.

use std::time::Duration;

use anyhow::{Context, Result};
use fechatter_core::ChatId;
use rig::Person;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use uuid::Uuid;

use crate::{clock::Clock, pool::Pool, timed::Timed};

/// Makes so many calls a second until something happens; tells how long each took. The first one that fails ends it.
pub(crate) async fn calls<F>(
    a_second: u32,
    until: impl Future<Output = Result<()>>,
    call: impl Fn(usize) -> F,
) -> Result<Timed>
where
    F: Future<Output = Result<()>> + Send + 'static,
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

/// Something to wait for that happens after so many seconds.
pub(crate) async fn after(seconds: u32) -> Result<()> {
    sleep(Duration::from_secs(seconds.into())).await;
    Ok(())
}

/// People in a chat, and how they reach the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) clock: Clock,
    pub(crate) pool: &'a Pool,
    pub(crate) senders: &'a [Person],
    pub(crate) chat: ChatId,
}

impl Party<'_> {
    /// Sends so many messages a second, everybody in turn, for so many seconds.
    pub(crate) async fn talk(self, a_second: u32, seconds: u32) -> Result<Timed> {
        calls(a_second, after(seconds), |number| self.send(number)).await
    }

    /// Sends so many messages at once, everybody in turn, and waits until all are answered.
    pub(crate) async fn shout(self, count: usize) -> Result<()> {
        let mut open: JoinSet<_> = (0..count).map(|number| self.send(number)).collect();
        while let Some(sent) = open.join_next().await {
            sent??;
        }
        Ok(())
    }

    /// Sends one message, whose time is that of the call.
    pub(crate) fn send(self, number: usize) -> impl Future<Output = Result<()>> + Send + use<> {
        let Self { clock, pool, senders, chat } = self;
        let (pool, sender) = (pool.clone(), senders[number % senders.len()].clone());
        async move {
            pool.call(&sender.raw_send_message_request(chat, &clock.message(), Uuid::new_v4()))
                .await
        }
    }
}

async fn timed(call: impl Future<Output = Result<()>>) -> Result<Duration> {
    let began = Instant::now();
    call.await?;
    Ok(began.elapsed())
}
