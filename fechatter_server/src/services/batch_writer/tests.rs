//! Tests that every caller is answered and no command is carried out twice, for any faults of
//! batches.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{LazyLock, Mutex};

use devdb::TestDatabase;
use fechatter_core::config::DatabaseConfig;
use fechatter_core::db;
use fechatter_core::schema::{CODE, MIGRATOR};
use fechatter_core::{ChatId, MessageId, SessionId, UserId, WorkspaceId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;
use crate::models::message::change::Action;
use crate::models::session::actor::Actor;

/// The timeout for everything that must happen.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const PEOPLE: i64 = 4;
/// Two workspaces with the same five people, and a chat with a message each. The fifth person is in
/// no chat.
const WORLD: &str = "
    insert into users (email, email_key, password_hash)
    select n::text || '@a.b', n::text || '@a.b', '' from generate_series(1, 5) as n;
    insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
    select name, name, name, 1, 'open' from (values ('one'), ('two')) as new (name);
    insert into workspace_members (workspace_id, user_id, fullname, role)
    select w, n, 'x', 'member' from generate_series(1, 2) as w, generate_series(1, 5) as n;
    insert into sessions (id, user_id, workspace_id, expires_at)
    select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, n, 1, now() + interval '1 day'
    from generate_series(1, 5) as n;
    insert into workspace_logs values (1), (2);
    begin;
    insert into chats (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id,
                       creator_id, member_count)
    select w, 'Group', 'x', 'x', 'x', 'x', 1, 1, 4 from generate_series(1, 2) as w;
    insert into chat_members (workspace_id, chat_id, user_id, joined_position)
    select w, w, n, 1 from generate_series(1, 2) as w, generate_series(1, 4) as n;
    select append_events(
        '{1,2}', null, 0, '{NewChat,NewChat}', '{none,none}', null, null, null, null, null,
        array['{}', '{}']::json[]);
    insert into messages (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
    select w, w, 1, 1, 'first', lpad(w::text, 32, 'f')::uuid, '' from generate_series(1, 2) as w;
    select append_events(
        '{1,2}', null, 0, '{NewMessage,NewMessage}', '{none,none}', null, null, '{1,2}', null, '{1,2}', null);
    commit;";
/// A trigger that fails like a statement timeout.
const SLOW: &str = "
    create function take_too_long() returns trigger language plpgsql as $$
    begin
        raise exception 'canceling statement due to statement timeout' using errcode = 'query_canceled';
    end;
    $$;
    create trigger slow before insert on messages
        for each row when (new.content = 'slow') execute function take_too_long();";
const EMOJIS: [&str; 3] = ["👍", "❤️", "🇨🇭"];

/// A fault in one attempt to write a batch.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Nothing,
    Error,
    /// The batch is written, but its answer is lost.
    LostAnswer,
    Delay,
    PanicBefore,
    PanicAfter,
}

/// The real connections, with faults.
#[derive(Debug, Clone)]
struct Faulty {
    connections: Connections,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl BatchExecutor for Faulty {
    async fn execute(&self, batch: Vec<Arc<Command>>, locking: Locking) -> Result<Vec<Outcome>> {
        let lost = || Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()).into());
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::Nothing);
        match fault {
            Fault::Nothing => {}
            Fault::Error => return lost(),
            Fault::Delay => sleep(Duration::from_millis(5)).await,
            Fault::PanicBefore => panic!("before"),
            Fault::LostAnswer | Fault::PanicAfter => {
                self.connections.execute(batch, locking).await?;
                if matches!(fault, Fault::PanicAfter) {
                    panic!("after");
                }
                return lost();
            }
        }
        self.connections.execute(batch, locking).await
    }
}

/// A kind of command, for a person and a chat.
#[derive(Debug, Clone, Copy)]
enum Draft {
    Plain,
    /// The same command as before, under the same key.
    Repeat,
    /// The database refuses it: it is too long.
    Poison,
    /// The database cancels it as too slow.
    Slow,
    /// The sender is not in the chat.
    Stranger,
    /// Sent by Fechatter in the name of a person who is not in the chat.
    System,
    /// Pins the chat, or takes the pin away.
    Pin(bool),
    /// One of the emojis.
    Reaction(usize),
    /// The database refuses it: it is too long.
    PoisonReaction,
    /// The message does not exist.
    LostReaction,
}

/// The success of a command.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few of them")]
enum Done {
    Sent(Sent),
    Changed,
}

/// Two workspaces with a chat each, and five people.
pub(crate) struct World {
    db: PgPool,
    log: Log,
    _database: TestDatabase,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let url = database.url().into();
        let config = DatabaseConfig { url, listen_url: None, max_connections: 10 };
        let db = db::connect(db::options(&config, "tests").unwrap(), &config, 0, &[]).await;
        sqlx::raw_sql(WORLD).execute(&db).await.unwrap();
        sqlx::raw_sql(SLOW).execute(&db).await.unwrap();
        Self { log: Log::new(db.clone()), db, _database: database }
    }

    pub(crate) fn db(&self) -> &PgPool {
        &self.db
    }

    /// Resets the database to its initial content.
    pub(crate) async fn empty(&self) {
        let all = "truncate users, workspaces, workspace_members, member_words, avatars, sessions, workspace_logs, chats, chat_members,
                       messages, message_reactions, message_replies, message_mentions, read_marks, chat_preferences,
                       user_preferences, events, invites, offboardings, blanked_people, files, uploads, message_files, password_resets, setup_codes, audit_log restart identity";
        sqlx::raw_sql(all).execute(&self.db).await.unwrap();
        sqlx::raw_sql(WORLD).execute(&self.db).await.unwrap();
    }

    fn writer(&self, faults: &[Fault]) -> (BatchWriter, WriterEnded) {
        let faults = Arc::new(Mutex::new(faults.iter().copied().collect()));
        let writers = [(); 2].map(|()| Faulty {
            connections: Connections::new(self.log.clone()),
            faults: Arc::clone(&faults),
        });
        let [executor, direct] = writers;
        BatchWriter::start_with(self.log.clone(), executor, direct).unwrap()
    }

    /// Locks the log of a workspace until dropped.
    pub(crate) async fn hold(&self, workspace: i64) -> Transaction<'static, Postgres> {
        let mut holder = db::begin(&self.db, "begin").await.unwrap();
        sqlx::query("set local idle_in_transaction_session_timeout = 0")
            .execute(&mut *holder)
            .await
            .unwrap();
        sqlx::query("select from workspace_logs where workspace_id = $1 for no key update")
            .bind(workspace)
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    }

    /// Counts the messages of each key, without the initial ones. Asserts that seqs, positions and
    /// events match the messages and reactions.
    async fn keys(&self) -> HashMap<Uuid, i64> {
        let faults: i64 = sqlx::query_scalar(
            "select count(*)
             from (select seq, row_number() over (partition by chat_id order by id) as n from messages) as m
             full join (
                 select position, row_number() over (partition by workspace_id order by position) as n
                 from events
             ) as e on false
             where m.seq <> m.n or e.position <> e.n",
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        assert_eq!(faults, 0, "seqs and positions are contiguous");
        let unmatched: i64 = sqlx::query_scalar(
            "select count(*)
             from messages as m
             full join (select * from events where kind = 'NewMessage') as e
                 on e.chat_id = m.chat_id and e.message_id = m.id
             where m.id is null or e.message_id is null",
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        assert_eq!(unmatched, 0, "each message has its event");
        let miscounted: i64 = sqlx::query_scalar(
            "select count(*)
             from (
                 select chat_id, message_id, emoji, user_id,
                        row_number() over (partition by chat_id, message_id, emoji order by id) as n
                 from message_reactions
             ) as r
             full join (
                 select chat_id, message_id, payload->>'emoji' as emoji,
                        (payload->>'user_id')::bigint as user_id, (payload->>'count')::bigint as n
                 from events
                 where kind = 'ReactionAdded'
             ) as e using (chat_id, message_id, emoji, user_id, n)
             where r.n is null or e.n is null",
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        assert_eq!(miscounted, 0, "each reaction has its event with its count");
        let keys = sqlx::query_as(
            "select idempotency_key, count(*) from messages where seq > 1 group by 1",
        );
        keys.fetch_all(&self.db).await.unwrap().into_iter().collect()
    }
}

/// A person with their own session.
pub(crate) fn person(workspace: i64, user: i64) -> Actor {
    Actor::Session {
        user_id: UserId(user),
        workspace_id: WorkspaceId(workspace),
        session_id: SessionId(Uuid::from_u128(
            u128::from_str_radix(&user.to_string(), 16).unwrap(),
        )),
    }
}

pub(crate) fn outgoing(workspace: i64, user: i64, content: &str, key: Uuid) -> Outgoing {
    Outgoing::new(person(workspace, user), ChatId(workspace), content.into(), key)
}

/// A message that Fechatter sends in the name of a person.
pub(crate) fn sent_by_system(workspace: i64, user: i64, content: &str, key: Uuid) -> Outgoing {
    let actor = Actor::System { user_id: UserId(user), workspace_id: WorkspaceId(workspace) };
    Outgoing::new(actor, ChatId(workspace), content.into(), key)
}

/// A change of the first message of the workspace's chat.
pub(crate) fn change(workspace: i64, user: i64, action: Action) -> Change {
    Change {
        actor: person(workspace, user),
        chat_id: ChatId(workspace),
        message_id: MessageId(workspace),
        action,
    }
}

fn pin(workspace: i64, user: i64, pinned: bool) -> PreferenceChange {
    PreferenceChange {
        actor: person(workspace, user),
        chat_id: Some(ChatId(workspace)),
        values: format!(r#"{{"pinned":{pinned}}}"#),
    }
}

pub(crate) fn reaction(workspace: i64, user: i64, emoji: &str) -> Change {
    change(workspace, user, Action::AddReaction(emoji.into()))
}

async fn execute(writer: &BatchWriter, command: Command) -> Result<Done> {
    match command {
        Command::Send(message) => writer.send(message).await.map(Done::Sent),
        Command::Change(change) => writer.change(change).await.map(|()| Done::Changed),
        Command::Prefer(change) => writer.prefer(change).await.map(|()| Done::Changed),
    }
}

/// Executes all commands at the same time. The answers are in the order of the commands.
async fn execute_all(writer: &BatchWriter, commands: Vec<Command>) -> Vec<Result<Done>> {
    let sends = commands.into_iter().map(|command| {
        let writer = writer.clone();
        tokio::spawn(async move { execute(&writer, command).await })
    });
    let mut answers = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        let answer = timeout(TEST_TIMEOUT, send).await.expect("every caller is answered");
        answers.push(answer.unwrap());
    }
    answers
}

async fn expect_end(ended: WriterEnded) {
    timeout(TEST_TIMEOUT, ended).await.expect("the writer ends").unwrap();
}

/// Returns true if the caller cannot know the result of the command.
fn is_unknown(answer: &Result<Done>) -> bool {
    matches!(answer, Err(AppError::Busy | AppError::Task(_)))
}

#[test]
fn after_any_fault_all_callers_are_answered_and_no_command_is_done_twice() {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    let world = RUNTIME.block_on(World::new());
    let draft = prop_oneof![
        6 => Just(Draft::Plain),
        2 => Just(Draft::Repeat),
        1 => Just(Draft::Poison),
        1 => Just(Draft::Slow),
        1 => Just(Draft::Stranger),
        1 => Just(Draft::System),
        2 => any::<bool>().prop_map(Draft::Pin),
        5 => (0..EMOJIS.len()).prop_map(Draft::Reaction),
        1 => Just(Draft::PoisonReaction),
        1 => Just(Draft::LostReaction),
    ];
    let fault = prop_oneof![
        Just(Fault::Nothing),
        Just(Fault::Error),
        Just(Fault::LostAnswer),
        Just(Fault::Delay),
        Just(Fault::PanicBefore),
        Just(Fault::PanicAfter)
    ];
    let drafts = vec((draft, 1..=2_i64, 1..=PEOPLE), 1..30);
    let config =
        ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(drafts, vec(fault, 0..6)), |(drafts, faults)| {
            RUNTIME.block_on(play(&world, &drafts, &faults));
            Ok(())
        })
        .unwrap();
}

/// Makes the command of a draft.
fn command((draft, workspace, user): (Draft, i64, i64), before: Option<&Command>) -> Command {
    let key = Uuid::new_v4();
    let long = "x".repeat(10_001);
    match (draft, before) {
        (Draft::Repeat, Some(before)) => before.clone(),
        (Draft::Poison, _) => Command::Send(outgoing(workspace, user, &long, key)),
        (Draft::Slow, _) => Command::Send(outgoing(workspace, user, "slow", key)),
        (Draft::Stranger, _) => Command::Send(outgoing(workspace, 5, "hello", key)),
        (Draft::System, _) => Command::Send(sent_by_system(workspace, 5, "hello", key)),
        (Draft::Pin(pinned), _) => Command::Prefer(pin(workspace, user, pinned)),
        (Draft::Reaction(n), _) => Command::Change(reaction(workspace, user, EMOJIS[n])),
        (Draft::PoisonReaction, _) => Command::Change(reaction(workspace, user, &long)),
        (Draft::LostReaction, _) => Command::Change(Change {
            message_id: MessageId(999),
            ..reaction(workspace, user, EMOJIS[0])
        }),
        (Draft::Plain | Draft::Repeat, _) => Command::Send(outgoing(workspace, user, "hello", key)),
    }
}

async fn play(world: &World, drafts: &[(Draft, i64, i64)], faults: &[Fault]) {
    world.empty().await;
    let mut commands: Vec<Command> = Vec::new();
    for draft in drafts {
        let next = command(*draft, commands.last());
        commands.push(next);
    }
    let (writer, ended) = world.writer(faults);
    let answers = execute_all(&writer, commands.clone()).await;
    drop(writer);
    expect_end(ended).await;
    world.keys().await;

    // A caller with an unknown result retries under the same key.
    let (writer, ended) = world.writer(&[]);
    let mut reactions = HashSet::new();
    for (command, answer) in commands.iter().zip(answers) {
        let unknown = is_unknown(&answer);
        assert!(!unknown || !faults.is_empty(), "{answer:?} without any fault");
        let answer = if unknown { execute(&writer, command.clone()).await } else { answer };
        match command {
            Command::Send(message) => {
                let keys = world.keys().await;
                let stored = keys.get(&message.idempotency_key).copied().unwrap_or_default();
                check_sent(message, stored, answer);
            }
            Command::Change(change) => match answer {
                Ok(Done::Changed) => {
                    let (message_id, emoji) = (change.message_id, change.action.text().to_owned());
                    reactions.insert((message_id, emoji, change.actor.user_id()));
                }
                Err(AppError::NotFound) => assert_eq!(change.message_id.0, 999),
                Err(AppError::Database(_)) => assert_eq!(change.action.text().len(), 10_001),
                answer => panic!("{answer:?}"),
            },
            Command::Prefer(_) => assert!(matches!(answer, Ok(Done::Changed)), "{answer:?}"),
        }
    }
    drop(writer);
    expect_end(ended).await;
    world.keys().await;
    let stored: i64 = sqlx::query_scalar("select count(*) from message_reactions")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(usize::try_from(stored).unwrap(), reactions.len());
}

fn check_sent(message: &Outgoing, stored: i64, answer: Result<Done>) {
    match answer {
        Ok(Done::Sent(Sent::New(sent) | Sent::Replayed(sent))) => {
            assert_eq!((stored, sent.content), (1, message.content.clone()));
        }
        Err(AppError::NotFound) => {
            let stranger = person(message.actor.workspace_id().0, 5);
            assert_eq!((stored, message.actor), (0, stranger));
        }
        Err(error) if error.is_cancelled() => assert_eq!((stored, &*message.content), (0, "slow")),
        Err(AppError::Database(_)) => assert_eq!((stored, message.content.len()), (0, 10_001)),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn fechatter_itself_sends_through_the_batch() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[]);
    // The person of the actor may have left.
    for sql in [
        "update workspace_members set status = 'Left', left_at = now() where user_id = 2",
        "update chat_members set left_position = 2 where user_id = 2",
    ] {
        sqlx::query(sql).execute(&world.db).await.unwrap();
    }
    let mut keys = (1..).map(Uuid::from_u128);
    let mut message = || Command::Send(sent_by_system(1, 2, "hello", keys.next().unwrap()));
    let alone = execute(&writer, message()).await;
    let together = execute_all(&writer, vec![message(), message(), message()]).await;
    for answer in together.into_iter().chain([alone]) {
        let Ok(Done::Sent(Sent::New(sent))) = answer else { panic!("{answer:?}") };
        let stored = message::find(&world.db, sent.sender_id, sent.chat_id, sent.id).await.unwrap();
        assert_eq!(stored.sender_id, UserId(2));
        assert_eq!(stored, sent);
    }
    drop(writer);
    expect_end(ended).await;
    assert_eq!(world.keys().await.len(), 4);
}

#[tokio::test]
async fn a_locked_log_delays_no_other_workspace() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[]);
    let holder = world.hold(1).await;
    let held = tokio::spawn({
        let writer = writer.clone();
        async move { writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await }
    });
    for number in 0..20 {
        // Some are sent before a batch waits for the log, some after.
        sleep(Duration::from_millis(number)).await;
        let sent = writer.send(outgoing(2, 2, "free", Uuid::new_v4())).await;
        assert!(matches!(sent, Ok(Sent::New(_))), "{sent:?}");
    }
    assert!(!held.is_finished());
    holder.rollback().await.unwrap();
    assert!(matches!(held.await.unwrap(), Ok(Sent::New(_))));
    drop(writer);
    expect_end(ended).await;
}

#[tokio::test]
async fn a_workspace_that_cannot_send_is_refused_and_leaves_room_for_others() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[]);
    // The first batches are slow, because they connect and plan. With a long mean batch time, the
    // queue would refuse commands.
    for _ in 0..10 {
        writer.send(outgoing(2, 1, "warm", Uuid::new_v4())).await.unwrap();
    }
    let holder = world.hold(1).await;
    let waiting: Vec<_> = (0..2_048)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert!(waiting.iter().all(|send| !send.is_finished()));

    let one_too_many = writer.send(outgoing(1, 1, "held", Uuid::new_v4())).await;
    assert!(matches!(one_too_many, Err(AppError::Busy)));
    let other = writer.send(outgoing(2, 1, "free", Uuid::new_v4())).await;
    assert!(matches!(other, Ok(Sent::New(_))), "{other:?}");

    // A command waits at most 2.5 s for a batch, and a batch does not wait for a log forever.
    for send in waiting {
        let answer = timeout(TEST_TIMEOUT, send).await.expect("every caller is answered").unwrap();
        assert!(matches!(answer, Err(AppError::Busy)), "{answer:?}");
    }
    holder.rollback().await.unwrap();
    let again = writer.send(outgoing(1, 1, "free again", Uuid::new_v4())).await;
    assert!(matches!(again, Ok(Sent::New(_))), "{again:?}");
    drop(writer);
    expect_end(ended).await;
}

#[tokio::test]
async fn all_queued_commands_are_answered_before_the_writer_ends() {
    let world = World::new().await;
    let (writer, ended) = world.writer(&[Fault::Delay]);
    let sends: Vec<_> = (0..600)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.send(outgoing(1, 1, "last", Uuid::new_v4())).await })
        })
        .collect();
    drop(writer);
    for send in sends {
        assert!(matches!(send.await.unwrap(), Ok(Sent::New(_))));
    }
    expect_end(ended).await;
    assert_eq!(world.keys().await.len(), 600);
}

#[tokio::test]
async fn a_commit_that_fails_after_its_answer_is_an_error() {
    let world = World::new().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$
         begin
             raise exception 'too late' using errcode = 'check_violation';
         end;
         $$;
         create constraint trigger refuse after insert on messages deferrable initially deferred
             for each row when (new.content = 'late') execute function refuse();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let (writer, ended) = world.writer(&[]);
    let messages = ["before", "late", "after"].map(|text| outgoing(1, 1, text, Uuid::new_v4()));
    let answers = execute_all(&writer, messages.map(Command::Send).into()).await;
    assert!(matches!(answers[0], Ok(Done::Sent(Sent::New(_)))), "{answers:?}");
    assert!(matches!(answers[1], Err(AppError::Database(_))), "{answers:?}");
    assert!(matches!(answers[2], Ok(Done::Sent(Sent::New(_)))), "{answers:?}");
    assert_eq!(world.keys().await.len(), 2);
    drop(writer);
    expect_end(ended).await;
}

/// A writer that never finishes.
#[derive(Debug, Clone)]
struct Stuck;

impl BatchExecutor for Stuck {
    async fn execute(&self, _: Vec<Arc<Command>>, _: Locking) -> Result<Vec<Outcome>> {
        pending().await
    }
}

/// A writer that makes the task panic.
#[derive(Debug)]
struct Panicking;

impl Clone for Panicking {
    fn clone(&self) -> Self {
        panic!("in the task of the writer")
    }
}

impl BatchExecutor for Panicking {
    async fn execute(&self, _: Vec<Arc<Command>>, _: Locking) -> Result<Vec<Outcome>> {
        pending().await
    }
}

async fn expect_stall(
    executor: impl BatchExecutor,
    direct: impl BatchExecutor,
    at_least: Duration,
) {
    let db = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let (writer, _ended) = BatchWriter::start_with(Log::new(db), executor, direct).unwrap();
    assert_eq!(writer.queue.time_without_progress(), Duration::ZERO);
    assert!(writer.health().is_healthy());

    let message = outgoing(1, 1, "hello", Uuid::new_v4());
    let (item, _receipt) = writer.queue.reserve(Arc::new(Command::Send(message))).unwrap();
    writer.queue.hand_over(item);
    let stalled = async {
        while writer.queue.time_without_progress() < at_least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, stalled).await.expect("the writer stalls");
}

#[tokio::test]
async fn a_writer_that_writes_nothing_while_something_waits_has_stalled() {
    expect_stall(Stuck, Stuck, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_writer_whose_task_panicked_has_stalled_forever() {
    expect_stall(Panicking, Stuck, Duration::MAX).await;
}
