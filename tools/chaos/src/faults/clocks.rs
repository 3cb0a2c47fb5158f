//! T14: the processes' clocks are hours apart.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use fechatter_core::ChatId;
use rig::{Cluster, Workspace};

use super::STARTING;
use crate::{
    load::Seat,
    report::Row,
    stage::{Options, Scene},
};

/// Where distributions put the library that tells a process another time.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// The two `fechatter_server`. Their access tokens are good for a quarter of an hour, so everybody stays at the one whose
/// time they share; streams follow our own.
const CLOCKS: [&str; 2] = ["+3600s", "-3600s"];
const EACH: usize = 3;

pub(super) async fn apart(options: &Options) -> Result<Row> {
    let cast = options.cast();
    let mut cluster = options.cluster(CLOCKS.len(), 1).await?;
    for (server, clock) in cluster.servers.iter_mut().zip(CLOCKS) {
        server.stop()?;
        server.set("LD_PRELOAD", library().context("the library of faketime")?);
        server.set("FAKETIME", clock);
        // Only what the time of day is; how time passes is the same for all.
        server.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        server.set("DONT_FAKE_MONOTONIC", "1");
        server.start()?;
        server.ready(&cluster.client, STARTING).await?;
    }
    let scene = scene(&cluster).await?;
    let mut stage = options.assemble(cluster, scene, cast).await?;
    stage.quiet(options.either(Duration::from_secs(8), Duration::from_mins(1))).await;
    stage.times = 1;
    stage.finish().await
}

/// People of both times in one chat.
async fn scene(cluster: &Cluster) -> Result<Scene> {
    let (mut people, mut listeners) = (Vec::new(), Vec::new());
    for (number, server) in cluster.servers.iter().enumerate() {
        for _ in 0..EACH {
            let signed_up = cluster.rest.sign_up(number, "clock", "Clocks").await;
            let signed_up = signed_up.ok().context("signing up")?;
            let mut person = cluster.rest.person(&signed_up).context("a person")?;
            person.rest = person.rest.with_servers([server.address()].into());
            listeners.push(cluster.town.sign_in_again(&person).await?);
            people.push(person);
        }
    }
    let others: Vec<_> = people.iter().skip(1).map(|person| person.id).collect();
    let chat = people[0].create_chat("Group", "clocks", &others).await.ok().context("a chat")?;
    let chat = ChatId(chat["id"].as_i64().context("its id")?);
    let seats = people.iter().map(|person| Seat::new(person, chat)).collect();
    let workspace = Workspace { id: people[0].workspace_id, people: people.clone() };
    Ok(Scene { workspace, chats: vec![(chat, people)], listeners, seats })
}

/// What tells a process another time, if it is installed.
pub(super) fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|library| Path::new(library).exists())
}
