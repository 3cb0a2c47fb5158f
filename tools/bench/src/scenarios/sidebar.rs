//! `GET /api/chat` of somebody in 500 chats, among 10 million messages and among 10,000.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rig::{KeepAlive, Person};
use uuid::Uuid;

use crate::{
    figure::Figure,
    large::Large,
    load::CONTENT,
    report::{
        Report, Section,
        Target::{Most, MostOfLimit},
        Targets,
    },
    stage::Stage,
    timed::Timed,
};

/// The limit is the same among 10,000 messages.
const TARGETS: Targets = &[
    ("50_unread_miss_p50", Most(8.0)),
    ("50_unread_miss_p50", MostOfLimit(1.2)),
    ("all_at_cap_miss_p50", Most(40.0)),
];

const WARM_UP: usize = 3;
const REPETITIONS: usize = 30;
/// In each of the 500 chats.
const FEW: usize = 20;

/// How long the list takes, by what has happened before.
#[derive(Default)]
struct Lists {
    /// A message in one of the chats.
    miss: Vec<Duration>,
    /// Nothing.
    hit: Vec<Duration>,
    /// Nothing, and the caller says what they have; none if that is answered like everything else.
    unchanged: Vec<Duration>,
}

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let large = stage.large().await?;
    let small = Large::new(stage, 1_000, FEW).await?;
    let few = lists(&small, &small.reader).await?;
    let unread = lists(large, &large.reader).await?;
    let capped = lists(large, &large.absentee).await?;

    let conditions = format!(
        "caller in {} chats of {} messages, 20 unread in each of 50, two of them with mentions, and preferences for a fifth of the chats, or everything unread in all; the limit is the same \
         with {FEW} messages in each chat; miss: after a message in one of them, hit: again, 304: again with \
         If-None-Match; {REPETITIONS} times",
        large.chats.len(),
        stage.count(20_000)
    );
    let mut rows = report.under("sidebar", TARGETS, &conditions);
    add(&mut rows, "50_unread", unread, Some(few));
    add(&mut rows, "all_at_cap", capped, None);
    Ok(())
}

fn add(rows: &mut Section<'_>, name: &str, lists: Lists, few: Option<Lists>) {
    let figures = |lists: Lists| {
        [lists.miss, lists.hit, lists.unchanged].map(|times| match Timed::new(times) {
            Some(times) => [Timed::p50, Timed::p99, Timed::max].map(|of| Figure::ms(of(&times))),
            None => [Figure::NONE; 3],
        })
    };
    let few = few.map(figures);
    for (kind, (which, figures)) in
        ["miss", "hit", "304"].iter().zip(figures(lists).into_iter().enumerate())
    {
        for (quantile, figure) in figures.into_iter().enumerate() {
            let name = format!("{name}_{kind}_{}", ["p50", "p99", "max"][quantile]);
            let row = rows.add(name, figure, "ms");
            if let Some(few) = few {
                row.against(few[which][quantile]);
            }
        }
    }
}

async fn lists(large: &Large, caller: &Person) -> Result<Lists> {
    // Tokens are good for a quarter of an hour, and it may have taken longer to come here.
    let caller = large.cluster.town.sign_in_again(caller).await?;
    let (chat, others) = large.chats.first().context("a chat")?;
    let sender = large.cluster.town.sign_in_again(&others[0]).await?;
    let mut connection = KeepAlive::connect(large.cluster.servers[0].address()).await?;
    let request = caller.raw_request("GET /api/chat", "");
    let mut lists = Lists::default();
    for round in 0..WARM_UP + REPETITIONS {
        let sent = connection
            .call(&sender.raw_send_message_request(*chat, CONTENT, Uuid::new_v4()))
            .await?
            .status;
        ensure!(sent == 201, "a message was answered with {sent}");
        let (miss, _, _) = list(&mut connection, &request).await?;
        let (hit, _, tag) = list(&mut connection, &request).await?;
        let mut unchanged = None;
        if let Some(tag) = tag {
            let known =
                caller.raw_request_with_headers("GET /api/chat", &[("if-none-match", &tag)], "");
            let (took, status, _) = list(&mut connection, &known).await?;
            unchanged = (status == 304).then_some(took);
        }
        if round >= WARM_UP {
            lists.miss.push(miss);
            lists.hit.push(hit);
            lists.unchanged.extend(unchanged);
        }
    }
    Ok(lists)
}

/// How long it took, the status, and the entity tag.
async fn list(
    connection: &mut KeepAlive,
    request: &str,
) -> Result<(Duration, u16, Option<String>)> {
    let began = Instant::now();
    let answer = connection.call(request).await?;
    let took = began.elapsed();
    let status = answer.status;
    ensure!(matches!(status, 200 | 304), "the list was answered with {status}");
    Ok((took, status, answer.header("etag").map(ToOwned::to_owned)))
}
