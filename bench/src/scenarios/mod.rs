//! What is measured.

mod deliver;
mod fanout;
mod prune;
mod resume;
mod storm;
mod sync;

use anyhow::Result;
use clap::ValueEnum;

use crate::{report::Report, stage::Stage};

/// Each starts servers of its own.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Scenario {
    /// One message a second to 1,000 and to 5,000 streams
    Fanout,
    /// 5,000 streams that all come back at once
    Storm,
    /// 5,000 missed events, from memory and from the database
    Resume,
    /// 50 messages a second to 100 streams
    Deliver,
    /// `GET /api/sync` among 10,000 people, in 500 chats
    Sync,
    /// Sends while 200,000 old events are removed
    Prune,
}

impl Scenario {
    pub(crate) const ALL: &[Self] =
        &[Self::Fanout, Self::Storm, Self::Resume, Self::Deliver, Self::Sync, Self::Prune];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Storm => "storm",
            Self::Resume => "resume",
            Self::Deliver => "deliver",
            Self::Sync => "sync",
            Self::Prune => "prune",
        }
    }

    pub(crate) async fn run(self, stage: &Stage, report: &mut Report) -> Result<()> {
        match self {
            Self::Fanout => fanout::run(stage, report).await,
            Self::Storm => storm::run(stage, report).await,
            Self::Resume => resume::run(stage, report).await,
            Self::Deliver => deliver::run(stage, report).await,
            Self::Sync => sync::run(stage, report).await,
            Self::Prune => prune::run(stage, report).await,
        }
    }
}
