//! `GET /events` as clients meet it: the real server, the real log, a real database.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod resume;
mod shares;
mod wire;
mod world;

use std::time::Duration;

use contract::Checked;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::Log;
use fechatter_core::{MessageId, db};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use tokio::time::timeout;
use uuid::Uuid;
use world::{PATIENCE, Stream, World};

#[tokio::test(flavor = "multi_thread")]
async fn ready_says_where_the_stream_starts() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let head = world.head(alice.workspace_id).await.to_string();

    let mut fresh = server.stream(&bob).await;
    let headers = fresh.response.headers().clone();
    let ready = fresh.expect("Ready").await;
    assert_eq!(ready.id.as_ref(), Some(&head));
    assert_eq!(ready.data["cursor"], head);
    assert_eq!(ready.data["resumed"], false);
    assert!(ready.data["server_time"].is_string());
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers[name], value);
    }

    world.sends(&alice, chat, "hello").await;
    let mut resumed = server.stream_after(&bob, &head).await;
    let ready = resumed.expect("Ready").await;
    assert_eq!(ready.data["cursor"], head);
    assert_eq!(ready.data["resumed"], true);
    resumed.expect_message("hello").await;
    fresh.expect_message("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_without_gap_or_repeat() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;
    world.sends_many(&alice, chat, &["1", "2", "3"]).await;
    stream.expect_message("1").await;
    let seen = stream.expect_message("2").await;
    drop(stream);

    let while_away: Vec<_> = (4..=350).map(|n| n.to_string()).collect();
    let contents: Vec<_> = while_away.iter().map(String::as_str).collect();
    world.sends_many(&alice, chat, &contents).await;

    let mut stream = server.stream_after(&bob, seen.id()).await;
    stream.expect("Ready").await;
    stream.expect_message("3").await;
    for content in contents {
        stream.expect_message(content).await;
    }
    world.sends(&alice, chat, "live").await;
    stream.expect_message("live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_while_others_write_loses_and_repeats_nothing() {
    const MESSAGES: i64 = 400;
    let mut world = World::new().await;
    world.config.http.burst = 1_000;
    let (server, chat, [alice, bob, _]) = world.has_a_chat().await;
    let start = world.head(bob.workspace_id).await.to_string();
    let writing = async {
        for n in 1..=MESSAGES {
            world.sends(&alice, chat, &n.to_string()).await;
        }
    };
    let reading = async {
        let (mut seq, mut cursor, mut streams) = (0, start, 0);
        while seq < MESSAGES {
            let mut stream = server.stream_after(&bob, &cursor).await;
            streams += 1;
            stream.expect("Ready").await;
            for _ in 0..(streams % 7) {
                if seq == MESSAGES {
                    break;
                }
                let frame = stream.expect("NewMessage").await;
                seq += 1;
                assert_eq!(
                    frame.data["seq"],
                    seq,
                    "stream {streams} after {cursor}: {}",
                    frame.id()
                );
                cursor = frame.id().to_owned();
            }
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_receives_nothing_more() {
    let (world, server, chat, [alice, bob, carol]) = World::with_a_chat().await;
    let lobby = world.chat(&alice, &[&bob, &carol]).await;
    let start = world.head(alice.workspace_id).await;
    let mut live = server.stream(&bob).await;
    live.expect("Ready").await;

    world.sends(&alice, chat, "before").await;
    world.removes(chat, &alice, &bob).await;
    world.sends(&alice, chat, "secret").await;
    world.sends(&alice, lobby, "elsewhere").await;
    world.adds(chat, &alice, &bob).await;
    world.sends(&alice, chat, "again").await;

    let mut replayed = server.stream_after(&bob, start).await;
    replayed.expect("Ready").await;
    for stream in [&mut live, &mut replayed] {
        stream.expect_message("before").await;
        let left = stream.expect("UserLeftChat").await;
        assert_eq!(left.data["user_id"], json!(bob.id));
        stream.expect_message("elsewhere").await;
        stream.expect("UserJoinedChat").await;
        stream.expect_message("again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_chat_reaches_its_members_alone() {
    let (world, server, _, [alice, bob, carol]) = World::with_a_chat().await;
    let mut members = server.stream(&bob).await;
    let mut others = server.stream(&carol).await;
    members.expect("Ready").await;
    others.expect("Ready").await;

    let duet = world.chat(&alice, &[&bob]).await;
    world.sends(&alice, duet, "psst").await;
    world.person("dave", alice.workspace_id).await;

    let new = members.expect("NewChat").await;
    assert_eq!(new.data["chat_members"], json!([alice.id, bob.id]));
    members.expect_message("psst").await;
    members.expect("UserJoinedWorkspace").await;
    others.expect("UserJoinedWorkspace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workspaces_hear_nothing_of_each_other() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let elsewhere = world.workspace("Elsewhere").await;
    let eve = world.person("eve", elsewhere).await;
    let bob_there = world.joins(&bob, elsewhere).await;
    let mut here = server.stream(&bob).await;
    let mut there = server.stream(&bob_there).await;
    here.expect("Ready").await;
    there.expect("Ready").await;

    world.sends(&alice, chat, "here").await;
    world.chat(&eve, &[&bob_there]).await;

    here.expect_message("here").await;
    there.expect("NewChat").await;
    world.sends(&alice, chat, "still here").await;
    here.expect_message("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_workspace_is_reset() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let elsewhere = world.workspace("Elsewhere").await;
    let theirs = world.head(elsewhere).await;
    world.sends(&alice, chat, "hello").await;
    let head = world.head(bob.workspace_id).await;
    let mut above = head;
    above.position = above.position.next();

    for (cursor, reason) in [
        (theirs.to_string(), "cursor_unknown"),
        (above.to_string(), "cursor_unknown"),
        ("42".to_owned(), "cursor_invalid"),
    ] {
        let mut stream = server.stream_after(&bob, &cursor).await;
        let reset = stream.expect("Reset").await;
        assert_eq!(reset.id(), head.to_string());
        let data = json!({ "event": "Reset", "reason": reason, "cursor": head.to_string() });
        assert_eq!(reset.data, data, "{cursor}");
        stream.expect_end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_below_what_is_kept_is_reset() {
    let (world, server, _, [_, bob, _]) = World::with_a_chat().await;
    let oldest = sqlx::query_as::<_, (String,)>(
        "delete from events where position = 1 returning lpad(to_hex(stamp), 8, '0') || '-1'",
    );
    let (cursor,) = oldest.fetch_one(&world.db).await.unwrap();

    let mut stream = server.stream_after(&bob, cursor).await;
    assert_eq!(stream.expect("Reset").await.data["reason"], "cursor_expired");
    stream.expect_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_wins_over_the_parameter_and_an_empty_one_is_none() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let cursor = world.head(bob.workspace_id).await;
    world.sends(&alice, chat, "hello").await;
    let path = format!("/events?cursor={cursor}&access_token={}&x=y", bob.token);
    let empty = format!("/events?cursor=&token={}", bob.token);

    let mut by_parameter = Stream::open(server.get(&path)).await;
    assert_eq!(by_parameter.expect("Ready").await.data["resumed"], true);
    by_parameter.expect_message("hello").await;
    let request = server.get(&path).header("last-event-id", "nonsense");
    Stream::open(request).await.expect("Reset").await;
    let request = server.get(&path).header("last-event-id", "");
    assert_eq!(Stream::open(request).await.expect("Ready").await.data["resumed"], true);
    let mut from_now = Stream::open(server.get(&empty)).await;
    assert_eq!(from_now.expect("Ready").await.data["resumed"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_last_event_ids_the_newest_counts_under_whatever_name() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let old = world.head(bob.workspace_id).await.to_string();
    world.sends(&alice, chat, "had").await;
    let new = world.head(bob.workspace_id).await.to_string();
    world.sends(&alice, chat, "missed").await;

    let ask = || server.get("/events").bearer_auth(&bob.token);
    let name = format!("/events?lastEventId={new}&access_token={}", bob.token);
    for request in [
        ask().header("last-event-id", &old).header("last-event-id", &new),
        ask().header("last-event-id", format!("{old}, {new}")),
        server.get(&name),
    ] {
        let mut stream = Stream::open(request).await;
        assert_eq!(stream.expect("Ready").await.data["cursor"], new);
        stream.expect_message("missed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_ready_and_a_cut_comes_again_from_the_id_of_ready() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    let id = stream.expect("Ready").await.id.unwrap();
    drop(stream);
    world.sends_many(&alice, chat, &["one", "two"]).await;

    let mut resumed = server.stream_after(&bob, &id).await;
    resumed.expect("Ready").await;
    resumed.expect_message("one").await;
    resumed.expect_message("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_ends_with_goodbye() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let laptop = world.signs_in(bob.id, bob.workspace_id).await;
    let mut on_phone = server.stream(&bob).await;
    let mut on_laptop = server.stream(&laptop).await;
    on_phone.expect("Ready").await;
    on_laptop.expect("Ready").await;

    world.revokes(&bob).await;
    world.sends(&alice, chat, "secret").await;

    let revoked = on_phone.expect("SessionRevoked").await;
    assert_eq!(revoked.data["session_id"], json!(bob.session_id));
    on_phone.expect_goodbye("session_revoked").await;
    on_laptop.expect("SessionRevoked").await;
    on_laptop.expect_message("secret").await;

    let answer = server.refuses(&bob).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.json()["type"], "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_of_a_newer_version_has_the_workspace_loaded_anew() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;
    world.sends(&alice, chat, "before").await;
    let cursor = stream.expect_message("before").await.id.unwrap();

    world.removes_in_a_new_way(chat, &bob).await;
    world.sends(&alice, chat, "secret").await;

    stream.expect_goodbye("draining").await;
    let mut stream = server.stream_after(&bob, cursor).await;
    stream.expect("Ready").await;
    stream.expect("ChatMoved").await;
    world.sends(&alice, chat, "secret, too").await;
    world.revokes(&bob).await;
    stream.expect("SessionRevoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_person_gets_no_stream() {
    let (world, server, _, [_, bob, _]) = World::with_a_chat().await;
    world.execute("update workspace_members set status = 'Suspended'").await;

    let answer = server.refuses(&bob).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.json()["type"], "suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_works_with_every_doorbell_lost() {
    let (mut world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;
    world
        .execute("create function pg_notify(text, text) returns void language sql as 'select'")
        .await;
    let deaf = world.database.options().options([("search_path", "public,pg_catalog")]);
    world.log = Log::new(PgPool::connect_with(deaf).await.unwrap());

    for content in ["one", "two", "three"] {
        world.sends(&alice, chat, content).await;
        stream.expect_message(content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_to_the_database_lose_no_event() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;

    for content in ["one", "two"] {
        world
            .execute(
                "select pg_terminate_backend(pid)
                 from pg_stat_activity
                 where datname = current_database() and application_name = 'notify_server'",
            )
            .await;
        world.sends(&alice, chat, content).await;
        stream.expect_message(content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_message_reaches_every_stream() {
    let (world, server, chat, people) = World::with_a_chat().await;
    let longest = "😀".repeat(10_000);
    let mut streams = Vec::new();
    for person in &people {
        streams.push(server.stream(person).await);
    }
    for stream in &mut streams {
        stream.expect("Ready").await;
    }

    world.sends(&people[0], chat, &longest).await;

    for stream in &mut streams {
        stream.expect_message(&longest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_disconnected_and_resumes() {
    const MESSAGES: i64 = 400;
    let (world, server, chat, [alice, bob, carol]) = World::with_a_chat().await;
    let mut slow = server.stream(&bob).await;
    let mut quick = server.stream(&carol).await;
    slow.expect("Ready").await;
    quick.expect("Ready").await;
    // As JSON six times as long, and altogether more than queue and sockets hold.
    let longest = "\u{1}".repeat(10_000);
    let batch = [&*longest; 20];
    let reading = async {
        for seq in 1..=MESSAGES {
            assert_eq!(quick.expect("NewMessage").await.data["seq"], seq);
        }
    };
    let writing = async {
        for _ in 0..MESSAGES / 20 {
            world.sends_many(&alice, chat, &batch).await;
        }
    };
    tokio::join!(writing, reading);

    let (mut seq, mut cursor) = (0, String::new());
    loop {
        let frame = slow.next().await.unwrap();
        if frame.event == "Goodbye" {
            assert_eq!(frame.data["reason"], "slow_consumer");
            slow.expect_end().await;
            break;
        }
        seq += 1;
        assert_eq!(frame.data["seq"], seq);
        cursor = frame.id().to_owned();
    }
    let mut resumed = server.stream_after(&bob, cursor).await;
    resumed.expect("Ready").await;
    for seq in seq + 1..=MESSAGES {
        assert_eq!(resumed.expect("NewMessage").await.data["seq"], seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eleventh_stream_is_refused() {
    let (_world, server, _, [alice, bob, _]) = World::with_a_chat().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(server.stream(&bob).await);
    }

    let refused = server.refuses(&bob).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.json()["type"], "rate_limited");
    server.stream(&alice).await.expect("Ready").await;

    streams.pop();
    let admitted = async {
        let ask = || server.get("/events").bearer_auth(&bob.token).send();
        while ask().await.unwrap().status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, admitted).await.expect("a closed stream keeps its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_ends_the_stream() {
    let (world, server, _, [_, mut bob, _]) = World::with_a_chat().await;
    // Two whole seconds at least: the present one has begun already.
    bob.token = world.token_until(&bob, chrono::Utc::now().timestamp() + 3);

    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;
    stream.expect_goodbye("token_expired").await;

    bob.token = world.token_until(&bob, chrono::Utc::now().timestamp() - 60);
    let refused = server.refuses(&bob).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["type"], "token_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_says_goodbye() {
    let (_world, server, _, [alice, bob, _]) = World::with_a_chat().await;
    let mut streams = [server.stream(&alice).await, server.stream(&bob).await];
    for stream in &mut streams {
        stream.expect("Ready").await;
    }

    server.shutdown.cancel();

    for stream in &mut streams {
        stream.expect_goodbye("draining").await;
    }
    timeout(PATIENCE, server.task).await.expect("it goes on").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_resets_its_streams() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut stream = server.stream(&bob).await;
    stream.expect("Ready").await;
    world.sends(&alice, chat, "lost").await;
    stream.expect_message("lost").await;

    // What was restored has another event at the last position.
    world
        .execute(
            "update events set stamp = ~stamp
             where position = (select max(position) from events)",
        )
        .await;

    let reset = stream.expect("Reset").await;
    let head = world.head(bob.workspace_id).await.to_string();
    assert_eq!(reset.data["reason"], "cursor_unknown");
    assert_eq!((reset.id(), &reset.data["cursor"]), (&*head, &json!(head)));
    stream.expect_end().await;

    let mut stream = server.stream_after(&bob, head).await;
    stream.expect("Ready").await;
    world.sends(&alice, chat, "anew").await;
    stream.expect_message("anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_past_the_log_reaches_one_person_without_id() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let mut hers = server.stream(&alice).await;
    let mut his = server.stream(&bob).await;
    hers.expect("Ready").await;
    his.expect("Ready").await;
    // Both streams are live once they have seen this.
    world.sends(&alice, chat, "hello").await;
    hers.expect_message("hello").await;
    his.expect_message("hello").await;

    let event = EphemeralEvent::DuplicateMessageAttempted {
        idempotency_key: Uuid::nil(),
        chat_id: chat,
        sender_id: alice.id,
        message_id: MessageId(1),
    };
    world.log.send_ephemeral(alice.workspace_id, alice.id, event);
    let duplicate = hers.expect("DuplicateMessageAttempted").await;
    assert_eq!(duplicate.id, None);
    assert_eq!(duplicate.data["chat_id"], json!(chat));
    world.sends(&alice, chat, "goodbye").await;
    his.expect_message("goodbye").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_message_is_gone_is_passed_over() {
    let (world, server, chat, [alice, bob, _]) = World::with_a_chat().await;
    let start = world.head(bob.workspace_id).await;
    world.sends_many(&alice, chat, &["gone", "kept"]).await;
    world.execute("delete from messages where content = 'gone'").await;

    let mut stream = server.stream_after(&bob, start).await;
    stream.expect("Ready").await;
    stream.expect_message("kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_one_form() {
    let (_world, server, _, _) = World::with_a_chat().await;
    for (method, path, status, kind) in [
        (Method::GET, "/events", StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Method::GET, "/events?token=x", StatusCode::UNAUTHORIZED, "unauthenticated"),
        (Method::POST, "/events", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::GET, "/nowhere", StatusCode::NOT_FOUND, "not_found"),
    ] {
        let url = format!("http://{}{path}", server.address);
        let answer = reqwest::Client::new().request(method.clone(), url).send().await.unwrap();
        let answer = Checked::read(&method, answer).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.headers.contains_key("www-authenticate"),
            status == StatusCode::UNAUTHORIZED
        );
        assert_eq!(
            answer.headers.get("allow").map(|allow| allow.to_str().unwrap()),
            (status == StatusCode::METHOD_NOT_ALLOWED).then_some("GET,HEAD")
        );
        let id = answer.headers["x-request-id"].to_str().unwrap();
        let error = answer.json();
        assert_eq!(error["code"], status.as_u16());
        assert_eq!(error["type"], kind);
        assert_eq!(error["request_id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_once_it_reads_the_logs() {
    let (_world, server, _, _) = World::with_a_chat().await;
    let ready = async {
        let url = format!("http://{}/readyz", server.operations);
        while reqwest::get(&url).await.unwrap().status() != StatusCode::NO_CONTENT {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ready).await.expect("it never was");
}

/// Clients that leave while their workspace is loaded must not leave an old snapshot to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_is_cancelled_leaves_no_transaction() {
    let world = World::new().await;
    let one = PgPoolOptions::new().max_connections(1).connect_with(world.database.options());
    let one = one.await.unwrap();
    for microseconds in (0..2_000).step_by(50) {
        let begin = db::begin(&one, "begin isolation level repeatable read");
        drop(timeout(Duration::from_micros(microseconds), begin).await);
        let row = sqlx::raw_sql("select now() = statement_timestamp()").fetch_one(&one).await;
        assert!(row.unwrap().get::<bool, _>(0), "after {microseconds} µs");
    }
}
