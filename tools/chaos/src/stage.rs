//! Where a fault plays: a cluster with people who send and listen, and the reckoning afterwards.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fechatter_core::{ChatId, log};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use rig::{Answer, Cluster, Person, Programs, Setup, Workspace};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    audience::Audience,
    checker::{self, Durability, log::Log},
    delays::Delays,
    history::Past,
    load::{Load, Mix, Seat},
    report::Row,
    sabotage::{self, Edit},
};

/// How to play, the same for all faults.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Options {
    pub programs: Programs,
    pub quick: bool,
    pub seed: u64,
    /// For what the servers say.
    pub logs: PathBuf,
    /// For the servers.
    pub environment: Vec<(String, String)>,
    /// For PostgreSQL.
    pub settings: Vec<String>,
    /// For the functions that write batches.
    pub edit: Option<Edit>,
}

/// Who is there.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Cast {
    pub servers: usize,
    pub notifiers: usize,
    pub people: usize,
    pub chats: usize,
    /// In each chat.
    pub members: usize,
    pub streams: usize,
    /// How long a client stays before it closes its stream and comes back, on average.
    pub restless: Option<Duration>,
    pub workers: u32,
    pub sends_per_second: u32,
    pub mix: Mix,
}

/// People in their places.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Scene {
    /// Its first person owns it.
    pub workspace: Workspace,
    pub chats: Vec<(ChatId, Vec<Person>)>,
    pub listeners: Vec<Person>,
    pub seats: Vec<Seat>,
}

/// A running fault.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stage {
    pub cluster: Cluster,
    pub workspace: Workspace,
    /// With their members; the first owns it.
    pub chats: Vec<(ChatId, Vec<Person>)>,
    pub audience: Audience,
    pub load: Load,
    pub rng: StdRng,
    pub delays: Delays,
    /// How often the fault was done.
    pub times: usize,
    /// What the database may lose.
    pub durability: Durability,
    /// Notifications of the database arrive, or it is noticed that they don't. What comes past the log comes with them.
    pub notifies: bool,
    restless: Option<Duration>,
    settling: Duration,
}

impl Options {
    /// One number for a quick run, another one for the full schedule.
    #[must_use]
    pub fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long everything may take to come to rest once nothing disturbs it any more.
    fn settling(&self) -> Duration {
        self.either(Duration::from_secs(12), Duration::from_mins(1))
    }

    /// What most faults play before.
    #[must_use]
    pub fn cast(&self) -> Cast {
        Cast {
            servers: 2,
            notifiers: 2,
            people: 40,
            chats: 12,
            members: 8,
            streams: self.either(60, 200),
            restless: None,
            workers: self.either(12, 48),
            sends_per_second: self.either(60, 300),
            mix: Mix::Everything,
        }
    }

    /// Starts the processes alone.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn cluster(&self, servers: usize, notifiers: usize) -> Result<Cluster> {
        let cluster = self.setup(servers, notifiers).start().await?;
        if let Some(edit) = self.edit {
            sabotage::edit(&cluster.db, edit).await?;
        }
        Ok(cluster)
    }

    /// What to start.
    #[must_use]
    pub fn setup(&self, servers: usize, notifiers: usize) -> Setup {
        Setup {
            programs: self.programs.clone(),
            servers,
            notifiers,
            logs: self.logs.clone(),
            environment: self.environment.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Starts everything, and waits until everybody listens.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn stage(&self, cast: Cast) -> Result<Stage> {
        let cluster = self.cluster(cast.servers, cast.notifiers).await?;
        self.stage_on(cluster, cast).await
    }

    /// The same on a cluster that is there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stage_on(&self, cluster: Cluster, cast: Cast) -> Result<Stage> {
        let scene = self.scene(&cluster, cast).await?;
        self.assemble(cluster, scene, cast).await
    }

    /// People in chats at random.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn scene(&self, cluster: &Cluster, cast: Cast) -> Result<Scene> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let workspace = cluster.town.workspace("Chaos", cast.people).await?;
        let mut chats = Vec::new();
        for number in 0..cast.chats {
            let members: Vec<_> =
                workspace.people.choose_multiple(&mut rng, cast.members).cloned().collect();
            let references: Vec<_> = members.iter().collect();
            let chat = cluster.town.channel(&format!("chat {number}"), &references).await?;
            chats.push((chat, members));
        }
        let listeners: Vec<_> =
            workspace.people.iter().cycle().take(cast.streams).cloned().collect();
        let seats = chats
            .iter()
            .flat_map(|(chat, members)| members.iter().map(|person| Seat::new(person, *chat)));
        let seats = seats.collect();
        Ok(Scene { workspace, chats, listeners, seats })
    }

    /// Lets people who are there listen and send.
    ///
    /// # Errors
    /// When not everybody gets a stream.
    pub async fn assemble(&self, cluster: Cluster, scene: Scene, cast: Cast) -> Result<Stage> {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(1));
        let mut audience = Audience::default();
        for person in &scene.listeners {
            audience.add(person, cluster.events.clone(), cast.restless, rng.random());
        }
        audience.connected(self.settling()).await.context("not everybody gets a stream")?;
        let mut load =
            Load::begin(scene.seats, cast.workers, cast.sends_per_second, cast.mix, rng.random());
        if cast.mix == Mix::Everything {
            let owners = scene.chats.iter().map(|(chat, members)| Seat::new(&members[0], *chat));
            load.archive(owners.collect(), rng.random());
        }
        Ok(Stage {
            cluster,
            workspace: scene.workspace,
            chats: scene.chats,
            audience,
            load,
            rng,
            delays: Delays::default(),
            times: 0,
            durability: Durability::default(),
            notifies: true,
            restless: cast.restless,
            settling: self.settling(),
        })
    }
}

impl Stage {
    /// Lets things run undisturbed for about so long.
    pub async fn quiet(&mut self, about: Duration) {
        sleep(about.mul_f64(self.rng.random_range(0.5..1.5))).await;
    }

    /// Lets somebody listen from now on.
    pub fn listen(&mut self, person: &Person) {
        let addresses = self.cluster.events.clone();
        self.audience.add(person, addresses, self.restless, self.rng.random());
    }

    /// Lets somebody open a stream and not read it for a while.
    pub fn listen_badly(&mut self, person: &Person, pause: Duration) {
        let addresses = self.cluster.events.clone();
        self.audience.add_stalled(person, addresses, pause, self.rng.random());
    }

    /// Who founded the workspace, and is never touched.
    #[must_use]
    pub fn owner(&self) -> &Person {
        &self.workspace.people[0]
    }

    /// Ends the load, waits until every stream has come to the end, and compares everything.
    ///
    /// # Errors
    /// When a process is not running as it should, or the database fails.
    pub async fn finish(self) -> Result<Row> {
        self.finish_with(|_, _| ()).await
    }

    /// The same, with a closer look at how long things took.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub async fn finish_with(mut self, look: impl FnOnce(&Past, &mut Delays)) -> Result<Row> {
        let calls = self.load.end().await;
        self.cluster.check()?;
        mark_the_end(&self.workspace.people[0], self.settling).await?;
        let head = log::head(&self.cluster.db, self.workspace.id).await?;
        let caught_up = self.audience.reached(head.position, self.settling).await;
        let log = Log::read(&self.cluster.db, self.workspace.id).await?;
        if self.notifies {
            let due = checker::marks::due(&log, &calls.changes);
            self.audience.told(&due, self.settling).await;
        }
        let streams = self.audience.end();
        let mut verdict = checker::check(&log, &calls, &streams, self.durability);
        if self.notifies {
            verdict += checker::marks::check(&log, &calls.changes, &streams);
        }
        let mut delays = self.delays;
        let past = Past { calls, streams, log };
        delays.measure(&past);
        look(&past, &mut delays);
        if self.durability == Durability::UpToReset {
            delays.note(format!("{} acknowledged writes were lost, as told", verdict.told));
        }
        if caught_up.is_none() {
            delays.note("not every stream came to the end".into());
        }
        Ok(Row { times: self.times, verdict, delays })
    }
}

/// Writes an event that everybody hears, after everything else.
async fn mark_the_end(owner: &Person, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    for server in 0.. {
        let body = json!({ "name": "Chaos is over" });
        let call = owner.at(server);
        match call.call(Method::PATCH, "/api/workspace", Some(&body)).await {
            Answer::Ok { .. } => break,
            answer if Instant::now() > deadline => {
                anyhow::bail!("the last write fails: {answer:?}")
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
    Ok(())
}
