//! Pages of a chat in which a million messages have been sent.

use std::time::Duration;

use anyhow::Result;
use rig::KeepAlive;
use sqlx::query;

use super::asked;
use crate::{
    figure::as_f64,
    large::settle,
    report::{Report, Target::Most, Targets},
    stage::Stage,
};

const TARGETS: Targets = &[
    ("newest_p50", Most(3.0)),
    ("middle_p50", Most(3.0)),
    ("oldest_p50", Most(3.0)),
    ("slowest_page", Most(3.0)),
];

const LIMIT: i64 = 100;
const REPETITIONS: usize = 200;
/// Of each of these the median counts, so that what is slow is the page and not the moment.
const RANDOM_PAGES: usize = 100;
const EACH: usize = 9;

/// Every tenth message has two reactions, two mentions and two replies.
const ABOUT_MESSAGES: [&str; 4] = [
    "insert into message_reactions (workspace_id, chat_id, message_id, emoji, user_id, created_at)
     select m.workspace_id, m.chat_id, m.id, emoji, m.sender_id, now()
     from messages as m, unnest(array['👍', '🎉']) as emoji
     where m.chat_id = $1 and m.seq % 10 = 0",
    "insert into message_mentions (chat_id, seq, user_id, sender_id)
     select m.chat_id, m.seq, person, m.sender_id
     from messages as m, unnest(array[m.sender_id, null]) as person
     where m.chat_id = $1 and m.seq % 10 = 0",
    "insert into message_replies (chat_id, message_id, seq, created_at)
     select m.chat_id, m.id, m.seq + number, now()
     from messages as m, generate_series(1, 2) as number
     where m.chat_id = $1 and m.seq % 10 = 0",
    "update messages set parts = 7 where chat_id = $1 and seq % 10 = 0",
];

pub(super) async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let messages = stage.count(1_000_000);
    let cluster = stage.start(&[]).await?;
    let people = cluster.town.workspace("readers", 2).await?.people;
    let chat = cluster.town.channel("long", &people.iter().collect::<Vec<_>>()).await?;
    cluster.town.ancient_history(&[(chat, people[1].clone())], messages).await?;
    for statement in ABOUT_MESSAGES {
        query(statement).bind(chat).execute(&cluster.db).await?;
    }
    settle(&cluster).await?;
    let mut connection = KeepAlive::connect(cluster.servers[0].address()).await?;

    let conditions = format!(
        "pages of {LIMIT} in a chat of {messages} messages, of which every tenth has two reactions, two mentions and two \
         replies, {REPETITIONS} times each, one after the other; slowest_page is \
         the worst of {RANDOM_PAGES} random ones, by its median"
    );
    let mut rows = report.under("history", TARGETS, &conditions);
    let page = |place: &str| {
        let line = format!("GET /api/chat/{chat}/messages?limit={LIMIT}{place}");
        [people[0].raw_request(&line, "")]
    };
    let newest = i64::try_from(messages)?;
    let middle = format!("&before_seq={}", newest / 2);
    for (name, place) in [("newest", ""), ("middle", &middle), ("oldest", "&after_seq=0")] {
        rows.quantiles(name, &[asked(&mut connection, &page(place), REPETITIONS).await?]);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..RANDOM_PAGES {
        let before = rand::random_range(LIMIT..newest);
        let request = page(&format!("&before_seq={before}"));
        slowest = slowest.max(asked(&mut connection, &request, EACH).await?.p50());
    }
    rows.milliseconds("slowest_page", slowest);
    let bytes = connection.call(&page("")[0]).await?.body.len();
    rows.add("newest_bytes", as_f64(bytes), "B");
    Ok(())
}
