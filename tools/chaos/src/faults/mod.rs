//! The faults, a file for each family.

mod clocks;
mod disk;
mod doorbell;
mod edits;
mod failover;
mod frozen;
mod greedy;
mod members;
mod network;
mod notifier;
mod ordering;
mod overload;
mod postgres;
mod refresh;
mod server;
mod stalled;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    disk::SmallDisk,
    report::{Played, Row},
    stage::Options,
};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Fault {
    /// `fechatter_server` is killed.
    T1,
    /// PostgreSQL is killed, and connections to it are ended.
    T2,
    /// `notify_server` is killed.
    T3,
    /// A synchronous standby takes over.
    T4,
    /// An asynchronous standby takes over.
    T4B,
    /// A copy of the database is restored.
    T4C,
    /// The network is cut, silent and slow.
    T5,
    /// Writers take their time, and a reader looks all the time.
    T6,
    /// People are added, removed, suspended and signed out.
    T7,
    /// The doorbell is muted.
    T8,
    /// There is no room for the doorbell's notifications.
    T8B,
    /// A process stands still.
    T9,
    /// The disk of the files is full, and uploads are cut off.
    T10,
    /// The disk of the database is full.
    T10B,
    /// The disk of the database's write-ahead log is full.
    T10C,
    /// Half of the clients do not read.
    T11,
    /// The processes' clocks are hours apart.
    T14,
    /// Refresh tokens are used at the same time, again, and by thieves.
    T13,
    /// More is asked than can be served.
    T16,
    /// Five people of one workspace ask for all that they can get.
    T18,
    /// Messages are edited and deleted.
    T19,
}

impl Fault {
    /// Those of a quick run.
    pub const QUICK: &[Self] = &[
        Self::T1,
        Self::T2,
        Self::T3,
        Self::T6,
        Self::T7,
        Self::T8,
        Self::T10,
        Self::T13,
        Self::T16,
        Self::T18,
        Self::T19,
    ];
    /// The full schedule.
    pub const ALL: &[Self] = &[
        Self::T1,
        Self::T2,
        Self::T3,
        Self::T4,
        Self::T4B,
        Self::T4C,
        Self::T5,
        Self::T6,
        Self::T7,
        Self::T8,
        Self::T8B,
        Self::T9,
        Self::T10,
        Self::T10B,
        Self::T10C,
        Self::T11,
        Self::T13,
        Self::T14,
        Self::T16,
        Self::T18,
        Self::T19,
    ];

    /// In the table.
    #[must_use]
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::T1 => ["T1", "fechatter_server killed"],
            Self::T2 => ["T2", "PostgreSQL killed, connections ended"],
            Self::T3 => ["T3", "notify_server killed"],
            Self::T4 => ["T4", "failover, synchronous"],
            Self::T4B => ["T4b", "failover, asynchronous"],
            Self::T4C => ["T4c", "backup restored"],
            Self::T5 => ["T5", "network cut, silent, slow"],
            Self::T6 => ["T6", "ordering torture"],
            Self::T7 => ["T7", "rights taken away"],
            Self::T8 => ["T8", "doorbell off"],
            Self::T8B => ["T8b", "NOTIFY queue full"],
            Self::T9 => ["T9", "processes frozen"],
            Self::T10 => ["T10", "disk of the files full"],
            Self::T10B => ["T10b", "disk of the database full"],
            Self::T10C => ["T10c", "disk of the WAL full"],
            Self::T11 => ["T11", "clients that do not read"],
            Self::T14 => ["T14", "clocks apart"],
            Self::T13 => ["T13", "refresh tokens"],
            Self::T16 => ["T16", "overload"],
            Self::T18 => ["T18", "a greedy tenant"],
            Self::T19 => ["T19", "edits and deletions"],
        }
    }

    /// Plays it from beginning to end.
    pub async fn play(self, options: &Options) -> Played {
        let [id, _] = self.names();
        let options = Options { logs: options.logs.join(id), ..options.clone() };
        match self.played(&options).await {
            Ok(played) => played,
            Err(error) => Played::Broken(error),
        }
    }

    async fn played(self, options: &Options) -> Result<Played> {
        if self == Self::T8B && !doorbell::has_small_queue(options).await? {
            return Ok(Played::NotRun("needs PostgreSQL 17 or newer".into()));
        }
        if self == Self::T14 && clocks::library().is_none() {
            return Ok(Played::NotRun("needs libfaketime (apt-get install faketime)".into()));
        }
        if matches!(self, Self::T10 | Self::T10B | Self::T10C) && !SmallDisk::is_possible() {
            return Ok(Played::NotRun("needs the right to mount a small disk".into()));
        }
        Ok(Played::Row(Box::new(self.row(options).await?)))
    }

    async fn row(self, options: &Options) -> Result<Row> {
        match self {
            Self::T1 => server::killed(options).await,
            Self::T2 => postgres::killed(options).await,
            Self::T3 => notifier::killed(options).await,
            Self::T4 => failover::synchronous(options).await,
            Self::T4B => failover::asynchronous(options).await,
            Self::T4C => failover::restored(options).await,
            Self::T5 => network::cut(options).await,
            Self::T6 => ordering::tortured(options).await,
            Self::T7 => members::changed(options).await,
            Self::T8 => doorbell::muted(options).await,
            Self::T8B => doorbell::full(options).await,
            Self::T9 => frozen::still(options).await,
            Self::T10 => disk::of_files(options).await,
            Self::T10B => disk::of_data(options).await,
            Self::T10C => disk::of_write_ahead_log(options).await,
            Self::T11 => stalled::ignored(options).await,
            Self::T14 => clocks::apart(options).await,
            Self::T13 => refresh::raced(options).await,
            Self::T16 => overload::flooded(options).await,
            Self::T18 => greedy::shared(options).await,
            Self::T19 => edits::changed(options).await,
        }
    }
}

/// What a healthy start of a process may take, on a machine that is busy.
const STARTING: Duration = Duration::from_secs(30);
