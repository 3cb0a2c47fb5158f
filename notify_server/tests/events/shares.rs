//! What one person and one workspace may take: others do not notice a crowd.

use std::time::Duration;

use fechatter_core::WorkspaceId;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::{Executor, Postgres};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::world::{PATIENCE, Person, Server, World};

/// The people of a workspace whose queries wait in the database.
struct Crowd {
    people: Vec<Person>,
    /// They wait for as long as this is open.
    held: PoolConnection<Postgres>,
}

impl World {
    /// So many people, in a database where this obstacle asks whether a workspace `passes`.
    async fn crowd(&self, people: usize, obstacle: &'static str) -> Crowd {
        self.execute(
            "create function passes(workspace bigint) returns boolean language plpgsql
             set lock_timeout = '1min' as $$
             begin
                 perform pg_advisory_xact_lock_shared(workspace);
                 return true;
             end $$",
        )
        .await;
        self.execute(obstacle).await;
        let workspace = self.workspace("Crowded").await;
        let mut crowd = Vec::new();
        for number in 0..people {
            crowd.push(self.person(&format!("crowd{number}"), workspace).await);
        }
        let mut held = self.db.acquire().await.unwrap();
        let lock = sqlx::query("select pg_advisory_lock($1)").bind(workspace);
        held.execute(lock).await.unwrap();
        Crowd { people: crowd, held }
    }

    /// The connections on which queries of the crowd wait in the database.
    async fn waiting(&self) -> Vec<i32> {
        let waiting = "select pid
                       from pg_locks
                       where locktype = 'advisory' and not granted and database = (
                           select oid from pg_database where datname = current_database()
                       )
                       order by pid";
        sqlx::query_scalar(waiting).fetch_all(&self.db).await.unwrap()
    }

    async fn waits_for(&self, queries: usize) -> Vec<i32> {
        let waiting = async {
            loop {
                let waiting = self.waiting().await;
                if waiting.len() >= queries {
                    return waiting;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the crowd does not wait")
    }
}

impl Server {
    fn resumes(&self, person: &Person, cursor: &str) -> RequestBuilder {
        let request = self.get("/events").bearer_auth(&person.token);
        request.header("last-event-id", cursor)
    }
}

const SLOW_REPLAYS: &str = "
    alter function events_for rename to all_events_for;
    create function events_for(workspace bigint, first bigint, last bigint, reader bigint)
        returns setof events language plpgsql as $$
    begin
        if reader is not null then
            perform passes(workspace);
        end if;
        return query select * from all_events_for(workspace, first, last, reader);
    end $$";

const SLOW_STARTS: &str = "
    alter table sessions rename to all_sessions;
    create view sessions as select * from all_sessions where passes(workspace_id)";

#[tokio::test(flavor = "multi_thread")]
async fn replays_of_a_crowded_workspace_let_another_ones_through() {
    let mut world = World::new().await;
    world.config.notify.recent_events = 1;
    let (server, chat, [alice, bob, _]) = world.has_a_chat().await;
    let crowd = world.crowd(6, SLOW_REPLAYS).await;
    let start = world.head(bob.workspace_id).await;
    let texts: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    world.sends_many(&alice, chat, &texts).await;

    let their_start = world.cursor_at(crowd.people[0].workspace_id, 1).await;
    let mut theirs = Vec::new();
    for person in &crowd.people {
        for _ in 0..9 {
            let mut stream = server.stream_after(person, &their_start).await;
            stream.expect("Ready").await;
            theirs.push(stream);
        }
    }
    let waiting = world.waits_for(2).await;

    let mut stream = server.stream_after(&bob, start).await;
    stream.expect("Ready").await;
    for text in texts {
        stream.expect_message(text).await;
    }
    assert_eq!(world.waiting().await, waiting, "the crowd keeps its share, and no more");

    drop(crowd.held.detach());
    for stream in &mut theirs {
        stream.expect("UserJoinedWorkspace").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_is_far_behind_lets_others_start() {
    let mut world = World::new().await;
    world.config.notify.recent_events = 1;
    let (server, _, [_, bob, _]) = world.has_a_chat().await;
    let crowd = world.crowd(6, SLOW_REPLAYS).await;
    let workspaces = [bob.workspace_id, crowd.people[0].workspace_id];
    for workspace in workspaces {
        world.is_6000_ahead(workspace).await;
    }

    let their_start = world.cursor_at(workspaces[1], 10).await;
    let mut starting = JoinSet::new();
    for person in &crowd.people {
        for _ in 0..9 {
            starting.spawn(server.resumes(person, &their_start).send());
        }
    }
    let waiting = world.waits_for(2).await;

    let start = world.cursor_at(bob.workspace_id, 10).await;
    server.stream_after(&bob, start).await.expect("Reset").await;
    assert_eq!(world.waiting().await, waiting, "the crowd keeps its share, and no more");
    drop(crowd.held.detach());
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_of_a_crowded_workspace_leave_connections_to_others() {
    let mut world = World::new().await;
    world.config.database.max_connections = 6;
    world.config.limits.database_percent_per_workspace = 50;
    let (server, _, [_, bob, _]) = world.has_a_chat().await;
    let crowd = world.crowd(6, SLOW_STARTS).await;

    let mut starting = JoinSet::new();
    for person in &crowd.people {
        for _ in 0..9 {
            starting.spawn(server.resumes(person, "").send());
        }
    }
    let waiting = world.waits_for(3).await;

    server.stream(&bob).await.expect("Ready").await;
    assert_eq!(world.waiting().await, waiting, "the crowd keeps its share, and no more");
    drop(crowd.held.detach());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_gets_no_turn_is_put_off() {
    let mut world = World::new().await;
    world.config.limits.database_percent_per_person = 1;
    let (server, _, _) = world.has_a_chat().await;
    let crowd = world.crowd(1, SLOW_STARTS).await;
    let mut starting = JoinSet::new();
    for _ in 0..4 {
        starting.spawn(server.resumes(&crowd.people[0], "").send());
    }

    while let Some(answer) = starting.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3..=10).contains(&wait));
    }
    drop(crowd.held.detach());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_give_no_turn_back_before_the_database_is_done() {
    let mut world = World::new().await;
    world.config.database.max_connections = 6;
    world.config.limits.database_percent_per_workspace = 50;
    let (server, _, _) = world.has_a_chat().await;
    let crowd = world.crowd(6, SLOW_STARTS).await;

    for _ in 0..2 {
        let mut starting = JoinSet::new();
        for person in &crowd.people {
            let start = server.resumes(person, "").send();
            starting.spawn(timeout(Duration::from_millis(300), start));
        }
        starting.join_all().await;
        let waiting = world.waiting().await.len();
        assert!(waiting <= 3, "{waiting} of 6 connections are taken");
    }
    drop(crowd.held.detach());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_starts_streams_too_often_is_put_off() {
    let mut world = World::new().await;
    world.config.http.requests_per_second = 1;
    let (server, _, [alice, bob, _]) = world.has_a_chat().await;
    // Also where the database would have said no.
    world.revokes(&bob).await;
    let mut starting = JoinSet::new();
    for _ in 0..300 {
        starting.spawn(server.resumes(&bob, "").send());
    }

    let mut refused = 0;
    while let Some(answer) = starting.join_next().await {
        let answer = answer.unwrap().unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers().contains_key("retry-after"));
            let error: Value = answer.json().await.unwrap();
            assert_eq!(error["type"], "rate_limited");
            refused += usize::from(error["error"] == "too many requests");
        }
    }
    assert!((150..=200).contains(&refused), "{refused} of 300 were refused");
    server.stream(&alice).await.expect("Ready").await;
}

impl World {
    /// Events for nobody in particular, which is for all.
    async fn is_6000_ahead(&self, workspace: WorkspaceId) {
        sqlx::query(
            "insert into events (workspace_id, position, stamp, kind, effect, payload)
             select $1, head.position + n, 7, 'WorkspaceUpdated', 'none',
                    '{\"event\": \"WorkspaceUpdated\"}'
             from (select max(position) as position from events where workspace_id = $1) as head,
                  generate_series(1, 6000) as n",
        )
        .bind(workspace)
        .execute(&self.db)
        .await
        .unwrap();
    }
}
