//! Reads the read states of people whose marks have changed.
//!
//! Changes of marks are not in the log. A stream that begins may have missed some, and so may all streams
//! here after the connection of the doorbell was lost.

use std::time::Duration;

use fechatter_core::chat::{ReadState, UNREAD_CAP};
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::{Cursor, Ephemeral};
use fechatter_core::token::AuthUser;
use fechatter_core::{ChatId, Seq, UserId, WorkspaceId};
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use crate::workspace::hub::Hub;

/// Changes from this long before a known time are read, too: a change is committed some time after it
/// was made.
const MARGIN: Duration = Duration::from_secs(30);
/// The maximum number of people in one query.
const MAX_PEOPLE: usize = 100;

/// Returns the read states of a person that may have changed since the event of a cursor.
pub(crate) async fn changed_since_event(
    db: &mut PgConnection,
    user: AuthUser,
    cursor: Cursor,
) -> sqlx::Result<Vec<ReadState>> {
    let rows = sqlx::query!(
        r#"select chat_id as "chat_id!: ChatId", seq as "seq!: Seq", unread as "unread!",
                  mentions as "mentions!"
           from read_states(
               $1, $2, null,
               (
                   select created_at - $4 * interval '1 s'
                   from events
                   where workspace_id = $1 and position = $3
               ),
               $5
           )
           order by chat_id"#,
        user.workspace_id as _,
        user.id as _,
        cursor.position as _,
        MARGIN.as_secs_f64(),
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let states = rows.into_iter();
    let states = states.map(|row| ReadState::new(row.chat_id, row.seq, row.unread, row.mentions));
    Ok(states.collect())
}

/// Sends all streams here the read states of their people that may have changed in this time.
pub(crate) async fn resend(db: &PgPool, hub: &Hub, time: Duration) {
    for (workspace_id, people) in hub.people() {
        for people in people.chunks(MAX_PEOPLE) {
            match changed_within(db, workspace_id, people, time + MARGIN).await {
                Ok(states) => states.iter().for_each(|state| hub.send(state)),
                // The clients still have the counts of their last read states.
                Err(error) => warn!(%error, %workspace_id, "read states could not be read"),
            }
        }
    }
}

async fn changed_within(
    db: &PgPool,
    workspace_id: WorkspaceId,
    people: &[UserId],
    time: Duration,
) -> sqlx::Result<Vec<Ephemeral>> {
    let rows = sqlx::query!(
        r#"select person.id as "user_id!: UserId", state.chat_id as "chat_id!: ChatId",
                  state.seq as "seq!: Seq", state.unread as "unread!", state.mentions as "mentions!",
                  state.version as "version!"
           from unnest($2::bigint[]) as person (id)
           cross join lateral read_states(
               $1, person.id, null, clock_timestamp() - $3 * interval '1 s', $4
           ) as state"#,
        workspace_id as _,
        people as _,
        time.as_secs_f64(),
        UNREAD_CAP + 1
    )
    .fetch_all(db)
    .await?;
    let states = rows.into_iter().map(|row| {
        let state = ReadState::new(row.chat_id, row.seq, row.unread, row.mentions);
        let event = EphemeralEvent::ReadStateUpdated(state);
        Ephemeral { workspace_id, user_id: row.user_id, event, version: row.version }
    });
    Ok(states.collect())
}
