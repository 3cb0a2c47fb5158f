//! Finds the start of a stream with one statement.

use std::time::Duration;

use axum::http::StatusCode;
use fechatter_core::log::{self, Cursor, Range, Stamp};
use fechatter_core::stream_event::ResetReason;
use fechatter_core::token::AuthUser;
use fechatter_core::user::UserStatus;
use fechatter_core::{Position, http::ApiError};
use sqlx::PgConnection;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::app::App;
use crate::database::Reads;
use crate::stream::refusals::{later, rate_limited};

/// The time limit of each of the two queries, most of which is spent waiting for a permit.
const PATIENCE: Duration = Duration::from_secs(5);
/// The lag beyond which a snapshot is cheaper than a replay: in positions of the log, and in events
/// for this reader.
const TOO_FAR_BEHIND: i64 = 100_000;
const TOO_MUCH_MISSED: i64 = 5_000;

/// The number of positions behind the head that cost one unit of the reader's rate, in addition to
/// the request's own unit, because the replay examines each position.
const POSITIONS_PER_UNIT: i64 = 2_000;

/// The cursor in a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// No cursor: the stream starts at the head.
    Now,
    /// A cursor to resume from.
    From(Cursor),
    /// A text that is not a cursor.
    Nonsense,
}

/// The start of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// After `from`, with `head` being the log's newest event at that moment.
    At { from: Cursor, head: Cursor, resumed: bool },
    /// The client must start over from this cursor.
    Reset { reason: ResetReason, cursor: Cursor },
}

/// The state of a caller and of their workspace's log, in one snapshot.
struct Answer {
    signed_in: bool,
    /// `None` if the person has never been in the workspace.
    status: Option<UserStatus>,
    position: Position,
    stamp: Stamp,
    floor: Option<Position>,
    asked: Option<Stamp>,
    offboarded: Option<Position>,
}

/// The log at the moment of connecting.
#[derive(Debug, Clone, Copy)]
struct Log {
    head: Cursor,
    /// The oldest position that is kept, if there is no event at the requested one.
    floor: Option<Position>,
    /// The stamp of the event at the requested position, if there is one.
    stamp: Option<Stamp>,
    /// The end of the caller's last offboarding, if they have left the workspace and come back.
    offboarded: Option<Position>,
}

/// Checks that the caller's session and membership are valid, and finds the start of the stream.
/// Both use one snapshot, so that an event that ends them later comes after the head in the log.
///
/// # Errors
/// When the session has ended, the person is suspended or has left, a rate limit is reached, or the
/// database fails.
pub(crate) async fn find(app: &App, user: AuthUser, asked: Asked) -> Result<Start, ApiError> {
    let position = match asked {
        Asked::From(cursor) => Some(cursor.position),
        Asked::Now | Asked::Nonsense => None,
    };
    let asking = app
        .db
        .work(&user, Reads::Little, |mut db| async move { ask(&mut db, user, position).await });
    let row = in_time(asking).await?;
    let signed_out = || ApiError::unauthenticated("unauthenticated", "the session has ended");
    let row = row.filter(|row| row.signed_in).ok_or_else(signed_out)?;
    match row.status {
        Some(UserStatus::Active) => {
            let head = Cursor { stamp: row.stamp, position: row.position };
            let log = Log { head, floor: row.floor, stamp: row.asked, offboarded: row.offboarded };
            let start = decide(asked, log);
            limit(app, user, start).await
        }
        Some(UserStatus::Suspended) => {
            let message = "you are suspended in this workspace";
            Err(ApiError::new(StatusCode::FORBIDDEN, "suspended", message))
        }
        Some(UserStatus::Left) | None => Err(signed_out()),
    }
}

async fn ask(
    db: &mut PgConnection,
    user: AuthUser,
    position: Option<Position>,
) -> sqlx::Result<Option<Answer>> {
    sqlx::query_as!(
        Answer,
        r#"select exists (
                      select 1 from sessions
                      where id = $1 and user_id = $2 and revoked_at is null and expires_at > now()
                  ) as "signed_in!",
                  (
                      select status from workspace_members
                      where workspace_id = $3 and user_id = $2
                  ) as "status: UserStatus",
                  head.position as "position: Position",
                  head.stamp as "stamp: Stamp",
                  case when $4::bigint is not null and not exists (
                      select 1 from events where workspace_id = $3 and position = $4
                  ) then (
                      select min(position) from events where workspace_id = $3
                  ) end as "floor: Position",
                  (
                      select stamp from events where workspace_id = $3 and position = $4
                  ) as "asked: Stamp",
                  (
                      select ended_position from offboardings
                      where workspace_id = $3 and user_id = $2
                  ) as "offboarded: Position"
           from (
               select position, stamp
               from events
               where workspace_id = $3
               order by position desc
               limit 1
           ) as head"#,
        user.session_id as _,
        user.id as _,
        user.workspace_id as _,
        position as _
    )
    .fetch_optional(db)
    .await
}

/// Resets a reader who has missed too many events. The events are counted only if the reader is
/// more than that many positions behind, because fewer positions cannot contain so many.
async fn limit(app: &App, user: AuthUser, start: Start) -> Result<Start, ApiError> {
    let Start::At { from, head, .. } = start else { return Ok(start) };
    let behind = head.position.0 - from.position.0;
    let units = u32::try_from(behind / POSITIONS_PER_UNIT).unwrap_or(u32::MAX);
    app.rates.take(user.id, units).map_err(rate_limited)?;
    if behind <= TOO_MUCH_MISSED {
        return Ok(start);
    }
    let workspace_id = user.workspace_id;
    let missed = Range { workspace_id, from: from.position.next(), to: head.position };
    let counting = app.db.work(&user, Reads::Much, |mut db| async move {
        log::count_for(&mut *db, missed, user.id, TOO_MUCH_MISSED + 1).await
    });
    if in_time(counting).await? > TOO_MUCH_MISSED {
        return Ok(Start::Reset { reason: ResetReason::TooFarBehind, cursor: head });
    }
    Ok(start)
}

/// Awaits a query. A failure or timeout becomes an error that asks the client to retry later.
async fn in_time<T>(asking: impl Future<Output = sqlx::Result<T>>) -> Result<T, ApiError> {
    match timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error!(%error, "a stream could not be started"),
        Err(_) => warn!("a stream could not be started in time"),
    }
    Err(later(ApiError::unavailable("try again in a moment")))
}

/// A cursor is valid only if the log has an event at its position with its stamp. This excludes
/// cursors of other workspaces, and of events lost in a failover or restore.
///
/// A person who has left the workspace and come back starts over: their memberships lasted for a
/// while after they had lost access, and they must not receive the events of that time.
fn decide(asked: Asked, Log { head, floor, stamp, offboarded }: Log) -> Start {
    let reset = |reason| Start::Reset { reason, cursor: head };
    match asked {
        Asked::Now => Start::At { from: head, head, resumed: false },
        Asked::Nonsense => reset(ResetReason::CursorInvalid),
        Asked::From(from) if floor.is_some_and(|floor| from.position < floor) => {
            reset(ResetReason::CursorExpired)
        }
        Asked::From(from) if stamp != Some(from.stamp) => reset(ResetReason::CursorUnknown),
        Asked::From(from) if offboarded.is_some_and(|offboarded| from.position < offboarded) => {
            reset(ResetReason::CursorExpired)
        }
        Asked::From(from) if head.position.0 - from.position.0 > TOO_FAR_BEHIND => {
            reset(ResetReason::TooFarBehind)
        }
        Asked::From(from) => Start::At { from, head, resumed: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    /// The log holds 10 to 200,000; the asked event has stamp 1, if it exists.
    fn decided(asked: Asked) -> Start {
        let head = cursor("00000002-200000");
        let exists =
            matches!(asked, Asked::From(from) if (10..=200_000).contains(&from.position.0));
        let stamp = exists.then(|| cursor("00000001-1").stamp);
        let floor = (!exists).then_some(Position(10));
        decide(asked, Log { head, floor, stamp, offboarded: None })
    }

    #[test]
    fn a_stream_without_a_cursor_starts_at_the_head() {
        let head = cursor("00000002-200000");
        assert_eq!(decided(Asked::Now), Start::At { from: head, head, resumed: false });
    }

    #[test]
    fn a_cursor_of_this_log_is_resumed() {
        let head = cursor("00000002-200000");
        for text in ["00000001-100000", "00000001-200000"] {
            let from = cursor(text);
            assert_eq!(decided(Asked::From(from)), Start::At { from, head, resumed: true });
        }
    }

    #[test]
    fn any_other_cursor_is_reset_to_the_head() {
        for (asked, reason) in [
            (Asked::Nonsense, ResetReason::CursorInvalid),
            (Asked::From(cursor("00000003-150000")), ResetReason::CursorUnknown),
            (Asked::From(cursor("00000001-200001")), ResetReason::CursorUnknown),
            (Asked::From(cursor("00000001-9")), ResetReason::CursorExpired),
            (Asked::From(cursor("00000001-10")), ResetReason::TooFarBehind),
        ] {
            let reset = Start::Reset { reason, cursor: cursor("00000002-200000") };
            assert_eq!(decided(asked), reset, "{asked:?}");
        }
    }

    #[test]
    fn those_who_came_back_resume_only_from_after_their_offboarding() {
        let head = cursor("00000002-200");
        let decided = |text| {
            let from = cursor(text);
            let log =
                Log { head, floor: None, stamp: Some(from.stamp), offboarded: Some(Position(150)) };
            decide(Asked::From(from), log)
        };
        let reset = Start::Reset { reason: ResetReason::CursorExpired, cursor: head };
        assert_eq!(decided("00000001-149"), reset);
        let from = cursor("00000001-151");
        assert_eq!(decided("00000001-151"), Start::At { from, head, resumed: true });
    }
}
