//! One message is sent in the same way alone and in a batch.

use std::sync::LazyLock;

use fechatter_core::{ChatId, SessionId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::*;
use crate::services::message_writer::tests::{World, outgoing};

/// Of workspaces, chats and people, from 1 on; there is one more of each than is there.
const HOW_MANY: [i64; 3] = [2, 2, 5];
const KEYS: u128 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Workspace, chat, person, the person whose session it is, key, content.
    Send(i64, i64, i64, i64, u128, &'static str),
    /// Changes what is there: a statement about a workspace or chat, or about a person.
    Change(&'static str, i64, i64),
}

const CHANGES: [&str; 12] = [
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
    let [workspaces, chats, people] = HOW_MANY.map(|many| 1..=many + 1);
    let sessions = people.clone();
    let sends = (workspaces, chats, people, sessions, 0..KEYS, prop_oneof![Just("a"), Just("b")]);
    let sends = sends.prop_map(|(workspace, chat, person, session, key, content)| {
        Step::Send(workspace, chat, person, session, key, content)
    });
    // Most are by somebody who may.
    let usual = (1..=2_i64, 1..=4_i64, 0..KEYS, prop_oneof![Just("a"), Just("b")]);
    let usual = usual.prop_map(|(chat, person, key, content)| {
        Step::Send(chat, chat, person, person, key, content)
    });
    let changes = (0..CHANGES.len(), 1..=2_i64, 1..=5_i64);
    let changes = changes.prop_map(|(n, of, person)| Step::Change(CHANGES[n], of, person));
    prop_oneof![6 => usual, 2 => sends, 3 => changes]
}

/// The rows that a history leaves, but for the times in them.
type Left = [Vec<String>; 2];

async fn left(db: &PgPool) -> Left {
    let messages = "select (to_jsonb(m) - 'created_at')::text from messages as m order by id";
    let events = "select (to_jsonb(e) - 'created_at' - 'stamp')::text from events as e
                  order by workspace_id, position";
    let rows = async |query| sqlx::query_scalar(query).fetch_all(db).await.unwrap();
    [rows(messages).await, rows(events).await]
}

/// Plays a history that is gone afterwards; what each message came to, and what is left of them.
async fn play(world: &World, steps: &[Step], is_alone: bool) -> (Vec<String>, Left) {
    let mut outcomes = Vec::new();
    world.empty().await;
    let mut db = world.db().acquire().await.unwrap();
    for step in steps {
        match *step {
            Step::Send(workspace, chat, person, session, key, content) => {
                let mut message = outgoing(workspace, person, content, Uuid::from_u128(key));
                message.chat_id = ChatId(chat);
                message.sender.session_id =
                    SessionId(Uuid::from_u128(u128::try_from(session).unwrap()));
                let outcome = if is_alone {
                    send_one(&mut db, &message, Locking::Wait).await.unwrap()
                } else {
                    send_many(&mut db, &[Arc::new(message)], Locking::Wait).await.unwrap()[0]
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
    (outcomes, left(world.db()).await)
}

#[test]
fn one_message_is_sent_alone_as_it_is_in_a_batch() {
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
async fn a_log_that_somebody_holds_is_left_out_in_either_way() {
    let world = World::new().await;
    let _holder = world.hold(1).await;
    let mut db = world.db().acquire().await.unwrap();
    let message = outgoing(1, 1, "hello", Uuid::from_u128(1));

    let alone = send_one(&mut db, &message, Locking::Skip).await.unwrap();
    let in_batch = send_many(&mut db, &[Arc::new(message)], Locking::Skip).await.unwrap();

    assert_eq!(alone, Outcome::Locked);
    assert_eq!(in_batch, [Outcome::Locked]);
}
