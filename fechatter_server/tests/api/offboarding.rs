//! Leaving the workspace in steps: all access at once, the memberships in batches.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::time::{sleep, timeout};

use crate::harness::{Client, Logged, NOTHING, PASSWORD, PATIENCE, Person, TestApp};

/// The most memberships that one transaction ends.
const BATCH: i64 = 100;

fn path(person: &Person) -> String {
    format!("/api/users/{}", person.id)
}

#[tokio::test]
async fn very_many_memberships_end_in_batches_of_any_servers() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    app.joins_many(&bob, &alice, 5_000).await;
    let mut log = app.log_of(alice.workspace_id).await;

    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);

    let gone = alice.get(&path(&bob)).await.expect(StatusCode::OK);
    assert_eq!(gone["status"], "Left");
    bob.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    // Each looks at once for what others have left.
    let _others = [app.another(|_| {}).await, app.another(|_| {}).await];
    app.offboardings_end().await;

    let news = log.news().await;
    let (first, rest) = news.split_first().unwrap();
    let (last, left) = rest.split_last().unwrap();
    assert_eq!((first.kind.as_str(), &first.data()), ("UserUpdated", &gone));
    assert_eq!(last.kind, "UserLeftWorkspace");
    assert_eq!(last.data(), json!({ "user_id": bob.id, "reason": "removed" }));
    assert_ends_all(&app, &bob, left, 5_000).await;
    assert!(left.iter().all(|event| event.data()["actor_id"] == alice.id));
    assert!(left.iter().all(|event| event.data()["reason"] == "removed"));
    let largest: i64 = sqlx::query_scalar(
        "select max(count)
         from (select count(*) as count from events where kind = 'UserLeftChat' group by stamp) as batch",
    )
    .fetch_one(&app.db)
    .await
    .unwrap();
    assert!(largest <= BATCH, "{largest} memberships ended in one commit");
}

#[tokio::test]
async fn between_batches_the_remaining_memberships_are_listed_but_give_no_access() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    app.joins_many(&bob, &alice, 700).await;
    let lunch = alice.creates_group("Lunch", [&bob, &carol]).await;
    let other = alice.creates_private_channel("other", []).await;
    let single = bob.opens_single_with(&carol).await;
    app.halts_offboardings_at(BATCH).await;
    let mut log = app.log_of(alice.workspace_id).await;

    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_halt().await;

    let ended = log.kinds().await;
    let (first, ended) = ended.split_first().unwrap();
    assert_eq!(first, "UserUpdated");
    assert_eq!(ended, ["UserLeftChat"; 100]);
    assert_eq!(alice.members_of(&lunch).await, [alice.id, bob.id, carol.id]);
    assert_eq!(alice.sidebar(&lunch).await["member_count"], 3);
    alice.sends(&lunch, "They are out already").await;
    for read in ["/api/me", "/api/sync", "/api/chat", &lunch.path, &lunch.messages] {
        bob.get(read).await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let sent = bob.post(&lunch.messages, json!({ "content": "Hello?" })).await;
    sent.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    for (adding, chat) in [(&alice, &lunch), (&alice, &other)] {
        let added = adding.post(&chat.members, json!([bob.id])).await;
        added.refuses(StatusCode::NOT_FOUND, "user_not_found");
    }
    let transferred = alice.patch(&lunch.member(bob.id), NOTHING).await;
    transferred.refuses(StatusCode::BAD_REQUEST, "not_a_chat_member");
    alice.delete(&path(&bob), NOTHING).await.refuses(StatusCode::NOT_FOUND, "not_found");
    let draft = json!({ "chat_type": "Single", "members": [bob.id] });
    alice.post("/api/chat", draft).await.refuses(StatusCode::NOT_FOUND, "user_not_found");
    // A membership that a colleague ends is not ended again.
    alice.removes([&bob], &lunch).await;

    app.offboardings_continue().await;
    app.offboardings_end().await;

    let news = log.news().await;
    assert_eq!([&*news[0].kind, &*news[1].kind], ["NewMessage", "UserLeftChat"]);
    assert_eq!(news[1].chat_id, Some(lunch.id));
    let (last, left) = news[2..].split_last().unwrap();
    assert_eq!(last.kind, "UserLeftWorkspace");
    assert_ends_all(&app, &bob, left, 601).await;
    assert_eq!(left.last().unwrap().chat_id, Some(single.id));
    assert_eq!(alice.members_of(&lunch).await, [alice.id, carol.id]);
}

#[tokio::test]
async fn an_offboarding_that_a_server_leaves_unfinished_is_finished_by_the_next() {
    let mut app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    app.joins_many(&bob, &alice, 1_000).await;
    app.halts_offboardings_at(BATCH + 1).await;
    let mut log = app.log_of(alice.workspace_id).await;
    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_halt().await;
    let mut news = log.news().await;
    assert_eq!(news.len(), 201);

    app.ends().await;
    app.offboardings_continue().await;
    let next = app.another(|_| {}).await;
    app.offboardings_end().await;

    news.extend(log.news().await);
    let (last, left) = news[1..].split_last().unwrap();
    assert_eq!(last.kind, "UserLeftWorkspace");
    assert_eq!(last.data(), json!({ "user_id": bob.id, "reason": "removed" }));
    assert_ends_all(&app, &bob, left, 1_000).await;
    assert!(left.iter().all(|event| event.data()["actor_id"] == alice.id));
    let alice = next.anyone.with_token(&alice.token);
    let gone = alice.get(&path(&bob)).await.expect(StatusCode::OK);
    assert_eq!(gone["status"], "Left");
}

#[tokio::test]
async fn a_person_cannot_return_before_their_offboarding_ends() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let lunch = alice.creates_group("Lunch", [&bob, &carol]).await;
    let elsewhere = carol.post("/api/workspaces", json!({ "name": "Mine" })).await;
    let elsewhere = elsewhere.expect(StatusCode::CREATED)["id"].clone();
    let switch = format!("/api/workspaces/{elsewhere}/switch");
    let elsewhere = carol.post(&switch, NOTHING).await.expect(StatusCode::OK);
    let elsewhere = Person::signed_in(&app.anyone, &elsewhere);
    let invite = json!({ "max_uses": 2, "chat_ids": [lunch.id] });
    let invite = alice.post("/api/invites", invite).await.expect(StatusCode::CREATED);
    let (by_code, by_name) = (json!({ "invite_code": invite["code"] }), json!({ "name": "Acme" }));
    let signs_up = async |anyone: &Client, field: &str, value: &Value, password: &str| {
        let mut request = json!({ "fullname": "Bobby", "email": bob.email, "password": password });
        request[field] = value.clone();
        anyone.post("/api/signup", request).await
    };
    app.halts_offboardings_at(0).await;
    for person in [&bob, &carol] {
        person.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    }
    let mut log = app.log_of(alice.workspace_id).await;

    let mut early = Vec::new();
    for door in [&by_code, &by_name] {
        early.push(elsewhere.post("/api/workspaces/join", door.clone()).await);
    }
    for (field, value) in [("invite_code", &invite["code"]), ("workspace", &json!("Acme"))] {
        early.push(signs_up(&app.anyone, field, value, PASSWORD).await);
        // The answer tells nobody else who is leaving.
        let guess = signs_up(&app.anyone, field, value, "not the password").await;
        guess.refuses(StatusCode::CONFLICT, "email_taken");
    }
    for reply in early {
        reply.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        assert!(reply.header("retry-after").is_some());
    }
    assert!(log.kinds().await.is_empty());

    app.offboardings_continue().await;
    app.offboardings_end().await;
    log.news().await;

    elsewhere.post("/api/workspaces/join", by_name).await.expect(StatusCode::CREATED);
    // The early attempts have not used the invite.
    let back = signs_up(&app.anyone, "invite_code", &invite["code"], PASSWORD).await;
    let back = Person::signed_in(&app.anyone, &back.expect(StatusCode::CREATED));
    assert_eq!(back.id, bob.id);
    let told = log.kinds().await;
    assert_eq!(told, ["UserJoinedWorkspace", "UserJoinedWorkspace", "UserJoinedChat"]);
    assert_eq!(alice.members_of(&lunch).await, [alice.id, bob.id]);
    let invites = alice.get("/api/invites").await.expect(StatusCode::OK);
    assert_eq!(invites["items"][0]["uses"], 1);
}

#[tokio::test]
async fn offboardings_without_chats_and_repeated_offboardings_are_complete() {
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let mut log = app.log_of(alice.workspace_id).await;

    bob.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;
    assert_eq!(log.kinds().await, ["UserUpdated", "UserLeftWorkspace"]);

    let bob = app.user("bob").await;
    let lunch = alice.creates_group("Lunch", [&bob, &carol]).await;
    log.news().await;
    alice.delete(&path(&bob), NOTHING).await.expect(StatusCode::NO_CONTENT);
    app.offboardings_end().await;

    let news = log.news().await;
    let kinds: Vec<_> = news.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["UserUpdated", "UserLeftChat", "UserLeftWorkspace"]);
    assert_eq!(news[1].chat_id, Some(lunch.id));
    assert_eq!(news[2].data()["reason"], "removed");
}

#[tokio::test]
async fn a_failed_offboarding_is_retried_and_does_not_delay_others() {
    const FAILS: &str = "
        create function fail() returns trigger language plpgsql as $$
        begin raise exception 'not yet'; end
        $$;
        create trigger fail before update on chat_members for each row when (old.user_id = 2)
            execute function fail();";
    let app = TestApp::start().await;
    let [alice, bob, carol] = app.users(["alice", "bob", "carol"]).await;
    let lunch = alice.creates_group("Lunch", [&bob, &carol]).await;
    assert_eq!(bob.id, 2);
    sqlx::raw_sql(FAILS).execute(&app.db).await.unwrap();

    for person in [&bob, &carol] {
        person.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);
    }

    let leaves = async {
        while alice.members_of(&lunch).await.contains(&carol.id) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, leaves).await.unwrap();
    assert_eq!(alice.members_of(&lunch).await, [alice.id, bob.id]);
    sqlx::raw_sql("drop trigger fail on chat_members").execute(&app.db).await.unwrap();
    app.offboardings_end().await;
    assert_eq!(alice.members_of(&lunch).await, [alice.id]);
}

#[tokio::test]
async fn the_workspace_gets_another_owner_id_at_once() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    app.promotes(&bob, "owner").await;
    app.halts_offboardings_at(0).await;
    let mut log = app.log_of(alice.workspace_id).await;

    alice.post("/api/workspace/leave", NOTHING).await.expect(StatusCode::NO_CONTENT);

    assert_eq!(log.kinds().await, ["UserUpdated", "WorkspaceUpdated"]);
    let workspace = bob.get("/api/workspace").await.expect(StatusCode::OK);
    assert_eq!(workspace["owner_id"], bob.id);
    let leaving = bob.post("/api/workspace/leave", NOTHING).await;
    leaving.refuses(StatusCode::CONFLICT, "last_owner");
}

/// Each of these events ended a different one of the person's memberships, in the order of the chats, and none
/// of theirs is left.
async fn assert_ends_all(app: &TestApp, person: &Person, left: &[Logged], count: usize) {
    assert_eq!(left.len(), count);
    assert!(left.iter().all(|event| event.kind == "UserLeftChat"));
    assert!(left.iter().all(|event| event.user_id == Some(person.id)));
    assert!(left.is_sorted_by(|one, next| one.chat_id < next.chat_id));
    let positions: Vec<_> = left.iter().map(|event| event.position).collect();
    let chats: Vec<_> = left.iter().map(|event| event.chat_id.unwrap()).collect();
    let agreeing: i64 = sqlx::query_scalar(
        "select count(*)
         from unnest($1::bigint[], $2::bigint[]) as event (position, chat_id)
         join chat_members as m on m.chat_id = event.chat_id and m.left_position = event.position
         where m.user_id = $3",
    )
    .bind(positions)
    .bind(chats)
    .bind(person.id)
    .fetch_one(&app.db)
    .await
    .unwrap();
    assert_eq!(usize::try_from(agreeing), Ok(count));
    let wrong: i64 = sqlx::query_scalar(
        "select count(*)
         from chats as c
         left join lateral (
             select count(*) as count, count(*) filter (where user_id = $1) as theirs
             from chat_members as m
             where m.chat_id = c.id and m.left_position is null
         ) as members on true
         where c.deleted_at is null
           and (c.member_count <> members.count or members.theirs > 0)",
    )
    .bind(person.id)
    .fetch_one(&app.db)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "chats with a wrong number of members, or with one who has left");
}

impl TestApp {
    /// Puts two people into so many private channels, which the first one owns.
    async fn joins_many(&self, owner: &Person, other: &Person, count: i32) {
        let joined = sqlx::query(
            "with made as (
                 insert into chats (workspace_id, chat_type, name, name_key, name_unique, name_skeleton,
                                    owner_id, creator_id, member_count)
                 select $1, 'PrivateChannel', n, n, n, n, $2, $2, 2 from generate_series(1, $4) as n
                 returning id
             )
             insert into chat_members (workspace_id, chat_id, user_id, joined_position)
             select $1, made.id, person, 1
             from made
             cross join unnest(array[$2, $3]) as person",
        );
        let joined = joined.bind(owner.workspace_id).bind(owner.id).bind(other.id).bind(count);
        joined.execute(&self.db).await.unwrap();
    }

    /// Lets no offboarding go on once the memberships of so many chats, or more, have ended: between two batches,
    /// or before the first one.
    async fn halts_offboardings_at(&self, chats: i64) {
        let halting = format!(
            "create function halt() returns trigger language plpgsql as $$
             begin
                 if new.ended_upto >= {chats} then
                     new.next_batch_at := 'infinity';
                 end if;
                 return new;
             end
             $$;
             create trigger halt before insert or update on offboardings
                 for each row execute function halt();"
        );
        sqlx::raw_sql(AssertSqlSafe(halting)).execute(&self.db).await.unwrap();
    }

    /// Waits until the offboarding has come to where it halts.
    async fn offboardings_halt(&self) {
        let halted = "select exists (select from offboardings where next_batch_at = 'infinity')";
        let halting = async {
            while !sqlx::query_scalar::<_, bool>(halted).fetch_one(&self.db).await.unwrap() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, halting).await.unwrap();
    }

    async fn offboardings_continue(&self) {
        let going_on = "drop trigger halt on offboardings;
                        update offboardings set next_batch_at = clock_timestamp();";
        sqlx::raw_sql(going_on).execute(&self.db).await.unwrap();
    }
}
