//! Commits that wait for a standby: what was acknowledged is on it, and what is not on it was not acknowledged.

use std::pin::pin;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{PgPool, query, query_scalar};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::cluster::{Cluster, Commits};
use super::{AGAIN, PATIENCE, alice, comes_back, now, position, reached};
use crate::fechatter::{Fechatter, Person};

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_failover_loses_nothing_and_resets_nobody() {
    const EACH: usize = 50;
    let mut cluster = Cluster::start(Commits::OnStandby).await;
    let fechatter = Fechatter::start_on(&cluster.url(), &[]).await;
    let (alice, messages) = alice(&fechatter).await;
    let from = now(&alice).await;

    let (received, one, two, three, ()) = tokio::join!(
        follows(&alice, from.clone(), 3 * EACH),
        writes(&alice, &messages, EACH),
        writes(&alice, &messages, EACH),
        writes(&alice, &messages, EACH),
        async {
            while newest_seq(&alice, &messages).await < 50 {}
            cluster.fails_over().await;
        }
    );

    let sent = history(&alice, &messages).await;
    assert_eq!(received.iter().map(|(_, id)| *id).collect::<Vec<_>>(), sent);
    let positions: Vec<_> = received.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (position(&from) + 1..).take(3 * EACH).collect::<Vec<_>>());
    let mut acknowledged = [one, two, three].concat();
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, sent, "what was acknowledged is there, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_the_standby_is_not_acknowledged() {
    what_no_standby_has_is_not_acknowledged("select pg_cancel_backend($1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_wait_for_the_standby_is_not_acknowledged() {
    what_no_standby_has_is_not_acknowledged("select pg_terminate_backend($1)").await;
}

/// The operator ends a commit's wait for a standby that is out of reach: PostgreSQL then keeps the transaction, and says
/// so in no more than a warning.
async fn what_no_standby_has_is_not_acknowledged(ended_by: &'static str) {
    let cluster = Cluster::start(Commits::OnStandby).await;
    let fechatter = Fechatter::start_on(&cluster.url(), &[]).await;
    let (alice, messages) = alice(&fechatter).await;
    cluster.replication.black_hole(true);
    let admin = PgPool::connect(&cluster.primary.url("postgres")).await.unwrap();
    let body = json!({ "content": "hello?", "idempotency_key": Uuid::new_v4() });
    let mut request = pin!(alice.call(Method::POST, &messages, &body));
    let process = tokio::select! {
        answer = &mut request => panic!("{} without a standby", answer.status),
        process = timeout(PATIENCE, waiting(&admin)) => process.expect("no commit waits"),
    };

    query(ended_by).bind(process).execute(&admin).await.unwrap();

    // Waiting on is as good as an error.
    if let Ok(answer) = timeout(Duration::from_secs(2), request).await {
        let status = answer.status;
        assert!(!status.is_success(), "{status} before the standby has it");
    }
    cluster.replication.black_hole(false);
    writes_one(&alice, &messages, &body).await;
    assert_eq!(history(&alice, &messages).await.len(), 1);
}

/// The process that waits for the standby.
async fn waiting(admin: &PgPool) -> i32 {
    let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep'";
    loop {
        if let Some(process) = query_scalar(waiting).fetch_optional(admin).await.unwrap() {
            return process;
        }
    }
}

/// Sends messages until each is acknowledged; their ids.
async fn writes(person: &Person<'_>, messages: &str, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let body = json!({ "content": "x", "idempotency_key": Uuid::new_v4() });
        ids.push(writes_one(person, messages, &body).await);
    }
    ids
}

async fn writes_one(person: &Person<'_>, messages: &str, body: &Value) -> i64 {
    let sent = timeout(PATIENCE, async {
        loop {
            let answer = person.call(Method::POST, messages, body).await;
            match answer.status {
                StatusCode::CREATED => return answer.json(),
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => sleep(AGAIN).await,
                other => panic!("{other}"),
            }
        }
    });
    sent.await.expect("a message is never taken")["id"].as_i64().unwrap()
}

/// Receives so many messages across any number of streams, none of which may be reset: their positions and ids.
async fn follows(person: &Person<'_>, mut cursor: String, count: usize) -> Vec<(i64, i64)> {
    let mut received = Vec::new();
    while received.len() < count {
        let mut stream = comes_back(person, &cursor).await;
        stream.cursor = Some(cursor);
        while received.len() < count
            && let Some(next) = stream.next().await
        {
            assert_ne!(next["event"], "Reset", "{next}");
            if next["event"] == "NewMessage" {
                received.push((reached(&stream), next["id"].as_i64().unwrap()));
            }
        }
        cursor = stream.cursor.unwrap();
    }
    received
}

async fn newest_seq(person: &Person<'_>, messages: &str) -> i64 {
    let newest = person.get(&format!("{messages}?limit=1")).await;
    newest[0]["seq"].as_i64().unwrap_or(0)
}

/// The ids of all messages, oldest first.
async fn history(person: &Person<'_>, messages: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    loop {
        let page = person.get(&format!("{messages}?after_seq={}", ids.len())).await;
        let page = page.as_array().unwrap();
        if page.is_empty() {
            return ids;
        }
        ids.extend(page.iter().rev().map(|message| message["id"].as_i64().unwrap()));
    }
}
