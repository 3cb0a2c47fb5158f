//! Finds the position at which a stream starts.

use std::time::Duration;

use axum::http::StatusCode;
use fechatter_core::log::{self, Cursor, Range, Stamp};
use fechatter_core::stream_event::ResetReason;
use fechatter_core::token::AuthUser;
use fechatter_core::user::UserStatus;
use fechatter_core::workspace::WorkspaceStatus;
use fechatter_core::{Position, http::ApiError};
use sqlx::PgConnection;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::app::App;
use crate::database::QueryCost;
use crate::stream::refusals::{rate_limited, with_retry_after};

/// The time limit of each query, including the wait for its permit.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of positions behind the head beyond which a snapshot is cheaper than a replay.
const MAX_LAG_POSITIONS: i64 = 100_000;
/// The number of missed events of one reader beyond which a snapshot is cheaper than a replay.
const MAX_MISSED_EVENTS: i64 = 5_000;

/// The number of positions behind the head that cost one unit of the reader's rate, in addition to
/// the request's own unit, because the replay examines each position.
const POSITIONS_PER_UNIT: i64 = 2_000;

/// The cursor in a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestedCursor {
    /// No cursor: the stream starts at the head.
    Absent,
    /// A cursor to resume from.
    Present(Cursor),
    /// A text that is not a cursor.
    Malformed,
}

/// The start of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// After `from`, with `head` being the log's newest event at that moment.
    At { from: Cursor, head: Cursor, resumed: bool },
    /// The client must start over from this cursor.
    Reset { reason: ResetReason, cursor: Cursor },
}

/// The state of a caller and of their workspace's log, in one snapshot. The fields are the columns
/// of the query.
struct CallerState {
    signed_in: bool,
    /// `None` if the person has never been in the workspace.
    status: Option<UserStatus>,
    workspace_status: WorkspaceStatus,
    /// The position and the stamp of the head.
    position: Position,
    stamp: Stamp,
    /// See [`LogState::oldest_position`].
    floor: Option<Position>,
    /// See [`LogState::stamp_at_cursor`].
    asked: Option<Stamp>,
    /// See [`LogState::offboarding_end`].
    offboarded: Option<Position>,
}

/// The log at the moment of connecting, as far as it concerns the caller.
#[derive(Debug, Clone, Copy)]
struct LogState {
    head: Cursor,
    /// The oldest position in the log. `None` if the log has an event at the requested position, or
    /// if the request has no cursor.
    oldest_position: Option<Position>,
    /// The stamp of the event at the requested position, if there is one.
    stamp_at_cursor: Option<Stamp>,
    /// The end of the caller's last offboarding, if they have left the workspace and come back.
    offboarding_end: Option<Position>,
}

/// Checks that the caller's session and membership are valid, and finds the start of the stream.
/// One snapshot serves both purposes: if an event ends the session or the membership afterwards,
/// its position is greater than that of the head, so the stream will receive it.
///
/// # Errors
/// When the session has ended, the person is suspended or has left, a rate limit is reached, or the
/// database fails.
pub(crate) async fn find_start(
    app: &App,
    user: AuthUser,
    requested: RequestedCursor,
) -> Result<Start, ApiError> {
    let position = match requested {
        RequestedCursor::Present(cursor) => Some(cursor.position),
        RequestedCursor::Absent | RequestedCursor::Malformed => None,
    };
    let query = app.db.work(&user, QueryCost::Small, |mut db| async move {
        query_caller_state(&mut db, user, position).await
    });
    let row = in_time(query).await?;
    let signed_out = || ApiError::unauthenticated("unauthenticated", "the session has ended");
    let row = row.filter(|row| row.signed_in).ok_or_else(signed_out)?;
    match row.status {
        Some(UserStatus::Active | UserStatus::Suspended) if !row.workspace_status.is_active() => {
            let message = "the operator has suspended this workspace";
            Err(ApiError::new(StatusCode::FORBIDDEN, "workspace_suspended", message))
        }
        Some(UserStatus::Active) => {
            let head = Cursor { stamp: row.stamp, position: row.position };
            let log = LogState {
                head,
                oldest_position: row.floor,
                stamp_at_cursor: row.asked,
                offboarding_end: row.offboarded,
            };
            let start = choose_start(requested, log);
            charge_and_check_lag(app, user, start).await
        }
        Some(UserStatus::Suspended) => {
            let message = "you are suspended in this workspace";
            Err(ApiError::new(StatusCode::FORBIDDEN, "suspended", message))
        }
        Some(UserStatus::Left) | None => Err(signed_out()),
    }
}

async fn query_caller_state(
    db: &mut PgConnection,
    user: AuthUser,
    position: Option<Position>,
) -> sqlx::Result<Option<CallerState>> {
    sqlx::query_as!(
        CallerState,
        r#"select exists (
                      select 1 from sessions
                      where id = $1 and user_id = $2 and revoked_at is null and expires_at > now()
                  ) as "signed_in!",
                  (
                      select status from workspace_members
                      where workspace_id = $3 and user_id = $2
                  ) as "status: UserStatus",
                  (
                      select status from workspace_logs where workspace_id = $3
                  ) as "workspace_status!: WorkspaceStatus",
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

/// Charges the reader's rate for the positions to replay, and resets a reader who has missed too
/// many events. The events are counted only if the reader is more than [`MAX_MISSED_EVENTS`]
/// positions behind: otherwise it cannot have missed more events than that.
async fn charge_and_check_lag(app: &App, user: AuthUser, start: Start) -> Result<Start, ApiError> {
    let Start::At { from, head, .. } = start else { return Ok(start) };
    let behind = head.position.0 - from.position.0;
    let units = u32::try_from(behind / POSITIONS_PER_UNIT).unwrap_or(u32::MAX);
    app.rates.take(user.id, units).map_err(rate_limited)?;
    if behind <= MAX_MISSED_EVENTS {
        return Ok(start);
    }
    let workspace_id = user.workspace_id;
    let missed = Range { workspace_id, from: from.position.next(), to: head.position };
    let counting = app.db.work(&user, QueryCost::Large, |mut db| async move {
        log::count_for(&mut *db, missed, user.id, MAX_MISSED_EVENTS + 1).await
    });
    if in_time(counting).await? > MAX_MISSED_EVENTS {
        return Ok(Start::Reset { reason: ResetReason::TooFarBehind, cursor: head });
    }
    Ok(start)
}

/// Awaits a query. A failure or timeout becomes an error that asks the client to retry later.
async fn in_time<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T, ApiError> {
    match timeout(QUERY_TIMEOUT, query).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error!(%error, "a stream could not be started"),
        Err(_) => warn!("a stream could not be started in time"),
    }
    Err(with_retry_after(ApiError::unavailable("try again in a moment")))
}

/// A cursor is valid only if the log has an event at its position with its stamp. This excludes
/// cursors of other workspaces, and of events lost in a failover or restore.
///
/// A person who has left the workspace and come back starts over: their memberships lasted for a
/// while after they had lost access, and they must not receive the events of that time.
fn choose_start(requested: RequestedCursor, log: LogState) -> Start {
    let LogState { head, oldest_position, stamp_at_cursor, offboarding_end } = log;
    let reset = |reason| Start::Reset { reason, cursor: head };
    let from = match requested {
        RequestedCursor::Absent => return Start::At { from: head, head, resumed: false },
        RequestedCursor::Malformed => return reset(ResetReason::CursorInvalid),
        RequestedCursor::Present(from) => from,
    };
    if oldest_position.is_some_and(|oldest| from.position < oldest) {
        reset(ResetReason::CursorExpired)
    } else if stamp_at_cursor != Some(from.stamp) {
        reset(ResetReason::CursorUnknown)
    } else if offboarding_end.is_some_and(|end| from.position < end) {
        reset(ResetReason::CursorExpired)
    } else if head.position.0 - from.position.0 > MAX_LAG_POSITIONS {
        reset(ResetReason::TooFarBehind)
    } else {
        Start::At { from, head, resumed: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    const HEAD: &str = "00000001-200000";

    /// The log has the positions 10 to 200,000, and all its events have stamp 1.
    fn start_for(requested: RequestedCursor) -> Start {
        let head = cursor(HEAD);
        let exists = matches!(
            requested,
            RequestedCursor::Present(from) if (10..=200_000).contains(&from.position.0)
        );
        let log = LogState {
            head,
            oldest_position: (!exists).then_some(Position(10)),
            stamp_at_cursor: exists.then_some(head.stamp),
            offboarding_end: None,
        };
        choose_start(requested, log)
    }

    #[test]
    fn a_stream_without_a_cursor_starts_at_the_head() {
        let head = cursor(HEAD);
        assert_eq!(
            start_for(RequestedCursor::Absent),
            Start::At { from: head, head, resumed: false }
        );
    }

    #[test]
    fn a_cursor_of_this_log_is_resumed() {
        let head = cursor(HEAD);
        for text in ["00000001-100000", HEAD] {
            let from = cursor(text);
            let start = start_for(RequestedCursor::Present(from));
            assert_eq!(start, Start::At { from, head, resumed: true });
        }
    }

    #[test]
    fn any_other_cursor_is_reset_to_the_head() {
        let present = |text| RequestedCursor::Present(cursor(text));
        for (requested, reason) in [
            (RequestedCursor::Malformed, ResetReason::CursorInvalid),
            (present("00000003-150000"), ResetReason::CursorUnknown),
            (present("00000001-200001"), ResetReason::CursorUnknown),
            (present("00000001-9"), ResetReason::CursorExpired),
            (present("00000001-10"), ResetReason::TooFarBehind),
        ] {
            let reset = Start::Reset { reason, cursor: cursor(HEAD) };
            assert_eq!(start_for(requested), reset, "{requested:?}");
        }
    }

    #[test]
    fn a_returning_member_resumes_only_from_a_cursor_after_the_offboarding() {
        let head = cursor("00000002-200");
        let start_for = |text| {
            let from = cursor(text);
            let log = LogState {
                head,
                oldest_position: None,
                stamp_at_cursor: Some(from.stamp),
                offboarding_end: Some(Position(150)),
            };
            choose_start(RequestedCursor::Present(from), log)
        };
        let reset = Start::Reset { reason: ResetReason::CursorExpired, cursor: head };
        assert_eq!(start_for("00000001-149"), reset);
        let from = cursor("00000001-151");
        assert_eq!(start_for("00000001-151"), Start::At { from, head, resumed: true });
    }
}
