//! Writes events: lock the log, check, write, append, commit, ring the doorbell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::metrics::histogram;
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::time::timeout_at;

use super::access::Log;
use super::cursor::Stamp;
use crate::commit::durably;
use crate::event::{self, Audience, Declaration, Event};
use crate::finish::Finish;
use crate::permits::Permit;
use crate::{ChatId, MessageId, Position, SessionId, UserId, WorkspaceId, db, metrics};

/// The longest time that a writer waits for the locks of its logs, including the wait for its
/// permits. `lock_timeout` (2 s) does not limit the sum: it limits each wait separately, and if
/// other writers wait for the same row, PostgreSQL waits twice, for the tuple and for the
/// transaction.
const LOCK_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The columns of an audience.
fn audience_columns(audience: Audience) -> (Option<ChatId>, Option<UserId>) {
    match audience {
        Audience::Workspace => (None, None),
        Audience::User(user_id) => (None, Some(user_id)),
        Audience::Chat(chat_id) => (Some(chat_id), None),
        Audience::ChatAnd(chat_id, user_id) => (Some(chat_id), Some(user_id)),
    }
}

/// Formats session ids as the text of a PostgreSQL array. An array of such texts is passed to
/// PostgreSQL, which has no arrays of arrays of different lengths.
fn uuid_array_literal(sessions: &[SessionId]) -> String {
    let ids: Vec<_> = sessions.iter().map(|id| id.0.to_string()).collect();
    format!("{{{}}}", ids.join(","))
}

/// A transaction that holds the locks of the logs it may append to.
///
/// It first locks the logs in a separate statement: later checks then see every earlier commit, and
/// no other writer can commit between the check and the event. If it is dropped without
/// [`commit`](Self::commit), the transaction is rolled back.
#[derive(Debug)]
pub struct LogWriter {
    log: Log,
    tx: Transaction<'static, Postgres>,
    heads: BTreeMap<WorkspaceId, Position>,
    pending: Pending,
    /// Released after the transaction, so that the next writer finds the log unlocked.
    permits: Vec<Permit<WorkspaceId, ()>>,
}

#[derive(Debug, Default)]
struct Pending {
    workspaces: Vec<WorkspaceId>,
    positions: Vec<Position>,
    kinds: Vec<&'static str>,
    effects: Vec<&'static str>,
    effect_user_ids: Vec<Option<UserId>>,
    effect_session_ids: Vec<Option<String>>,
    audience_chat_ids: Vec<Option<ChatId>>,
    audience_user_ids: Vec<Option<UserId>>,
    messages: Vec<Option<MessageId>>,
    // Arrays of sqlx's own JSON type are jsonb, which loses the order of keys.
    payloads: Vec<Option<String>>,
}

impl LogWriter {
    /// Begins a transaction that holds the lock of no log yet, for writes that precede the
    /// [creation](Self::create_log) of a log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(log: &Log) -> sqlx::Result<Self> {
        Self::begin_with(log, Vec::new()).await
    }

    async fn begin_with(log: &Log, permits: Vec<Permit<WorkspaceId, ()>>) -> sqlx::Result<Self> {
        let tx = db::begin(log.db(), "begin isolation level read committed").await?;
        let (heads, pending) = Default::default();
        Ok(Self { log: log.clone(), tx, heads, pending, permits })
    }

    /// Begins a transaction and waits for the locks of these workspaces' logs. It waits without a
    /// connection while other writers of these workspaces use all permits.
    ///
    /// # Errors
    /// When the database fails, a log does not exist, or the locks are not available within 2.5 s.
    pub async fn lock(log: &Log, workspaces: &[WorkspaceId]) -> sqlx::Result<Self> {
        let mut ascending = workspaces.to_vec();
        ascending.sort_unstable();
        ascending.dedup();
        let permits = async {
            let mut permits = Vec::with_capacity(ascending.len());
            for workspace_id in ascending {
                permits.push(log.writers.acquire(workspace_id, ()).await.ok()?);
            }
            Some(permits)
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        // A timeout is reported as `PoolTimedOut`, as for an exhausted pool: both become 503.
        let permits = timeout_at(deadline.into(), permits).await.ok().flatten();
        let permits = permits.ok_or(sqlx::Error::PoolTimedOut)?;
        // If the caller is cancelled, PostgreSQL still waits for the locks, so the permits are kept
        // until that statement ends.
        let (log, workspaces) = (log.clone(), workspaces.to_vec());
        let locking = Finish::new(async move {
            let mut writer = Self::begin_with(&log, permits).await?;
            writer.add_locks(&workspaces).await?;
            Ok(writer)
        });
        timeout_at(deadline.into(), locking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Locks these logs in a transaction that is already open. The transaction occupies its
    /// connection during the wait.
    ///
    /// # Errors
    /// When the database fails, a log does not exist, or a lock is not available within 2 s.
    pub async fn add_locks(&mut self, workspaces: &[WorkspaceId]) -> sqlx::Result<()> {
        let started_at = Instant::now();
        // In ascending order, so that two writers of several logs cannot wait for each other.
        let locked = sqlx::query!(
            "select workspace_id
             from workspace_logs
             where workspace_id = any($1)
             order by workspace_id
             for no key update",
            workspaces as _
        )
        .fetch_all(&mut *self.tx)
        .await;
        // Failed waits are recorded too.
        histogram!(metrics::LOCK_WAIT_SECONDS).record(started_at.elapsed());
        locked?;
        // A new statement, so that it sees what was committed while the first one waited.
        let heads = sqlx::query!(
            r#"select workspace_id as "workspace_id: WorkspaceId",
                      coalesce((
                          select max(e.position) from events as e
                          where e.workspace_id = l.workspace_id
                      ), 0) as "position!: Position"
               from workspace_logs as l
               where workspace_id = any($1)"#,
            workspaces as _
        )
        .fetch_all(&mut *self.tx)
        .await?;
        self.heads.extend(heads.into_iter().map(|head| (head.workspace_id, head.position)));
        if workspaces.iter().all(|id| self.heads.contains_key(id)) {
            Ok(())
        } else {
            Err(sqlx::Error::RowNotFound)
        }
    }

    /// Creates the log of a workspace that this transaction has created, and holds its lock.
    ///
    /// # Errors
    /// When the database fails or the log exists.
    pub async fn create_log(&mut self, workspace_id: WorkspaceId) -> sqlx::Result<()> {
        sqlx::query!("insert into workspace_logs (workspace_id) values ($1)", workspace_id as _)
            .execute(&mut *self.tx)
            .await?;
        self.heads.insert(workspace_id, Position(0));
        Ok(())
    }

    /// The transaction's connection, for the checks and writes that belong to the events.
    pub fn db(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Returns the position that the next event of this log will get.
    ///
    /// # Errors
    /// When the log is not locked.
    pub fn next_position(&self, workspace_id: WorkspaceId) -> sqlx::Result<Position> {
        self.heads.get(&workspace_id).map(|head| head.next()).ok_or_else(log_not_locked)
    }

    /// Adds an event to a log whose lock is held, and returns its position. The event is written at
    /// the commit.
    ///
    /// # Errors
    /// When the log is not locked.
    pub fn append(&mut self, workspace_id: WorkspaceId, event: &Event) -> sqlx::Result<Position> {
        let payload = if event.shows_person() {
            None
        } else {
            let json = serde_json::to_string(event);
            Some(json.map_err(|error| sqlx::Error::Encode(error.into()))?)
        };
        self.push(workspace_id, &event.declaration(), payload)
    }

    /// Adds the event of a message that was sent to a chat. The event only names the message:
    /// readers receive the message in its state at the time of reading.
    ///
    /// # Errors
    /// When the log is not locked.
    pub fn append_message(
        &mut self,
        workspace_id: WorkspaceId,
        chat_id: ChatId,
        message_id: MessageId,
    ) -> sqlx::Result<Position> {
        self.push(workspace_id, &event::new_message(chat_id, message_id), None)
    }

    fn push(
        &mut self,
        workspace_id: WorkspaceId,
        Declaration { kind, audience, effect, message_id }: &Declaration,
        payload: Option<String>,
    ) -> sqlx::Result<Position> {
        let head = self.heads.get_mut(&workspace_id).ok_or_else(log_not_locked)?;
        let (chat, user) = audience_columns(*audience);
        *head = head.next();
        self.pending.workspaces.push(workspace_id);
        self.pending.positions.push(*head);
        self.pending.kinds.push(kind);
        self.pending.effects.push(effect.name());
        self.pending.effect_user_ids.push(effect.person());
        self.pending.effect_session_ids.push(effect.sessions().map(uuid_array_literal));
        self.pending.audience_chat_ids.push(chat);
        self.pending.audience_user_ids.push(user);
        self.pending.messages.push(*message_id);
        self.pending.payloads.push(payload);
        Ok(*head)
    }

    /// Writes the events, commits, and then rings the doorbell. If the caller drops this future,
    /// the commit still completes: a commit in flight is never cancelled.
    ///
    /// # Errors
    /// When the database fails. After a lost connection, it is unknown if the commit happened.
    pub async fn commit(self) -> sqlx::Result<()> {
        let commit = tokio::spawn(self.write_and_commit());
        commit.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed))
    }

    async fn write_and_commit(mut self) -> sqlx::Result<()> {
        let pending = self.pending;
        if !pending.workspaces.is_empty() {
            sqlx::query!(
                "select append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text[]::json[])",
                &pending.workspaces as _,
                &pending.positions as _,
                Stamp::random() as _,
                &pending.kinds as _,
                &pending.effects as _,
                &pending.effect_user_ids as _,
                &pending.effect_session_ids as _,
                &pending.audience_chat_ids as _,
                &pending.audience_user_ids as _,
                &pending.messages as _,
                &pending.payloads as _
            )
            .fetch_one(&mut *self.tx)
            .await?;
        }
        durably(self.tx.commit()).await?;
        drop(self.permits);
        self.log.announce(pending.workspaces);
        Ok(())
    }
}

fn log_not_locked() -> sqlx::Error {
    sqlx::Error::InvalidArgument("the log of this workspace is not locked".into())
}
