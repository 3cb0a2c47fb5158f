//! What is measured.

mod backup;
mod change;
mod deliver;
mod fanout;
mod files;
mod growth;
mod history;
mod mixed;
mod prune;
mod read;
mod resume;
mod send;
mod sidebar;
mod signin;
mod start;
mod storm;
mod sync;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use fechatter_core::ChatId;
use rig::{Cluster, KeepAlive, Person};

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
    /// 1,000 streams in 50 rooms, of whom 64 people send
    Mixed,
    /// Marks of 64 people who read
    Read,
    /// Reactions of 64 people
    React,
    /// Edits of 64 people
    Edit,
    /// Uploads and downloads, and sends beside them
    Files,
    /// 5,000 streams that all come back at once
    Storm,
    /// 5,000 missed events, from memory and from the database
    Resume,
    /// `GET /api/sync` among 10,000 people, in 500 chats
    Sync,
    /// Pages of a chat of a million messages
    History,
    /// `GET /api/chat` in 500 chats, among 10 million messages
    Sidebar,
    /// What a message costs among 10 million others
    Growth,
    /// Sign-ins, and what a flood of them does to sends
    Signin,
    /// Sends while 200,000 old events are removed
    Prune,
    /// Sends while a snapshot is open for a minute
    Backup,
    /// How soon the servers are ready, and what they take idle
    Start,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Deliver => "deliver",
            Self::Fanout => "fanout",
            Self::Mixed => "mixed",
            Self::Read => "read",
            Self::React => "react",
            Self::Edit => "edit",
            Self::Files => "files",
            Self::Storm => "storm",
            Self::Resume => "resume",
            Self::Sync => "sync",
            Self::History => "history",
            Self::Sidebar => "sidebar",
            Self::Growth => "growth",
            Self::Signin => "signin",
            Self::Prune => "prune",
            Self::Backup => "backup",
            Self::Start => "start",
        }
    }

    pub(crate) async fn run(self, stage: &Stage, report: &mut Report) -> Result<()> {
        match self {
            Self::Send => send::run(stage, report).await,
            Self::Deliver => deliver::run(stage, report).await,
            Self::Fanout => fanout::run(stage, report).await,
            Self::Mixed => mixed::run(stage, report).await,
            Self::Read => read::run(stage, report).await,
            Self::React => change::run_reactions(stage, report).await,
            Self::Edit => change::run_edits(stage, report).await,
            Self::Files => files::run(stage, report).await,
            Self::Storm => storm::run(stage, report).await,
            Self::Resume => resume::run(stage, report).await,
            Self::Sync => sync::run(stage, report).await,
            Self::History => history::run(stage, report).await,
            Self::Sidebar => sidebar::run(stage, report).await,
            Self::Growth => growth::run(stage, report).await,
            Self::Signin => signin::run(stage, report).await,
            Self::Prune => prune::run(stage, report).await,
            Self::Backup => backup::run(stage, report).await,
            Self::Start => start::run(stage, report).await,
        }
    }
}

/// So many rooms of ten people, and senders spread over them.
async fn seats(cluster: &Cluster, rooms: usize, senders: usize) -> Result<Vec<(Person, ChatId)>> {
    let people = cluster.town.workspace("rooms", rooms * 10).await?.people;
    let mut seats = Vec::new();
    for (number, members) in people.chunks(10).enumerate() {
        let everybody: Vec<_> = members.iter().collect();
        let chat = cluster.town.channel(&format!("room {number}"), &everybody).await?;
        seats.extend(members.iter().enumerate().map(|(turn, member)| (turn, member.clone(), chat)));
    }
    // Everybody's first, then everybody's second.
    seats.sort_by_key(|(turn, ..)| *turn);
    Ok(seats.into_iter().take(senders).map(|(_, person, chat)| (person, chat)).collect())
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
