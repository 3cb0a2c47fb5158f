//! How long the log keeps events.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::harness::{Chat, NOTHING, PASSWORD, Person, TestApp};

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

#[tokio::test]
async fn what_has_ended_is_removed_after_its_time() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    for name in ["old", "logged", "new"] {
        let chat = alice.creates_private_channel(name, [&bob]).await;
        alice.deletes(&chat).await;
    }
    app.tries("bob@acme.test", PASSWORD).await.expect(StatusCode::OK);
    let invite = json!({ "max_uses": 2 });
    alice.post("/api/invites", invite.clone()).await.expect(StatusCode::CREATED);
    alice.post("/api/invites", invite).await.expect(StatusCode::CREATED);
    let reset = format!("/api/users/{}/reset-link", bob.id);
    alice.post(&reset, NOTHING).await.expect(StatusCode::CREATED);
    let purged = async {
        while number(&app, "select count(*) from chats where purged_at is null").await > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), purged).await.unwrap();
    app.sql(
        "update chats set deleted_at = deleted_at - interval '31 days'
             where name <> 'new'",
    )
    .await;
    // The log still has the end of the second one.
    app.sql(
        "delete from events
             where position <= (
                 select left_position
                 from chat_members as m
                 join chats as c on c.id = m.chat_id
                 where name = 'old'
                 limit 1)",
    )
    .await;
    app.sql(
        "update sessions set revoked_at = now() - interval '31 days'
             where id = (select id from sessions order by created_at desc limit 1)",
    )
    .await;
    app.sql(
        "update invites set expires_at = now() - interval '31 days'
             where id = (select min(id) from invites)",
    )
    .await;
    app.sql("update password_resets set expires_at = now() - interval '31 days'").await;

    let _second = app.another(|_| {}).await;
    let removed = async {
        while number(&app, "select count(*) from chats").await == 3 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), removed).await.unwrap();
    let names: Vec<String> =
        sqlx::query_scalar("select name from chats order by id").fetch_all(&app.db).await.unwrap();
    assert_eq!(names, ["logged", "new"]);
    assert_eq!(number(&app, "select count(*) from chat_members").await, 4);
    assert_eq!(number(&app, "select count(*) from sessions").await, 2);
    assert_eq!(number(&app, "select count(*) from invites").await, 1);
    assert_eq!(number(&app, "select count(*) from password_resets").await, 0);
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
