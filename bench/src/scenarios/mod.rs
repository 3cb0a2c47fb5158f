//! What is measured.

mod deliver;
mod fanout;
mod prune;
mod resume;
mod send;
mod storm;
mod sync;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rig::KeepAlive;

use crate::{report::Report, stage::Stage, timed::Timed};

/// Each starts servers of its own, and has its targets at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// As many messages as 1 to 256 senders can send
    Send,
    /// 50 messages a second to 100 streams
    Deliver,
    /// Messages to 1,000 and to 5,000 streams, sparse and as fast as it goes
    Fanout,
    /// 5,000 streams that all come back at once
    Storm,
    /// 5,000 missed events, from memory and from the database
    Resume,
    /// `GET /api/sync` among 10,000 people, in 500 chats
    Sync,
    /// Sends while 200,000 old events are removed
    Prune,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Deliver => "deliver",
            Self::Fanout => "fanout",
            Self::Storm => "storm",
            Self::Resume => "resume",
            Self::Sync => "sync",
            Self::Prune => "prune",
        }
    }

    pub(crate) async fn run(self, stage: &Stage, report: &mut Report) -> Result<()> {
        match self {
            Self::Send => send::run(stage, report).await,
            Self::Deliver => deliver::run(stage, report).await,
            Self::Fanout => fanout::run(stage, report).await,
            Self::Storm => storm::run(stage, report).await,
            Self::Resume => resume::run(stage, report).await,
            Self::Sync => sync::run(stage, report).await,
            Self::Prune => prune::run(stage, report).await,
        }
    }
}

const WARM_UP: usize = 3;

/// How long each of the requests takes, to the last byte of its answer, asked so often in turn.
async fn asked(connection: &mut KeepAlive, requests: &[String], times: usize) -> Result<Timed> {
    let mut took = Vec::new();
    for round in 0..WARM_UP + times {
        for request in requests {
            let time = ask(connection, request).await?;
            if round >= WARM_UP {
                took.push(time);
            }
        }
    }
    Timed::new(took).context("nothing was asked")
}

async fn ask(connection: &mut KeepAlive, request: &str) -> Result<Duration> {
    let began = Instant::now();
    let status = connection.call(request).await?.status;
    ensure!(status == 200, "{:?} was answered with {status}", request.lines().next());
    Ok(began.elapsed())
}
