//! T19: messages are edited and deleted, and clients come back to where they had not seen them yet.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, ensure};
use fechatter_core::{
    ChatId, MessageId,
    log::{Cursor, head},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use rig::{Answer, Cluster, Connection, Frame, Person, Target};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{checker::Verdict, delays::Delays, report::Row, stage::Options};

/// No stream that begins later than this after a change is told what was there before.
const KNOWN: Duration = Duration::from_secs(2);
/// How long a replay may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages between two visits, all of which are changed.
const MESSAGES: usize = 20;

pub(super) async fn changed(options: &Options) -> Result<Row> {
    let mut cluster = options.cluster(1, 2).await?;
    let workspace = cluster.town.workspace("edits", 2).await?;
    let [author, reader] = &workspace.people[..] else { anyhow::bail!("two people") };
    let chat = cluster.town.channel("edited", &[author, reader]).await?;
    // The servers keep the newest events of the workspaces that somebody follows.
    let mut followers = Vec::new();
    for index in 0..cluster.events.len() {
        followers.push(open(&cluster, index, author, None).await?);
    }
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut verdict = Verdict::default();
    let visits = options.either(2, 20);
    for _ in 0..visits {
        let before = head(&cluster.db, workspace.id).await?;
        for _ in 0..MESSAGES {
            let id = send(author, chat).await?;
            change(author, chat, id, rng.random()).await?;
            verdict.acknowledged += 1;
        }
        let after = head(&cluster.db, workspace.id).await?;
        sleep(KNOWN).await;
        for index in 0..cluster.events.len() {
            let told = visit(&cluster, index, reader, [before, after]).await?;
            verdict.leaked.extend(told);
        }
    }
    cluster.check()?;
    Ok(Row { times: visits, verdict, delays: Delays::default() })
}

async fn send(author: &Person, chat: ChatId) -> Result<MessageId> {
    let content = format!("before {}", Uuid::new_v4());
    match author.send(chat, &content, Uuid::new_v4()).await {
        Answer::Ok { body, .. } => Ok(MessageId(body["id"].as_i64().context("an id")?)),
        answer => anyhow::bail!("sending failed: {answer:?}"),
    }
}

/// Edits a message, or deletes it.
async fn change(author: &Person, chat: ChatId, id: MessageId, deletes: bool) -> Result<()> {
    let path = format!("/api/chat/{chat}/messages/{id}");
    let answer = if deletes {
        author.call(Method::DELETE, &path, None).await
    } else {
        author.call(Method::PATCH, &path, Some(&json!({ "content": "after" }))).await
    };
    match answer {
        Answer::Ok { .. } => Ok(()),
        answer => anyhow::bail!("changing failed: {answer:?}"),
    }
}

/// Comes back to before all of them and hears everything up to now: the frames that still tell what was there before.
async fn visit(
    cluster: &Cluster,
    index: usize,
    reader: &Person,
    [before, after]: [Cursor; 2],
) -> Result<Vec<String>> {
    let mut connection = open(cluster, index, reader, Some(before)).await?;
    let mut told = Vec::new();
    let reached = Cell::new(false);
    let mut hear = |frame: Frame<'_>| {
        let data = String::from_utf8_lossy(frame.data);
        if data.contains("before ") {
            told.push(format!("server {index}: {} {data}", frame.event));
        }
        if frame.id.and_then(|id| id.parse().ok()) == Some(after) {
            reached.set(true);
        }
    };
    let replay = async {
        while !reached.get() && connection.read(&mut hear).await? {}
        anyhow::Ok(())
    };
    timeout(PATIENCE, replay).await.context("the replay does not end")??;
    ensure!(reached.get(), "the stream ended before the replay did");
    Ok(told)
}

async fn open(
    cluster: &Cluster,
    index: usize,
    person: &Person,
    cursor: Option<Cursor>,
) -> Result<Connection> {
    let cursor = cursor.map(|cursor| cursor.to_string());
    let (address, token) = (cluster.events[index], &*person.token);
    let target = Target { address, token, cursor: cursor.as_deref(), receive_buffer: None };
    Connection::open(target).await.map_err(|error| anyhow::anyhow!("no stream: {error:?}"))
}
