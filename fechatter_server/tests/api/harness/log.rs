//! What a workspace's log says happened.

use fechatter_core::log::{self, Range};
use fechatter_core::{Position, WorkspaceId};
use serde_json::Value;
use sqlx::{FromRow, PgPool};

/// A reader of one workspace's log.
pub(crate) struct Log {
    db: PgPool,
    workspace_id: i64,
    position: i64,
}

/// An event and its audience.
#[derive(Debug, FromRow)]
pub(crate) struct Logged {
    pub(crate) position: i64,
    pub(crate) kind: String,
    pub(crate) chat_id: Option<i64>,
    pub(crate) user_id: Option<i64>,
    pub(crate) message_id: Option<i64>,
    /// The data that clients receive; null where the event names a message.
    pub(crate) payload: Option<Value>,
    pub(crate) is_system_message: bool,
}

impl Log {
    /// From its first event on.
    pub(crate) fn from_start(db: PgPool, workspace_id: i64) -> Self {
        Self { db, workspace_id, position: 0 }
    }

    pub(crate) async fn from_now(db: PgPool, workspace_id: i64) -> Self {
        let mut log = Self::from_start(db, workspace_id);
        log.news().await;
        log
    }

    /// The events since the last look, but for system messages.
    pub(crate) async fn news(&mut self) -> Vec<Logged> {
        let events = self.all_news().await.into_iter();
        events.filter(|event| !event.is_system_message).collect()
    }

    /// The events since the last look.
    pub(crate) async fn all_news(&mut self) -> Vec<Logged> {
        let mut events: Vec<Logged> = sqlx::query_as(
            "select e.position, e.kind, e.chat_id, e.user_id, e.message_id, e.payload,
                    coalesce(m.kind = 'system', false) as is_system_message
             from events as e
             left join messages as m on m.chat_id = e.chat_id and m.id = e.message_id
             where e.workspace_id = $1 and e.position > $2
             order by e.position",
        )
        .bind(self.workspace_id)
        .bind(self.position)
        .fetch_all(&self.db)
        .await
        .unwrap();
        let Some(last) = events.last() else { return events };
        let from = Position(self.position + 1);
        self.position = last.position;
        let range = Range {
            workspace_id: WorkspaceId(self.workspace_id),
            from,
            to: Position(self.position),
        };
        let read = log::read(&self.db, &[range], None, i64::MAX).await.unwrap();
        for (event, entry) in events.iter_mut().zip(read) {
            if entry.shows_person.is_some() {
                event.payload = serde_json::from_slice(&entry.data.unwrap()).unwrap();
            }
        }
        events
    }

    /// The names of the events since the last look, but for system messages.
    pub(crate) async fn kinds(&mut self) -> Vec<String> {
        self.news().await.into_iter().map(|event| event.kind).collect()
    }

    /// The one event since the last look.
    #[track_caller]
    pub(crate) fn only(events: Vec<Logged>, kind: &str) -> Logged {
        let [event] = <[Logged; 1]>::try_from(events).unwrap();
        assert_eq!(event.kind, kind);
        event
    }
}

impl Logged {
    /// What clients receive, but for the event's name.
    pub(crate) fn data(&self) -> Value {
        let mut data = self.payload.clone().unwrap();
        assert_eq!(data.as_object_mut().unwrap().remove("event").unwrap(), *self.kind);
        data
    }
}
