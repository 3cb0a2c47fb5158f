//! Where scenarios play: one of each server, on a durable PostgreSQL of their own.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use rig::{Cluster, Programs, Setup};
use tokio::sync::OnceCell;

use crate::large::Large;

/// How to start servers, and how much is asked of them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    /// The folder for what the servers say.
    pub(crate) logs: PathBuf,
    /// A tenth of everything, for a short time.
    pub(crate) quick: bool,
    /// What takes minutes to make is made once.
    pub(crate) large: OnceCell<Large>,
}

impl Stage {
    /// Starts both servers with an empty database.
    pub(crate) async fn start(&self, environment: &[(&str, &str)]) -> Result<Cluster> {
        let lifted = [("FECHATTER__NOTIFY__STREAMS", "100000")];
        let environment = lifted.iter().chain(environment);
        Setup {
            programs: self.programs.clone(),
            servers: 1,
            notifiers: 1,
            logs: self.logs.clone(),
            environment: environment.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            // Enough for the limits, which have a connection for each sender.
            settings: vec!["max_connections=400".to_owned()],
        }
        .start()
        .await
    }

    /// A workspace of 1,000 people and 10 million messages.
    pub(crate) async fn large(&self) -> Result<&Large> {
        self.large.get_or_try_init(|| Large::new(self, 1_000, self.count(20_000))).await
    }

    /// So many, or a tenth of it.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// So many seconds, or 5.
    pub(crate) fn seconds(&self, full: u32) -> u32 {
        if self.quick { full.min(5) } else { full }
    }

    /// How often something is repeated, each time for so long.
    pub(crate) fn repetitions(&self, full: usize, each: Duration) -> (usize, Duration) {
        if self.quick { (1, each.min(Duration::from_secs(1))) } else { (full, each) }
    }
}
