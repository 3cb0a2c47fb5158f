//! Tests that a message has the same result alone and in a batch, and that reactions keep their
//! limits.

use std::collections::HashSet;
use std::sync::LazyLock;

use fechatter_core::event::Event;
use fechatter_core::log::{self, Range};
use fechatter_core::message::Reaction;
use fechatter_core::{ChatId, Position, SessionId, WorkspaceId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::*;
use crate::models::message;
use crate::models::message::change::{Action, Change};
use crate::services::batch_writer::tests::{
    World, change, outgoing, person, reaction, sent_by_system,
};

/// The numbers of workspaces, chats and people, whose ids begin with 1. Steps may have an id above
/// these, which does not exist.
const COUNTS: [i64; 3] = [2, 2, 5];
const KEYS: u128 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Workspace, chat, person, the person of the session (0: Fechatter itself), key, content.
    Send(i64, i64, i64, i64, u128, &'static str),
    /// A statement that changes existing rows, the id of a workspace or chat, and a person.
    Change(&'static str, i64, i64),
}

const CHANGES: [&str; 14] = [
    "update workspace_logs set status = 'Suspended' where workspace_id = $1 and $2 > 3",
    "update workspace_logs set status = 'Active' where workspace_id = $1 and $2 > 0",
    "update workspace_members set status = 'Suspended' where workspace_id = $1 and user_id = $2
         and left_at is null",
    "update workspace_members set status = 'Active' where workspace_id = $1 and user_id = $2
         and left_at is null",
    "update workspace_members set status = 'Left', left_at = now()
         where workspace_id = $1 and user_id = $2",
    "update sessions set revoked_at = now() where $1 > 0 and user_id = $2",
    "update sessions set revoked_at = null where $1 > 0 and user_id = $2",
    "update sessions set expires_at = now() - interval '1 s' where $1 > 0 and user_id = $2",
    "update sessions set expires_at = now() + interval '1 day' where $1 > 0 and user_id = $2",
    "update chats set archived_at = now() where id = $1 and $2 > 0",
    "update chats set archived_at = null where id = $1 and $2 > 0",
    "update chats set deleted_at = now() where id = $1 and $2 > 3",
    "update chat_members set left_position = 1000 where chat_id = $1 and user_id = $2
         and left_position is null",
    "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
     select workspace_id, chat_id, user_id, 1 + max(joined_position)
     from chat_members
     where chat_id = $1 and user_id = $2
     group by 1, 2, 3
     having bool_and(left_position is not null)",
];

fn step() -> impl Strategy<Value = Step> {
    let [workspaces, chats, people] = COUNTS.map(|count| 1..=count + 1);
    let sessions = 0..=COUNTS[2] + 1;
    let sends = (workspaces, chats, people, sessions, 0..KEYS, prop_oneof![Just("a"), Just("b")]);
    let sends = sends.prop_map(|(workspace, chat, person, session, key, content)| {
        Step::Send(workspace, chat, person, session, key, content)
    });
    // Most messages come from people who may send them.
    let usual = (1..=2_i64, 1..=4_i64, 0..KEYS, prop_oneof![Just("a"), Just("b")]);
    let usual = usual.prop_map(|(chat, person, key, content)| {
        Step::Send(chat, chat, person, person, key, content)
    });
    let changes = (0..CHANGES.len(), 1..=2_i64, 1..=5_i64);
    let changes = changes.prop_map(|(n, of, person)| Step::Change(CHANGES[n], of, person));
    prop_oneof![6 => usual, 2 => sends, 3 => changes]
}

/// The stored messages and events, without their times.
type Rows = [Vec<String>; 2];

async fn stored_rows(db: &PgPool) -> Rows {
    let messages = "select (to_jsonb(m) - 'created_at')::text from messages as m order by id";
    let events = "select (to_jsonb(e) - 'created_at' - 'stamp')::text from events as e
                  order by workspace_id, position";
    let rows = async |query| sqlx::query_scalar(query).fetch_all(db).await.unwrap();
    [rows(messages).await, rows(events).await]
}

/// Asserts that the newest event of the log is the announced one.
async fn expect_announced(db: &mut PgConnection, announcement: Announcement) {
    let (workspace_id, after) = (announcement.workspace_id, announcement.after);
    let to = log::head(&mut *db, workspace_id).await.unwrap().position;
    let range = Range { workspace_id, from: after.position, to };
    let entries = log::read(db, &[range], None, 10).await.unwrap();
    assert_eq!(entries[0].cursor, after);
    assert_eq!(entries[1..], [announcement.into_entry()]);
}

/// Executes the steps in a new world. Returns the outcome of each message, and the stored rows.
async fn play(world: &World, steps: &[Step], is_alone: bool) -> (Vec<String>, Rows) {
    let mut outcomes = Vec::new();
    world.empty().await;
    let mut db = world.db().acquire().await.unwrap();
    for step in steps {
        match *step {
            Step::Send(workspace, chat, sender, session, key, content) => {
                let key = Uuid::from_u128(key);
                let mut message = if session == 0 {
                    sent_by_system(workspace, sender, content, key)
                } else {
                    outgoing(workspace, sender, content, key)
                };
                message.chat_id = ChatId(chat);
                if let Actor::Session { session_id, .. } = &mut message.actor {
                    *session_id = SessionId(Uuid::from_u128(u128::try_from(session).unwrap()));
                }
                let command = Command::Send(message.clone());
                let outcome = if is_alone {
                    let sent = send_one(&mut db, &command, &message, Locking::Wait).await;
                    let (outcome, announcement) = sent.unwrap();
                    if let Some(announcement) = announcement {
                        expect_announced(&mut db, announcement).await;
                    }
                    outcome
                } else {
                    write_many(&mut db, &[Arc::new(command)], Locking::Wait).await.unwrap()[0]
                };
                outcomes.push(match outcome {
                    Outcome::Sent { id, seq, .. } => format!("sent {id} {seq}"),
                    outcome => format!("{outcome:?}"),
                });
            }
            Step::Change(statement, of, person) => {
                let changed = sqlx::query(statement).bind(of).bind(person);
                changed.execute(&mut *db).await.unwrap();
            }
        }
    }
    (outcomes, stored_rows(world.db()).await)
}

#[test]
fn a_message_has_the_same_result_alone_and_in_a_batch() {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let world = RUNTIME.block_on(World::new());
    let config =
        ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&vec(step(), 1..40), |steps| {
            let alone = RUNTIME.block_on(play(&world, &steps, true));
            let in_batch = RUNTIME.block_on(play(&world, &steps, false));
            prop_assert_eq!(alone, in_batch);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_locked_log_is_skipped_alone_and_in_a_batch() {
    let world = World::new().await;
    let _holder = world.hold(1).await;
    let mut db = world.db().acquire().await.unwrap();
    let message = outgoing(1, 1, "hello", Uuid::from_u128(1));
    let command = Command::Send(message.clone());

    let (alone, _) = send_one(&mut db, &command, &message, Locking::Skip).await.unwrap();
    let in_batch = write_many(&mut db, &[Arc::new(command)], Locking::Skip).await.unwrap();

    assert_eq!(alone, Outcome::Locked);
    assert_eq!(in_batch, [Outcome::Locked]);
}

/// The number of different emojis: more than a message may have.
const EMOJIS: u32 = 26;

fn emoji(number: u32) -> String {
    char::from_u32('🐀' as u32 + number).unwrap().to_string()
}

/// The expected reactions of a message: the emoji and the person of each.
#[derive(Debug, Default)]
struct Model(Vec<(u32, i64)>);

impl Model {
    fn add(&mut self, number: u32, user: i64) -> Outcome {
        let is_known = self.0.iter().any(|(own, _)| *own == number);
        let kinds: HashSet<_> = self.0.iter().map(|(own, _)| *own).collect();
        let is_unchanged = self.0.contains(&(number, user));
        if !is_known && kinds.len() == 20 {
            return Outcome::Refused(Refusal::TooManyReactions);
        }
        if !is_unchanged {
            self.0.push((number, user));
        }
        self.outcome(number, is_unchanged)
    }

    fn remove(&mut self, number: u32, user: i64) -> Outcome {
        let before = self.0.len();
        self.0.retain(|reaction| *reaction != (number, user));
        self.outcome(number, self.0.len() == before)
    }

    fn outcome(&self, number: u32, is_unchanged: bool) -> Outcome {
        let count = self.0.iter().filter(|(own, _)| *own == number).count();
        let count = Some(i64::try_from(count).unwrap());
        if is_unchanged { Outcome::Unchanged { count } } else { Outcome::Changed { count } }
    }
}

/// Adds and removes reactions in batches. A batch contains each reaction only once.
async fn react(world: &World, batches: &[Vec<(u32, i64, bool)>]) {
    world.empty().await;
    let mut model = Model::default();
    let mut db = world.db().acquire().await.unwrap();
    for wanted in batches {
        let mut batch: Vec<(u32, i64, bool)> = Vec::new();
        for (number, user, removes) in wanted.iter().copied() {
            if !batch.iter().any(|other| (other.0, other.1) == (number, user)) {
                batch.push((number, user, removes));
            }
        }
        // A batch removes reactions after it has added others.
        let mut expected = vec![None; batch.len()];
        for is_turn_of_removals in [false, true] {
            for (place, (number, user, removes)) in batch.iter().copied().enumerate() {
                if removes == is_turn_of_removals {
                    let outcome =
                        if removes { model.remove(number, user) } else { model.add(number, user) };
                    expected[place] = Some(outcome);
                }
            }
        }
        // Reactions in the other chat do not affect these, nor do messages, which a batch writes
        // last.
        let key = Uuid::new_v4();
        let mut commands = vec![Command::Send(outgoing(1, 1, "hello", key))];
        for (number, user, removes) in batch {
            let action = if removes { Action::RemoveReaction } else { Action::AddReaction };
            commands.push(Command::Change(change(1, user, action(emoji(number)))));
            if number < 20 {
                commands.push(Command::Change(change(2, user, action(emoji(number)))));
            }
        }
        let commands: Vec<_> = commands.into_iter().map(Arc::new).collect();
        let outcomes = write_many(&mut db, &commands, Locking::Wait).await.unwrap();
        assert!(matches!(outcomes[0], Outcome::Sent { .. }), "{:?}", outcomes[0]);
        let is_own = |command: &Command| {
            matches!(command, Command::Change(_)) && command.chat_id() == Some(ChatId(1))
        };
        let own = commands.iter().zip(outcomes).filter(|(command, _)| is_own(command));
        assert_eq!(own.map(|(_, outcome)| Some(outcome)).collect::<Vec<_>>(), expected);
    }
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select emoji, user_id from message_reactions where chat_id = 1 order by id",
    )
    .fetch_all(world.db())
    .await
    .unwrap();
    let expected: Vec<_> = model.0.iter().map(|(number, user)| (emoji(*number), *user)).collect();
    assert_eq!(rows, expected);
}

#[test]
fn reactions_are_counted_and_limited_across_batches() {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let world = RUNTIME.block_on(World::new());
    let batch = vec((0..EMOJIS, 1..=4_i64, prop::bool::weighted(0.3)), 1..30);
    let config =
        ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&vec(batch, 1..6), |batches| {
            RUNTIME.block_on(react(&world, &batches));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_reaction_needs_an_active_member_and_a_message_of_the_chat() {
    let world = World::new().await;
    let mut db = world.db().acquire().await.unwrap();
    let stranger = reaction(1, 5, "👍");
    let of_nothing = Change { message_id: MessageId(999), ..reaction(1, 1, "👍") };
    let elsewhere = Change { message_id: MessageId(2), ..reaction(1, 1, "👍") };
    let signed_out = Change {
        actor: Actor::Session {
            user_id: UserId(1),
            workspace_id: person(1, 1).workspace_id(),
            session_id: SessionId(Uuid::nil()),
        },
        ..reaction(1, 1, "👍")
    };
    let cases = [stranger, of_nothing, elsewhere, signed_out].map(Command::Change).map(Arc::new);
    let refused = write_many(&mut db, &cases, Locking::Wait).await.unwrap();
    let [not_found, ended] = [Refusal::NotFound, Refusal::SessionEnded].map(Outcome::Refused);
    assert_eq!(refused, [not_found, not_found, not_found, ended]);

    for (change, outcome) in [
        ("update messages set deleted_at = now(), content = ''", Refusal::NotFound),
        ("update messages set deleted_at = null", Refusal::Archived),
    ] {
        sqlx::query(change).execute(&mut *db).await.unwrap();
        sqlx::query("update chats set archived_at = now()").execute(&mut *db).await.unwrap();
        let command = Arc::new(Command::Change(reaction(1, 1, "👍")));
        let refused = write_many(&mut db, &[command], Locking::Wait).await.unwrap();
        assert_eq!(refused, [Outcome::Refused(outcome)]);
    }
}

#[tokio::test]
async fn the_events_of_a_batch_match_their_declarations_in_rust() {
    let world = World::new().await;
    let mut db = world.db().acquire().await.unwrap();
    let commands = [
        Command::Send(outgoing(1, 1, "hello", Uuid::from_u128(1))),
        Command::Change(reaction(1, 2, "❤️")),
    ];
    let outcomes = write_many(&mut db, &commands.map(Arc::new), Locking::Wait).await.unwrap();
    assert!(outcomes[1] == (Outcome::Changed { count: Some(1) }), "{outcomes:?}");

    let events: Vec<(String, String, Option<i64>, Option<String>)> = sqlx::query_as(
        "select kind, effect, message_id, payload::text from events
         where workspace_id = 1 and position > 2 order by position",
    )
    .fetch_all(world.db())
    .await
    .unwrap();
    let added = Event::ReactionAdded {
        chat_id: ChatId(1),
        message_id: MessageId(1),
        user_id: UserId(2),
        emoji: "❤️".into(),
        count: 1,
    };
    let declared = added.declaration();
    let Outcome::Sent { id, .. } = outcomes[0] else { panic!("{outcomes:?}") };
    let reaction = (
        declared.kind.to_owned(),
        "none".to_owned(),
        declared.message_id.map(|id| id.0),
        Some(serde_json::to_string(&added).unwrap()),
    );
    let message = ("NewMessage".to_owned(), "none".to_owned(), Some(id.0), None);
    assert_eq!(events, [reaction, message]);
}

#[tokio::test]
async fn a_lookup_and_the_log_return_a_message_with_its_reactions() {
    let world = World::new().await;
    let mut db = world.db().acquire().await.unwrap();
    let adds = [("🎉", 2), ("👍", 1), ("🎉", 1), ("👍", 3), ("🎉", 4)];
    let commands = adds.map(|(emoji, user)| Command::Change(reaction(1, user, emoji)));
    write_many(&mut db, &commands.map(Arc::new), Locking::Wait).await.unwrap();
    let of = |emoji: &str, users: &[i64]| Reaction {
        emoji: emoji.into(),
        count: i64::try_from(users.len()).unwrap(),
        user_ids: users.iter().copied().map(UserId).collect(),
        me: Some(users.contains(&1)),
    };
    let expected = [of("🎉", &[2, 1, 4]), of("👍", &[1, 3])];

    let message = message::find(world.db(), UserId(1), ChatId(1), MessageId(1)).await.unwrap();
    assert_eq!(message.reactions, expected);

    let range = Range { workspace_id: WorkspaceId(1), from: Position(2), to: Position(7) };
    let read_entries = async || {
        let entries = log::read(world.db(), &[range], None, 10).await.unwrap();
        entries.into_iter().map(|entry| (entry.kind, entry.data)).collect::<Vec<_>>()
    };
    let entries = read_entries().await;
    let read: Value = serde_json::from_slice(entries[0].1.as_ref().unwrap()).unwrap();
    let of_nobody = expected.map(|reaction| Reaction { me: None, ..reaction });
    assert_eq!(read["reactions"], json!(of_nobody));
    assert!(entries[1..].iter().all(|(kind, data)| kind == "ReactionAdded" && data.is_some()));

    sqlx::query("update messages set deleted_at = now(), content = '' where id = 1")
        .execute(&mut *db)
        .await
        .unwrap();
    let tombstone = message::find(world.db(), UserId(1), ChatId(1), MessageId(1)).await.unwrap();
    assert_eq!(tombstone.reactions, []);
    let entries = read_entries().await;
    assert!(entries[0].1.is_some(), "a deleted message is read as its tombstone");
    assert!(entries[1..].iter().all(|(_, data)| data.is_none()), "{entries:?}");
}

#[tokio::test]
async fn a_reaction_names_the_first_twenty_of_its_people() {
    let world = World::new().await;
    sqlx::raw_sql(
        "insert into users (email, email_key, password_hash)
         select n || '@b', n || '@b', '' from generate_series(1, 25) as n;
         insert into workspace_members (workspace_id, user_id, fullname, role)
         select 1, n, 'x', 'member' from generate_series(6, 30) as n;
         insert into message_reactions (workspace_id, chat_id, message_id, emoji, user_id, created_at)
         select 1, 1, 1, '👍', 31 - n, now() from generate_series(1, 25) as n;
         update messages set parts = 1",
    )
    .execute(world.db())
    .await
    .unwrap();

    let message = message::find(world.db(), UserId(1), ChatId(1), MessageId(1)).await.unwrap();

    assert_eq!(message.reactions[0].count, 25);
    let named: Vec<_> = (11..=30).rev().map(UserId).collect();
    assert_eq!(message.reactions[0].user_ids, named);
}
