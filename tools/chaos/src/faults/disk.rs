//! T10: a disk is full: that of the files, of the database, of its write-ahead log.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use devdb::{Postgres, Scratch};
use fechatter_core::ChatId;
use rand::Rng;
use reqwest::Method;
use rig::Person;
use sqlx::query;
use tokio::time::sleep;

use super::STARTING;
use crate::{
    disk::SmallDisk,
    report::Row,
    stage::{Options, Stage},
    uploads::Uploads,
};

/// How soon something works again when there is room again.
const BACK: Duration = Duration::from_secs(5);
/// How soon a message is acknowledged while files have no room.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// The size of a disk with room for some uploads, and of one for a database, in MiB.
const FOR_FILES: u32 = 48;
const FOR_DATA: u32 = 256;

/// The disk of the files is full, again and again, and a server is killed between.
pub(super) async fn of_files(options: &Options) -> Result<Row> {
    let scratch = Scratch::new()?;
    let disk = SmallDisk::mount(&scratch.path().join("disk"), FOR_FILES)?;
    let store = disk.path().join("files");
    let mut options = options.clone();
    options.environment.push(("FECHATTER__FILES__PATH".into(), store.display().to_string()));
    let mut stage = options.stage(options.cast()).await?;
    let uploads = Uploads::begin(&stage.workspace.people, 6, stage.rng.random());
    for _ in 0..options.either(2, 6) {
        stage.quiet(Duration::from_secs(2)).await;
        disk.fill()?;
        stage.times += 1;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let took = stage.load.next_acknowledged().await;
            stage.delays.recovery("send while full", took, UNDISTURBED);
        }
        disk.clear()?;
        let took = uploads.next_stored(STARTING).await;
        stage.delays.recovery("upload", took, BACK);
        let victim = stage.rng.random_range(0..stage.cluster.servers.len());
        let server = &mut stage.cluster.servers[victim];
        server.kill()?;
        server.start()?;
        server.ready(&stage.cluster.client, STARTING).await?;
    }
    let (verdict, note) = uploads.end(&stage.cluster.db, &store).await?;
    stage.delays.note(note);
    let mut row = stage.finish().await?;
    row.verdict += verdict;
    Ok(row)
}

/// The disk of the database's tables is full. What is there can be read meanwhile.
pub(super) async fn of_data(options: &Options) -> Result<Row> {
    let scratch = Scratch::new()?;
    let disk = SmallDisk::mount(&scratch.path().join("disk"), FOR_DATA)?;
    let postgres = on_two_disks(&disk.path().join("postgres"), &scratch.path().join("wal"))?;
    let mut stage = stage_on(options, postgres).await?;
    // PostgreSQL keeps notifications on the same disk.
    stage.notifies = false;
    let mut unreadable = Vec::new();
    for _ in 0..options.either(2, 5) {
        stage.quiet(Duration::from_secs(2)).await;
        disk.fill()?;
        stage.times += 1;
        let (chat, members) = stage.chats.first().context("there is no chat")?;
        let (chat, reader) = (*chat, members[0].clone());
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            if let Err(answer) = read(&reader, chat).await {
                unreadable.push(format!("a page while the disk was full: {answer}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        disk.clear()?;
        let took = stage.load.next_acknowledged().await;
        stage.delays.recovery("send", took, BACK);
    }
    let mut row = stage.finish().await?;
    row.verdict.slowed.extend(unreadable);
    Ok(row)
}

/// The disk of the database's write-ahead log is full: PostgreSQL stops, and starts when there is room.
pub(super) async fn of_write_ahead_log(options: &Options) -> Result<Row> {
    let scratch = Scratch::new()?;
    let disk = SmallDisk::mount(&scratch.path().join("disk"), FOR_DATA)?;
    let postgres = on_two_disks(&scratch.path().join("postgres"), &disk.path().join("wal"))?;
    let mut stage = stage_on(options, postgres).await?;
    for _ in 0..options.either(2, 5) {
        stage.quiet(Duration::from_secs(2)).await;
        disk.fill()?;
        stage.times += 1;
        let deadline = Instant::now() + STARTING;
        // Each uses up a segment of those that are there.
        while query("select pg_switch_wal()").execute(&stage.cluster.db).await.is_ok() {
            ensure!(Instant::now() < deadline, "PostgreSQL finds room where there is none");
            sleep(Duration::from_millis(20)).await;
        }
        stage.quiet(Duration::from_secs(1)).await;
        disk.clear()?;
        if !stage.cluster.postgres.is_running() {
            tokio::task::block_in_place(|| stage.cluster.postgres.restart())?;
        }
        let took = stage.load.next_acknowledged().await;
        stage.delays.recovery("send", took, BACK);
    }
    stage.finish().await
}

async fn stage_on(options: &Options, postgres: Postgres) -> Result<Stage> {
    let cast = options.cast();
    let database = postgres.address();
    let cluster = options.setup(cast.servers, cast.notifiers).start_on(postgres, database).await?;
    options.stage_on(cluster, cast).await
}

/// Starts PostgreSQL with its data in one folder and its write-ahead log in another one.
fn on_two_disks(home: &Path, wal: &Path) -> Result<Postgres> {
    Postgres::in_scratch_folder(home)?.stop()?;
    let own = home.join("data/pg_wal");
    let status = Command::new("cp").arg("-a").arg(&own).arg(wal).status()?;
    ensure!(status.success(), "the write-ahead log cannot be copied");
    std::fs::remove_dir_all(&own)?;
    std::os::unix::fs::symlink(wal, &own)?;
    Postgres::in_scratch_folder(home)
}

async fn read(person: &Person, chat: ChatId) -> Result<(), String> {
    let path = format!("/api/chat/{chat}/messages?limit=10");
    match person.call(Method::GET, &path, None).await {
        rig::Answer::Ok { .. } => Ok(()),
        answer => Err(format!("{answer:?}")),
    }
}
