//! A failover in the middle of a long replay.

use serde_json::json;
use tokio::time::timeout;

use super::cluster::{Cluster, Commits};
use super::{PATIENCE, alice, comes_back, hears, is_reset, now};
use crate::fechatter::{Fechatter, Person, Stream};

/// So many of the longest messages, 8 MB, fit into no socket.
const LONG: usize = 200;
/// How many events are kept in memory: all those of these tests, or hardly any.
const FROM_MEMORY: usize = 10_000;
const FROM_THE_DATABASE: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_failover_that_lost_what_comes_later() {
    Replay { recent: FROM_THE_DATABASE, kept: LONG, lost: 20, new: [0, 10] }.fails_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_what_a_failover_replaces_leaves_no_silent_gap() {
    let (lost, new) = (LONG + 50, [LONG + 60, 10]);
    Replay { recent: FROM_THE_DATABASE, kept: 2, lost, new }.fails_over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_what_a_failover_loses_leaves_no_silent_gap() {
    Replay { recent: FROM_MEMORY, kept: 2, lost: LONG + 100, new: [0, 10] }.fails_over().await;
}

/// A client resumes and takes its time; meanwhile the last messages are lost, and new ones come: some at once, some
/// when the client has heard those.
struct Replay {
    recent: usize,
    kept: usize,
    lost: usize,
    new: [usize; 2],
}

impl Replay {
    async fn fails_over(&self) {
        let mut cluster = Cluster::start(Commits::Here).await;
        let recent = [("FECHATTER__NOTIFY__RECENT_EVENTS", self.recent.to_string())];
        let fechatter = Fechatter::start_on(&cluster.url(), &recent).await;
        let (alice, messages) = alice(&fechatter).await;
        let from = now(&alice).await;
        let mut log = Vec::new();
        write_at_length(&alice, &messages, "kept", self.kept, &mut log).await;
        let mut old_log = log.clone();
        cluster.loses_what_follows().await;
        write_at_length(&alice, &messages, "lost", self.lost, &mut old_log).await;
        let mut stream = alice.listens(Some(&from)).await;
        let mut told = vec![hears(&mut stream).await];
        let mut idle = alice.listens(None).await;

        cluster.fails_over().await;
        fechatter.is_ready().await;
        // From here on the server knows.
        is_reset(&mut idle).await;

        for (name, count) in ["new", "newer"].into_iter().zip(self.new) {
            for i in 0..count {
                let content = format!("{name} {i}");
                alice.post(&messages, &json!({ "content": content })).await;
                log.push(content);
            }
            let caught_up = catches_up(&alice, &mut stream, &mut told, log.last().unwrap());
            let Ok(reset) = timeout(PATIENCE, caught_up).await else {
                panic!("silence after {} of {} messages", told.len(), log.len());
            };
            if let Some(cursor) = reset {
                let no_gap = old_log.starts_with(&told) || log.starts_with(&told);
                assert!(no_gap, "a gap before the Reset");
                alice.listens(Some(&cursor)).await;
                return;
            }
            assert!(told == log, "a gap or a repeat");
        }
    }
}

/// The first ones are so long that no buffer on the way takes them all.
async fn write_at_length(
    person: &Person<'_>,
    messages: &str,
    name: &str,
    count: usize,
    log: &mut Vec<String>,
) {
    for i in 0..count {
        let length = if i < LONG { 9_900 } else { 0 };
        let content = format!("{name} {i} {}", "🍜".repeat(length)).trim_end().to_owned();
        person.post(messages, &json!({ "content": content })).await;
        log.push(content);
    }
}

/// Reads on as a client does, until the message `last` or a `Reset`, whose cursor it returns.
async fn catches_up(
    person: &Person<'_>,
    stream: &mut Stream,
    told: &mut Vec<String>,
    last: &str,
) -> Option<String> {
    while told.last().is_none_or(|content| content != last) {
        let Some(next) = stream.next().await else {
            let cursor = stream.cursor.take().unwrap();
            *stream = comes_back(person, &cursor).await;
            stream.cursor = Some(cursor);
            continue;
        };
        match next["event"].as_str().unwrap() {
            "NewMessage" => told.push(next["content"].as_str().unwrap().to_owned()),
            "Reset" => return stream.cursor.clone(),
            _ => {}
        }
    }
    None
}
