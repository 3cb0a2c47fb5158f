//! Reading the log for one reader: what is no longer in memory, and whether it is still their log.

use std::time::Duration;

use bytes::Bytes;
use fechatter_core::log::{self, Cursor, Entry, Found, Range};
use fechatter_core::{Position, WorkspaceId};
use sqlx::PgConnection;
use tokio::time::sleep;
use tracing::debug;

use crate::app::App;
use crate::database::Reads;
use crate::frame::ResetReason;
use crate::stream::writer::Gone;
use crate::workspace::outbox::End;
use crate::workspace::state::Reader;

/// One query looks at so many positions, so that a log of other people's events does not make it
/// slow.
const MAX_SPAN: i64 = 1_000;
/// A reader who takes their time holds so many events, and bytes, or one event that is longer.
const MAX_ENTRIES: usize = 100;
const MAX_BYTES: usize = 128 * 1024;
/// How often a failed query is asked again, and after which wait.
const TRIES: usize = 20;
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// Why a stream goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It ends, and tells the client how.
    End(End),
    /// It breaks off, and the client comes back and resumes.
    Failed(sqlx::Error),
    /// There is nobody to tell.
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

/// How many events the next query takes: few after long ones.
#[derive(Debug)]
pub(crate) struct PageSize(usize);

impl Default for PageSize {
    fn default() -> Self {
        Self(MAX_ENTRIES)
    }
}

impl PageSize {
    /// Leaves as many entries as a reader may hold, and says whether they were more.
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

/// The next few events that are for this reader, and the cursor up to which these are all.
///
/// Whether the log still had what was asked of it, and was still the same, is looked at after they
/// were read, on the same connection: it may have been pruned in the meantime, or have failed over.
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
        let read = app.db.work(&reader.user, Reads::Much, |mut db| async move {
            let wanted = then.0;
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let mut entries = log::read(&mut *db, &[range], Some(user_id), limit).await?;
            let more = entries.len() == wanted;
            let more = then.cut(&mut entries) || more;
            let to = match entries.last() {
                Some(last) if more => last.cursor.position,
                _ => to,
            };
            let reached = look_again(&mut db, workspace_id, reached, to).await?;
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

/// Stops a stream whose cursor the log does not have any more.
pub(crate) async fn check(app: &App, reader: &Reader, reached: Cursor) -> Result<(), Stop> {
    let workspace_id = reader.user.workspace_id;
    let mut tries = Tries::default();
    loop {
        let check = app.db.work(&reader.user, Reads::Little, |mut db| async move {
            look_again(&mut db, workspace_id, reached, reached.position).await
        });
        match check.await {
            Err(Stop::Failed(error)) => tries.wait(error).await?,
            Err(stop) => return Err(stop),
            Ok(_) => return Ok(()),
        }
    }
}

/// The cursor at a later position of the log in which the earlier one still is.
async fn look_again(
    db: &mut PgConnection,
    workspace_id: WorkspaceId,
    cursor: Cursor,
    later: Position,
) -> Result<Cursor, Stop> {
    let reason = match log::look_again(&mut *db, workspace_id, cursor, later).await? {
        (Found::It, Some(later)) => return Ok(later),
        (Found::Pruned, _) => ResetReason::CursorExpired,
        (Found::It | Found::Other, _) => ResetReason::CursorUnknown,
    };
    let head = log::head(db, workspace_id).await?;
    Err(Stop::End(End::Reset(reason, head)))
}

/// Patience with a database that restarts: it ends no stream that is catching up.
#[derive(Default)]
pub(crate) struct Tries(usize);

impl Tries {
    /// Waits before the next try, or gives the error back after the last.
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
