//! A database with people who write through the real log, servers, and streams.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::Utc;
use contract::Checked;
use devdb::TestDatabase;
use fechatter_core::chat::{Chat, ChatType};
use fechatter_core::config::Config;
use fechatter_core::event::{Event, LeaveReason};
use fechatter_core::http::Listeners;
use fechatter_core::log::{self, Cursor, Log, LogWriter};
use fechatter_core::schema::{CODE, MIGRATOR};
use fechatter_core::token::{Signer, Verifier, generate_keys};
use fechatter_core::user::{Role, User, UserStatus};
use fechatter_core::{ChatId, MessageId, Position, Seq, SessionId, Timestamp, UserId, WorkspaceId};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) db: PgPool,
    pub(crate) log: Log,
    pub(crate) config: Config,
    signer: Signer,
    pub(crate) private_key: String,
    // Last, so that everyone has gone when it is dropped.
    pub(crate) database: TestDatabase,
}

#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) session_id: SessionId,
    pub(crate) token: String,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create(&MIGRATOR, CODE).await;
        let db = PgPoolOptions::new().max_connections(4).connect_with(database.options());
        let db = db.await.unwrap();
        let (private, public) = generate_keys().unwrap();
        let mut config = Config::from_yaml(include_str!("../../../app.yml.example")).unwrap();
        config.database.url = database.url().into();
        config.auth.public_keys = vec![public];
        let verifier = Verifier::new(&config.auth.public_keys).unwrap();
        let signer = Signer::new(Some(&private), &verifier).unwrap();
        let private_key = secrecy::ExposeSecret::expose_secret(&private).to_owned();
        Self { log: Log::new(db.clone()), db, config, signer, private_key, database }
    }

    pub(crate) fn serve(&self) -> Server {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).unwrap();
        let address = listeners.public.local_addr().unwrap();
        let operations = listeners.operations.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = notify_server::serve(self.config.clone(), listeners, shutdown.clone());
        Server { address, operations, shutdown, task: tokio::spawn(served) }
    }

    /// A server, and three people of one workspace in one chat.
    pub(crate) async fn with_a_chat() -> (Self, Server, ChatId, [Person; 3]) {
        let world = Self::new().await;
        let (server, chat, people) = world.has_a_chat().await;
        (world, server, chat, people)
    }

    /// The same in a world that is configured by now.
    pub(crate) async fn has_a_chat(&self) -> (Server, ChatId, [Person; 3]) {
        let server = self.serve();
        let acme = self.workspace("Acme").await;
        let alice = self.person("alice", acme).await;
        let bob = self.person("bob", acme).await;
        let carol = self.person("carol", acme).await;
        let chat = self.chat(&alice, &[&bob, &carol]).await;
        (server, chat, [alice, bob, carol])
    }

    /// A workspace, with a person who founded it and isn't heard of again.
    pub(crate) async fn workspace(&self, name: &str) -> WorkspaceId {
        let mut log = LogWriter::begin(&self.log).await.unwrap();
        let founder = insert_user(&mut log, &format!("founder@{name}")).await;
        let id = sqlx::query_scalar(
            "insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
             values ($1, lower($1), lower($1), $2, 'open')
             returning id",
        );
        let id: WorkspaceId = id.bind(name).bind(founder).fetch_one(log.db()).await.unwrap();
        insert_member(&mut log, id, founder).await;
        log.create_log(id).await.unwrap();
        let event = Event::UserJoinedWorkspace(user(founder, id));
        log.append(id, &event).unwrap();
        log.commit().await.unwrap();
        id
    }

    pub(crate) async fn person(&self, name: &str, workspace_id: WorkspaceId) -> Person {
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        let id = insert_user(&mut log, &format!("{name}@{workspace_id}.example")).await;
        insert_member(&mut log, workspace_id, id).await;
        let event = Event::UserJoinedWorkspace(user(id, workspace_id));
        log.append(workspace_id, &event).unwrap();
        log.commit().await.unwrap();
        self.signs_in(id, workspace_id).await
    }

    /// The same person, signed in to another workspace.
    pub(crate) async fn joins(&self, person: &Person, workspace_id: WorkspaceId) -> Person {
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        insert_member(&mut log, workspace_id, person.id).await;
        log.commit().await.unwrap();
        self.signs_in(person.id, workspace_id).await
    }

    pub(crate) async fn signs_in(&self, id: UserId, workspace_id: WorkspaceId) -> Person {
        let session_id = SessionId(Uuid::now_v7());
        sqlx::query(
            "insert into sessions (id, user_id, workspace_id, expires_at)
             values ($1, $2, $3, now() + interval '1 day')",
        )
        .bind(session_id)
        .bind(id)
        .bind(workspace_id)
        .execute(&self.db)
        .await
        .unwrap();
        let token = self.signer.sign(&user(id, workspace_id), session_id).unwrap();
        Person { id, workspace_id, session_id, token }
    }

    /// A private channel of these people.
    pub(crate) async fn chat(&self, owner: &Person, others: &[&Person]) -> ChatId {
        let workspace_id = owner.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        let members: Vec<_> = [&[owner], others].concat().iter().map(|person| person.id).collect();
        let member_count = i32::try_from(members.len()).unwrap();
        let id: ChatId = sqlx::query_scalar(
            "insert into chats
                 (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id,
                  creator_id, member_count)
             values ($1, 'PrivateChannel', 'lunch', 'lunch', 'lunch', 'lunch', $2, $2, $3)
             returning id",
        )
        .bind(workspace_id)
        .bind(owner.id)
        .bind(member_count)
        .fetch_one(log.db())
        .await
        .unwrap();
        let position = log.next_position(workspace_id).unwrap();
        for member in &members {
            insert_chat_member(&mut log, workspace_id, id, *member, position).await;
        }
        let chat = Chat { chat_members: members, member_count, ..chat(id, owner) };
        log.append(workspace_id, &Event::NewChat(chat)).unwrap();
        log.commit().await.unwrap();
        id
    }

    pub(crate) async fn adds(&self, chat_id: ChatId, actor: &Person, person: &Person) {
        let workspace_id = actor.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        let position = log.next_position(workspace_id).unwrap();
        insert_chat_member(&mut log, workspace_id, chat_id, person.id, position).await;
        let event = Event::UserJoinedChat {
            chat_id,
            user_id: person.id,
            joined_at: Timestamp::now(),
            role: Role::Member,
            actor_id: actor.id,
            chat: chat(chat_id, actor),
        };
        log.append(workspace_id, &event).unwrap();
        log.commit().await.unwrap();
    }

    pub(crate) async fn removes(&self, chat_id: ChatId, actor: &Person, person: &Person) {
        let workspace_id = actor.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        let event = Event::UserLeftChat {
            chat_id,
            user_id: person.id,
            joined_at: Timestamp::now(),
            actor_id: actor.id,
            reason: LeaveReason::Removed,
        };
        let position = log.append(workspace_id, &event).unwrap();
        end_membership(&mut log, chat_id, person, position).await;
        log.commit().await.unwrap();
    }

    pub(crate) async fn deletes(&self, chat_id: ChatId, owner: &Person) {
        let workspace_id = owner.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        let event = Event::ChatDeleted { id: chat_id };
        let position = log.append(workspace_id, &event).unwrap();
        sqlx::query("update chats set deleted_at = now() where id = $1")
            .bind(chat_id)
            .execute(log.db())
            .await
            .unwrap();
        sqlx::query(
            "update chat_members set left_position = $2 where chat_id = $1 and left_position is null",
        )
        .bind(chat_id)
        .bind(position)
        .execute(log.db())
        .await
        .unwrap();
        log.commit().await.unwrap();
    }

    pub(crate) async fn sends(&self, sender: &Person, chat_id: ChatId, content: &str) {
        self.sends_many(sender, chat_id, &[content]).await;
    }

    /// All in one commit.
    pub(crate) async fn sends_many(&self, sender: &Person, chat_id: ChatId, contents: &[&str]) {
        let workspace_id = sender.workspace_id;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await.unwrap();
        for content in contents {
            let id: MessageId = sqlx::query_scalar(
                "insert into messages
                     (workspace_id, chat_id, seq, sender_id, content, idempotency_key, digest)
                 select $1, $2, 1 + coalesce(max(seq), 0), $3, $4, $5, ''
                 from messages
                 where chat_id = $2
                 returning id",
            )
            .bind(workspace_id)
            .bind(chat_id)
            .bind(sender.id)
            .bind(content)
            .bind(Uuid::new_v4())
            .fetch_one(log.db())
            .await
            .unwrap();
            log.append_message(workspace_id, chat_id, id).unwrap();
        }
        log.commit().await.unwrap();
    }

    pub(crate) async fn revokes(&self, person: &Person) {
        let mut log = LogWriter::lock(&self.log, &[person.workspace_id]).await.unwrap();
        sqlx::query("update sessions set revoked_at = now() where id = $1")
            .bind(person.session_id)
            .execute(log.db())
            .await
            .unwrap();
        let session_id = person.session_id;
        let session_ids = vec![session_id];
        let event = Event::SessionRevoked { user_id: person.id, session_id, session_ids };
        log.append(person.workspace_id, &event).unwrap();
        log.commit().await.unwrap();
    }

    /// Takes somebody out of a chat as a newer server might: by an effect that only it knows.
    pub(crate) async fn removes_in_a_new_way(&self, chat_id: ChatId, person: &Person) {
        let mut log = LogWriter::lock(&self.log, &[person.workspace_id]).await.unwrap();
        let position = log.next_position(person.workspace_id).unwrap();
        end_membership(&mut log, chat_id, person, position).await;
        sqlx::query(
            r#"select append_events(
                array[$1::bigint], array[$2::bigint], 7, array['ChatMoved'], array['moves_chat'],
                null, null, null, null, null, array['{"event":"ChatMoved"}'::json])"#,
        )
        .bind(person.workspace_id)
        .bind(position)
        .execute(log.db())
        .await
        .unwrap();
        log.commit().await.unwrap();
    }

    pub(crate) async fn head(&self, workspace_id: WorkspaceId) -> Cursor {
        log::head(&self.db, workspace_id).await.unwrap()
    }

    /// The cursor of the event at a position.
    pub(crate) async fn cursor_at(&self, workspace_id: WorkspaceId, position: i64) -> String {
        let cursor = sqlx::query_scalar(
            "select lpad(to_hex(stamp), 8, '0') || '-' || position
             from events
             where workspace_id = $1 and position = $2",
        );
        cursor.bind(workspace_id).bind(position).fetch_one(&self.db).await.unwrap()
    }

    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.db).await.unwrap();
    }

    /// The person's token, as one that ends then.
    pub(crate) fn token_until(&self, person: &Person, expires_at: i64) -> String {
        use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};

        let header = jsonwebtoken::decode_header(&person.token).unwrap();
        let claims = person.token.split('.').nth(1).unwrap();
        let mut claims: Value =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        claims["exp"] = expires_at.into();
        let key = BASE64_STANDARD.decode(&self.private_key).unwrap();
        let key = jsonwebtoken::EncodingKey::from_ed_der(&key);
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

impl Server {
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        reqwest::Client::new().get(format!("http://{}{path}", self.address))
    }

    /// The refusal of the person's stream, which is as documented.
    pub(crate) async fn refuses(&self, person: &Person) -> Checked {
        let response = self.get("/events").bearer_auth(&person.token).send().await.unwrap();
        assert_ne!(response.status(), StatusCode::OK);
        Checked::read(&Method::GET, response).await.unwrap()
    }

    /// The person's stream from now on.
    pub(crate) async fn stream(&self, person: &Person) -> Stream {
        self.stream_after(person, "").await
    }

    /// The person's stream from a cursor on.
    pub(crate) async fn stream_after(&self, person: &Person, cursor: impl ToString) -> Stream {
        let request = self.get("/events").bearer_auth(&person.token);
        Stream::open(request.header("last-event-id", cursor.to_string())).await
    }
}

/// A stream, read to somewhere.
pub(crate) struct Stream {
    pub(crate) response: Response,
    unread: String,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Stream {
    #[track_caller]
    pub(crate) fn open(request: RequestBuilder) -> impl Future<Output = Self> {
        let caller = std::panic::Location::caller();
        async move {
            let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
            assert_eq!(response.status(), StatusCode::OK, "at {caller}");
            Self { response, unread: String::new(), bytes: Vec::new() }
        }
    }

    /// The next frame; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.unread.split_once("\n\n") {
                let frame = Frame::parse(frame);
                self.unread.replace_range(..self.unread.len() - rest.len(), "");
                return Some(frame);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("the stream said nothing").unwrap()?;
            self.bytes.extend_from_slice(&chunk);
            // A chunk may end within a character.
            let valid = match str::from_utf8(&self.bytes) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            self.unread.push_str(str::from_utf8(&self.bytes[..valid]).unwrap());
            self.bytes.drain(..valid);
        }
    }

    /// The next frame, which is this event.
    #[track_caller]
    pub(crate) fn expect(&mut self, event: &str) -> impl Future<Output = Frame> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("no {event} but the end at {caller}"));
            assert_eq!(frame.event, event, "at {caller}: {frame:?}");
            frame
        }
    }

    /// The next frame, which is a message of this content.
    #[track_caller]
    pub(crate) fn expect_message(&mut self, content: &str) -> impl Future<Output = Frame> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("no message but the end at {caller}"));
            assert_eq!(frame.data["content"], content, "at {caller}");
            frame
        }
    }

    #[track_caller]
    pub(crate) fn expect_end(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move { assert_eq!(self.next().await, None, "at {caller}") }
    }

    /// Everything until a goodbye for this reason, which is the last.
    #[track_caller]
    pub(crate) fn expect_goodbye(&mut self, reason: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("no goodbye but the end at {caller}"));
            assert_eq!(frame.data["reason"], reason, "at {caller}: {frame:?}");
            assert_eq!((frame.id.as_deref(), &*frame.event), (None, "Goodbye"), "at {caller}");
            assert!(frame.data["retry_ms"].is_u64(), "at {caller}");
            assert_eq!(self.next().await, None, "at {caller}");
        }
    }
}

/// The name of an event that this version does not know.
const OF_A_NEWER_VERSION: &str = "ChatMoved";

impl Frame {
    fn parse(text: &str) -> Self {
        let field = |name| {
            let of = |line: &str| {
                line.split_once(": ").filter(|(n, _)| *n == name).map(|f| f.1.to_owned())
            };
            text.lines().find_map(of)
        };
        let event = field("event").unwrap();
        let data = field("data").unwrap();
        assert!(data.starts_with(&format!(r#"{{"event":"{event}""#)), "{data}");
        if event != OF_A_NEWER_VERSION {
            contract::check_event(&data)
                .unwrap_or_else(|difference| panic!("{difference}\n{data}"));
        }
        Self { id: field("id"), event, data: serde_json::from_str(&data).unwrap() }
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_deref().unwrap()
    }
}

async fn end_membership(log: &mut LogWriter, chat_id: ChatId, person: &Person, at: Position) {
    sqlx::query(
        "update chat_members set left_position = $3
         where chat_id = $1 and user_id = $2 and left_position is null",
    )
    .bind(chat_id)
    .bind(person.id)
    .bind(at)
    .execute(log.db())
    .await
    .unwrap();
}

async fn insert_user(log: &mut LogWriter, email: &str) -> UserId {
    sqlx::query_scalar(
        "insert into users (email, email_key, password_hash) values ($1, lower($1), '')
         returning id",
    )
    .bind(email)
    .fetch_one(log.db())
    .await
    .unwrap()
}

async fn insert_member(log: &mut LogWriter, workspace_id: WorkspaceId, user_id: UserId) {
    sqlx::query(
        "insert into workspace_members (workspace_id, user_id, fullname, role)
         values ($1, $2, 'Somebody', 'member')",
    )
    .bind(workspace_id)
    .bind(user_id)
    .execute(log.db())
    .await
    .unwrap();
}

async fn insert_chat_member(
    log: &mut LogWriter,
    workspace_id: WorkspaceId,
    chat_id: ChatId,
    user_id: UserId,
    position: Position,
) {
    sqlx::query(
        "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
         values ($1, $2, $3, $4)",
    )
    .bind(workspace_id)
    .bind(chat_id)
    .bind(user_id)
    .bind(position)
    .execute(log.db())
    .await
    .unwrap();
}

fn user(id: UserId, workspace_id: WorkspaceId) -> User {
    User {
        id,
        fullname: "Somebody".into(),
        email: "somebody@example.com".into(),
        status: UserStatus::Active,
        created_at: Timestamp(Utc::now()),
        workspace_id,
        role: Role::Member,
        title: None,
        avatar_url: None,
    }
}

fn chat(id: ChatId, owner: &Person) -> Chat {
    Chat {
        id,
        workspace_id: owner.workspace_id,
        name: "lunch".into(),
        chat_type: ChatType::PrivateChannel,
        chat_members: Vec::new(),
        description: None,
        created_by: owner.id,
        created_at: Timestamp::now(),
        updated_at: Timestamp::now(),
        member_count: 0,
        last_seq: Seq(0),
        archived_at: None,
    }
}
