//! T4: PostgreSQL is lost, and a standby takes over or a copy from earlier is restored.

use std::time::Duration;

use anyhow::Result;
use devdb::{Postgres, Proxy, Scratch};
use tokio::task::block_in_place;

use crate::{
    checker::Durability,
    report::Row,
    stage::{Options, Stage},
};

/// How soon after the database is there a send succeeds.
const BACK: Duration = Duration::from_secs(3);
const TALK: Duration = Duration::from_secs(3);

/// Everything is on the standby before it is acknowledged.
pub(super) async fn synchronous(options: &Options) -> Result<Row> {
    let mut site = Site::start(options).await?;
    let replication = Proxy::start(site.stage.cluster.postgres.address()).await?;
    let home = site.scratch.path().join("standby");
    let standby = site.stage.cluster.postgres.standby(&home, replication.address()).await?;
    site.stage.cluster.postgres.commit_to_standby().await?;
    site.stage.quiet(TALK).await;
    site.stage.cluster.postgres.kill()?;
    site.take_over(standby).await
}

/// The standby is a moment behind.
pub(super) async fn asynchronous(options: &Options) -> Result<Row> {
    let mut site = Site::start(options).await?;
    site.stage.durability = Durability::UpToReset;
    let replication = Proxy::start(site.stage.cluster.postgres.address()).await?;
    let home = site.scratch.path().join("standby");
    let standby = site.stage.cluster.postgres.standby(&home, replication.address()).await?;
    site.stage.quiet(TALK).await;
    replication.black_hole(true);
    site.stage.quiet(TALK / 3).await;
    site.stage.cluster.postgres.kill()?;
    replication.cut();
    site.take_over(standby).await
}

/// A copy of the data is from some time ago.
pub(super) async fn restored(options: &Options) -> Result<Row> {
    let mut site = Site::start(options).await?;
    site.stage.durability = Durability::UpToReset;
    let copy = site.scratch.path().join("copy");
    site.stage.quiet(TALK).await;
    site.stage.cluster.postgres.kill()?;
    Postgres::copy(&site.home(), &copy)?;
    block_in_place(|| site.stage.cluster.postgres.restart())?;
    site.database.retarget(site.stage.cluster.postgres.address());
    site.stage.quiet(TALK).await;
    site.stage.cluster.postgres.kill()?;
    let restored = block_in_place(|| Postgres::in_scratch_folder(&copy))?;
    site.change_to(restored).await
}

/// A stage whose database can be another one.
struct Site {
    stage: Stage,
    database: Proxy,
    // After the servers in it.
    scratch: Scratch,
}

impl Site {
    async fn start(options: &Options) -> Result<Self> {
        let scratch = Scratch::new()?;
        let postgres = Postgres::in_scratch_folder(&scratch.path().join("primary"))?;
        let database = Proxy::start(postgres.address()).await?;
        let cluster = options.setup(2, 2).start_on(postgres, database.address()).await?;
        let stage = options.stage_on(cluster, options.cast()).await?;
        Ok(Self { stage, database, scratch })
    }

    fn home(&self) -> std::path::PathBuf {
        self.scratch.path().join("primary")
    }

    async fn take_over(self, standby: Postgres) -> Result<Row> {
        standby.promote()?;
        self.change_to(standby).await
    }

    async fn change_to(mut self, other: Postgres) -> Result<Row> {
        self.database.retarget(other.address());
        self.database.cut();
        self.stage.cluster.postgres = other;
        self.stage.times += 1;
        let took = self.stage.load.next_acknowledged().await;
        self.stage.delays.recovery("send", took, BACK);
        self.stage.quiet(TALK).await;
        self.stage.finish().await
    }
}
