//! From the POST of one server to the streams of the other.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fechatter::Fechatter;

#[tokio::test]
async fn a_message_reaches_its_three_members_and_no_stranger() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let carol = fechatter.signs_up("carol", "Acme").await;
    let eve = fechatter.signs_up("eve", "Acme").await;
    let mallory = fechatter.signs_up("mallory", "Evil Corp").await;
    let mut members = Vec::new();
    for person in [&alice, &bob, &carol] {
        members.push(person.listens(None).await);
    }
    let (mut eve_hears, mut mallory_hears) = (eve.listens(None).await, mallory.listens(None).await);

    let group = json!({ "name": "lunch", "chat_type": "Group", "members": [bob.id, carol.id] });
    let chat = alice.post("/api/chat", &group).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    // The longest message there is, of characters that take four bytes each.
    let longest = "🍜".repeat(10_000);
    let sent = alice.post(&messages, &json!({ "content": longest })).await;

    for stream in &mut members {
        assert_eq!(stream.next().await.unwrap()["event"], "NewChat");
        let mut received = stream.next().await.unwrap();
        assert_eq!(received.as_object_mut().unwrap().remove("event").unwrap(), "NewMessage");
        assert_eq!(received, sent);
    }
    // What comes after it in their own logs shows that nothing came before.
    for (person, stream) in [(&eve, &mut eve_hears), (&mallory, &mut mallory_hears)] {
        let own = json!({ "name": "mine", "chat_type": "PrivateChannel" });
        let own = person.post("/api/chat", &own).await;
        let first = stream.next().await.unwrap();
        assert_eq!((&first["event"], &first["id"]), (&json!("NewChat"), &own["id"]));
    }
}

#[tokio::test]
async fn a_stream_from_before_a_change_never_contains_the_earlier_text() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let mut stream = bob.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PrivateChannel", "members": [bob.id] });
    let chat = alice.post("/api/chat", &chat).await;
    stream.until("NewChat").await;
    let before = stream.cursor.clone();
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    let [edited, deleted] = [
        alice.post(&messages, &json!({ "content": "secret 1" })).await,
        alice.post(&messages, &json!({ "content": "secret 2" })).await,
    ];
    for sent in [&edited, &deleted] {
        assert_eq!(stream.until("NewMessage").await["content"], sent["content"]);
    }

    let edited = format!("{messages}/{}", edited["id"]);
    alice.does(Method::PATCH, &edited, &json!({ "content": "after" })).await;
    bob.does(Method::PUT, &format!("{edited}/reactions/%F0%9F%91%8D"), &Value::Null).await;
    bob.does(Method::DELETE, &format!("{edited}/reactions/%F0%9F%91%8D"), &Value::Null).await;
    alice.does(Method::DELETE, &format!("{messages}/{}", deleted["id"]), &Value::Null).await;

    let expected = ["MessageUpdated", "ReactionAdded", "ReactionRemoved", "MessageDeleted"];
    let mut live = Vec::new();
    for event in expected {
        live.push(stream.next().await.unwrap());
        assert_eq!(live.last().unwrap()["event"], event);
    }
    assert_eq!((&live[0]["content"], &live[2]["count"]), (&json!("after"), &json!(0)));
    assert_eq!(live[3]["actor_id"], alice.id);

    let mut resumed = bob.listens(before.as_deref()).await;
    for event in ["NewMessage", "NewMessage"].into_iter().chain(expected) {
        let next = resumed.next().await.unwrap();
        assert_eq!(next["event"], event, "{next}");
        assert!(!next.to_string().contains("secret"), "{next}");
    }
}

#[tokio::test]
async fn the_events_of_a_reply_have_the_counts_of_its_parent() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PrivateChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    let parent = alice.post(&messages, &json!({ "content": "noodles?" })).await;
    assert_eq!(stream.until("NewMessage").await.get("parent"), None);
    let before = stream.cursor.clone();

    let draft = json!({ "content": "yes", "reply_to_id": parent["id"] });
    let reply = alice.post(&messages, &draft).await;
    let counted = json!({
        "id": parent["id"], "reply_count": 1, "last_reply_at": reply["created_at"],
    });
    let new = stream.next().await.unwrap();
    assert_eq!((&new["reply_to_id"], &new["parent"]), (&parent["id"], &counted));

    let path = format!("{messages}/{}", reply["id"]);
    alice.does(Method::PATCH, &path, &json!({ "content": "yes!" })).await;
    let edited = stream.next().await.unwrap();
    assert_eq!((&edited["content"], edited.get("parent")), (&json!("yes!"), None));
    // Also the frame that is kept in memory has both after the edit.
    let mut resumed = alice.listens(before.as_deref()).await;
    let again = resumed.next().await.unwrap();
    assert_eq!((&again["content"], &again["parent"]), (&json!("yes!"), &counted));

    alice.does(Method::DELETE, &path, &Value::Null).await;
    let deleted = stream.next().await.unwrap();
    let uncounted = json!({ "id": parent["id"], "reply_count": 0, "last_reply_at": null });
    assert_eq!((&deleted["event"], &deleted["parent"]), (&json!("MessageDeleted"), &uncounted));
}

#[tokio::test]
async fn reading_reaches_the_streams_of_the_same_person_and_of_nobody_else() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let bob = fechatter.signs_up("bob", "Acme").await;
    let chat = json!({ "name": "lunch", "chat_type": "PrivateChannel", "members": [bob.id] });
    let chat = alice.post("/api/chat", &chat).await;
    let path = format!("/api/chat/{}", chat["id"]);
    for content in ["1", "2", "3"] {
        alice.post(&format!("{path}/messages"), &json!({ "content": content })).await;
    }
    let phone = bob.signs_in().await;
    let mut streams = [bob.listens(None).await, phone.listens(None).await];
    let mut others = alice.listens(None).await;

    bob.post(&format!("{path}/read"), &json!({ "seq": 2 })).await;

    for stream in &mut streams {
        let cursor = stream.cursor.clone();
        let expected = json!({
            "event": "ReadStateUpdated", "chat_id": chat["id"], "last_read_seq": 2,
            "unread_count": 1, "unread_capped": false, "mention_count": 0,
        });
        assert_eq!(stream.next().await.unwrap(), expected);
        assert_eq!(stream.cursor, cursor, "a read state has no id");
    }
    alice.post(&format!("{path}/messages"), &json!({ "content": "4" })).await;
    assert_eq!(others.next().await.unwrap()["event"], "NewMessage");
}

#[tokio::test]
async fn a_stream_goes_on_after_every_connection_to_the_database_was_cut() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    let messages = format!("/api/chat/{}/messages", chat["id"]);
    alice.post(&messages, &json!({ "content": "before" })).await;
    assert_eq!(stream.until("NewMessage").await["content"], "before");

    let admin =
        sqlx::PgPool::connect_with(fechatter.database.as_ref().unwrap().options()).await.unwrap();
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(&admin)
    .await
    .unwrap();
    alice.post(&messages, &json!({ "content": "after" })).await;
    assert_eq!(stream.until("NewMessage").await["content"], "after");
}

#[tokio::test]
async fn both_servers_end_on_sigterm_and_streams_say_goodbye() {
    let mut fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    for server in &mut fechatter.servers {
        server.request_stop();
    }
    assert_eq!(stream.until("Goodbye").await["reason"], "draining");
    assert!(stream.next().await.is_none(), "Goodbye is the last event");
    let statuses = tokio::task::spawn_blocking(move || {
        fechatter.servers.map(|mut server| server.stop().unwrap())
    });
    // A server that did not end within 20 s was killed, and its status says so.
    assert_eq!(statuses.await.unwrap(), [Some(0), Some(0)]);
}

#[tokio::test]
async fn a_client_resumes_at_another_start_of_the_stream() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    let chat = alice.post("/api/chat", &chat).await;
    stream.until("NewChat").await;
    let cursor = stream.cursor.clone();
    drop(stream);

    let messages = format!("/api/chat/{}/messages", chat["id"]);
    let mut sent = Vec::new();
    for i in 1..=20 {
        let message = alice.post(&messages, &json!({ "content": i.to_string() })).await;
        sent.push(message["id"].clone());
    }
    let mut stream = alice.listens(cursor.as_deref()).await;
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.push(stream.until("NewMessage").await["id"].clone());
    }
    assert_eq!(received, sent);
}

#[tokio::test]
async fn both_servers_tell_what_they_do() {
    let fechatter = Fechatter::start().await;
    let alice = fechatter.signs_up("alice", "Acme").await;
    let mut stream = alice.listens(None).await;
    let chat = json!({ "name": "lunch", "chat_type": "PublicChannel" });
    alice.post("/api/chat", &chat).await;
    let cursor = stream.until("NewChat").await;
    assert!(cursor["id"].is_i64());
    assert!(alice.asks_for_events(Some("nonsense")).await.unwrap().next().await.is_some());
    let resumed = stream.cursor.clone();
    alice.post("/api/chat", &json!({ "name": "dinner", "chat_type": "PublicChannel" })).await;
    stream.until("NewChat").await;
    alice.listens(resumed.as_deref()).await.until("NewChat").await;

    let [rest, events] = [fechatter.metrics(0).await, fechatter.metrics(1).await];

    for (metrics, name, least) in [
        (
            &rest,
            "fechatter_requests_total{method=\"POST\",route=\"/api/chat\",status=\"201\"}",
            2.0,
        ),
        (&rest, "fechatter_request_seconds_count{method=\"POST\",route=\"/api/signup\"}", 1.0),
        (&rest, "fechatter_events_written_total", 3.0),
        (&rest, "fechatter_lock_wait_seconds_count", 2.0),
        (&rest, "fechatter_doorbells_rung_total{outcome=\"rung\"}", 1.0),
        (&rest, "fechatter_database_connections{state=\"idle\"}", 1.0),
        (&events, "fechatter_requests_total{method=\"GET\",route=\"/events\",status=\"200\"}", 3.0),
        (&events, "fechatter_doorbells_heard_total", 1.0),
        (&events, "fechatter_streams_open", 1.0),
        (&events, "fechatter_resets_total{reason=\"cursor_invalid\"}", 1.0),
        (&events, "fechatter_replay_events_sum", 1.0),
        (&events, "fechatter_replay_seconds_count{source=\"memory\"}", 1.0),
        (&events, "fechatter_deliveries_total", 1.0),
        (&events, "fechatter_workspaces", 1.0),
        (&events, "fechatter_recent_bytes", 100.0),
        (&events, "fechatter_tail_lag_positions", 0.0),
        (&events, "fechatter_tail_lag_seconds", 0.0),
        (&events, "fechatter_tail_scan_age_seconds", 0.0),
        (&events, "fechatter_outbox_frames{which=\"longest\"}", 0.0),
    ] {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= least), "{name}: {value:?} in\n{metrics}");
    }
}
