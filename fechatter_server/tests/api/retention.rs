//! How long the log keeps events.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::harness::{Chat, Person, TestApp};

#[tokio::test]
async fn old_events_are_deleted_from_the_beginning_of_the_log() {
    let app = TestApp::with(|config| config.retention.events_days = 3).await;
    let alice = app.user("alice").await;
    let [chat, other] = [channel(&alice, "kept").await, channel(&alice, "deleted").await];
    alice.counts_to(200, &chat).await;
    // One in the middle has been written by a server whose clock was wrong.
    app.sql(
        "update events
         set created_at = created_at - interval '4 days'
         where position <= 150 and position <> 120",
    )
    .await;

    alice.deletes(&other).await;

    wait_for_floor(&app, 120).await;
    assert_eq!(count(&app).await, head(&app).await - 120 + 1);
    alice.sends(&chat, "and on it goes").await;
}

#[tokio::test]
async fn the_newest_event_stays_however_old_it_is() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let [chat, other] = [channel(&alice, "kept").await, channel(&alice, "deleted").await];
    let head = head(&app).await;
    let long_ago = "alter table events alter column created_at set default '2001-01-01'";
    sqlx::query(long_ago).execute(&app.db).await.unwrap();
    app.sql("update events set created_at = '2001-01-01'").await;

    alice.deletes(&other).await;

    wait_for_floor(&app, head + 1).await;
    alice.sends(&chat, "the next one").await;
    assert_eq!(self::head(&app).await, head + 2);
}

async fn channel(alice: &Person, name: &str) -> Chat {
    alice.creates_private_channel(name, []).await
}

/// Deleting a chat sets the purge going; it prunes as well.
async fn wait_for_floor(app: &TestApp, floor: i64) {
    let reached = async {
        while number(app, "select min(position) from events").await != floor {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), reached).await.unwrap();
}

async fn head(app: &TestApp) -> i64 {
    number(app, "select max(position) from events").await
}

async fn count(app: &TestApp) -> i64 {
    number(app, "select count(*) from events").await
}

async fn number(app: &TestApp, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&app.db).await.unwrap()
}
