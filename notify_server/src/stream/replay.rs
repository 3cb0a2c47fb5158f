//! Reads the log for one reader: the events that are no longer in memory, with a check that the log
//! still contains the reader's cursor.

use std::time::Duration;

use bytes::Bytes;
use fechatter_core::log::{self, Cursor, CursorLookup, Entry, Range};
use fechatter_core::stream_event::ResetReason;
use fechatter_core::{Position, WorkspaceId};
use sqlx::PgConnection;
use tokio::time::sleep;
use tracing::debug;

use crate::app::App;
use crate::database::QueryCost;
use crate::stream::writer::Gone;
use crate::workspace::outbox::End;
use crate::workspace::state::Reader;

/// The maximum number of positions that one query examines, so that a log of other people's events
/// does not make it slow.
const MAX_SPAN: i64 = 1_000;
/// The maximum number of events, and of bytes, that one reader holds; a single longer event is
/// allowed.
const MAX_ENTRIES: usize = 100;
const MAX_BYTES: usize = 128 * 1024;
/// The maximum number of attempts of a query, and the pause before a retry.
const TRIES: usize = 20;
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// The reason why a stream stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The stream ends with a final frame.
    End(End),
    /// The stream breaks off without a final frame; the client reconnects and resumes.
    Failed(sqlx::Error),
    /// The client has gone.
    Gone,
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// The number of events that the next query reads, which is small after long events.
#[derive(Debug)]
pub(crate) struct PageSize(usize);

impl Default for PageSize {
    fn default() -> Self {
        Self(MAX_ENTRIES)
    }
}

impl PageSize {
    /// Truncates the entries to the number that a reader may hold, and returns true if some were
    /// removed.
    fn cut(&mut self, entries: &mut Vec<Entry>) -> bool {
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            bytes += entry.data.as_ref().map_or(0, Bytes::len);
            bytes <= MAX_BYTES
        });
        let fitting = fitting.count().max(1);
        let cut = entries.len() > fitting;
        entries.truncate(fitting);
        self.0 = if cut { fitting } else { (2 * self.0).min(MAX_ENTRIES) };
        cut
    }
}

/// Returns the next events for this reader, and the cursor up to which they are complete.
///
/// The check that the log still contains the requested range follows the read, on the same
/// connection, because the log may be pruned, or fail over, during the read.
pub(crate) async fn read_on(
    app: &App,
    reader: &Reader,
    (reached, upto): (Cursor, Position),
    page_size: &mut PageSize,
) -> Result<(Vec<Entry>, Cursor), Stop> {
    let workspace_id = reader.user.workspace_id;
    let to = Position(reached.position.0 + MAX_SPAN).min(upto);
    let range = Range { workspace_id, from: reached.position.next(), to };
    let user_id = reader.user.id;
    let mut tries = Tries::default();
    loop {
        let mut then = PageSize(page_size.0);
        let read = app.db.work(&reader.user, QueryCost::Large, |mut db| async move {
            let wanted = then.0;
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let mut entries = log::read(&mut *db, &[range], Some(user_id), limit).await?;
            let more = entries.len() == wanted;
            let more = then.cut(&mut entries) || more;
            let to = match entries.last() {
                Some(last) if more => last.cursor.position,
                _ => to,
            };
            let reached = verify_cursor(&mut db, workspace_id, reached, to).await?;
            Ok((entries, reached, then))
        });
        match read.await {
            Err(Stop::Failed(error)) => tries.wait(error).await?,
            Err(stop) => return Err(stop),
            Ok((entries, reached, then)) => {
                *page_size = then;
                return Ok((entries, reached));
            }
        }
    }
}

/// Returns an error if the log no longer contains a stream's cursor.
pub(crate) async fn check(app: &App, reader: &Reader, reached: Cursor) -> Result<(), Stop> {
    let workspace_id = reader.user.workspace_id;
    let mut tries = Tries::default();
    loop {
        let check = app.db.work(&reader.user, QueryCost::Small, |mut db| async move {
            verify_cursor(&mut db, workspace_id, reached, reached.position).await
        });
        match check.await {
            Err(Stop::Failed(error)) => tries.wait(error).await?,
            Err(stop) => return Err(stop),
            Ok(_) => return Ok(()),
        }
    }
}

/// Returns the cursor at a later position. Ends the stream with `Reset` if the log no longer
/// contains the event of `cursor` or an event at the later position.
async fn verify_cursor(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    cursor: Cursor,
    later: Position,
) -> Result<Cursor, Stop> {
    let reason = match log::look_up_cursor(&mut *db, workspace_id, cursor, later).await? {
        (CursorLookup::Present, Some(later)) => return Ok(later),
        (CursorLookup::Pruned, _) => ResetReason::CursorExpired,
        (CursorLookup::Present | CursorLookup::Mismatch, _) => ResetReason::CursorUnknown,
    };
    let head = log::head(db, workspace_id).await?;
    Err(Stop::End(End::Reset(reason, head)))
}

/// Counts the attempts of a query, so that a database restart ends no stream that is catching up.
#[derive(Default)]
pub(crate) struct Tries(usize);

impl Tries {
    /// Waits before the next attempt, or returns the error after the last one.
    pub(crate) async fn wait(&mut self, error: sqlx::Error) -> sqlx::Result<()> {
        self.0 += 1;
        if self.0 == TRIES {
            return Err(error);
        }
        debug!(%error, "asking again");
        sleep(RETRY).await;
        Ok(())
    }
}
