//! Where scenarios play: one of each server, on a durable PostgreSQL of their own.

use std::path::PathBuf;

use anyhow::Result;
use rig::{Cluster, Programs, Setup};

/// How to start servers, and how much is asked of them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    /// The folder for what the servers say.
    pub(crate) logs: PathBuf,
    /// A tenth of everything, for a short time.
    pub(crate) quick: bool,
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
            settings: Vec::new(),
        }
        .start()
        .await
    }

    /// So many, or a tenth of it.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// So many seconds, or 5.
    pub(crate) fn seconds(&self, full: u32) -> u32 {
        if self.quick { full.min(5) } else { full }
    }
}
