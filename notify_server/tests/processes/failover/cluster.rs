//! A database and its standby, which servers go on reaching at the same address when the one takes over from the other.

use std::sync::Arc;

use devdb::{Postgres, Proxy, Scratch};
use tokio::task::spawn_blocking;

/// Whether commits wait for the standby.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    Here,
    OnStandby,
}

/// Whoever uses it is to be dropped before it.
pub(crate) struct Cluster {
    /// Between the servers and whichever database is theirs.
    database: Proxy,
    /// Between the primary and its standby.
    pub(crate) replication: Proxy,
    pub(crate) primary: Postgres,
    pub(crate) standby: Arc<Postgres>,
    _scratch: Scratch,
}

impl Cluster {
    pub(crate) async fn start(commits: Commits) -> Self {
        let scratch = Scratch::new().unwrap();
        let primary = Postgres::in_scratch_folder(&scratch.path().join("primary")).unwrap();
        let database = Proxy::start(primary.address()).await.unwrap();
        let replication = Proxy::start(primary.address()).await.unwrap();
        let home = scratch.path().join("standby");
        let standby = primary.standby(&home, replication.address()).await.unwrap();
        if commits == Commits::OnStandby {
            primary.commit_to_standby().await.unwrap();
        }
        let standby = Arc::new(standby);
        Self { database, replication, primary, standby, _scratch: scratch }
    }

    /// Where servers reach whichever database is theirs.
    pub(crate) fn url(&self) -> String {
        self.primary.url_through(self.database.address(), "postgres")
    }

    /// The standby stops hearing from the primary, for good or for now.
    pub(crate) async fn loses_what_follows(&self) {
        self.standby.catch_up_with(&self.primary).await.unwrap();
        self.replication.black_hole(true);
    }

    /// The primary crashes, and the standby takes over with what it has.
    pub(crate) async fn fails_over(&mut self) {
        self.primary.kill().unwrap();
        let standby = Arc::clone(&self.standby);
        spawn_blocking(move || standby.promote()).await.unwrap().unwrap();
        self.database.retarget(self.standby.address());
        self.database.cut();
    }
}
