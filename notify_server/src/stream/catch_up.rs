//! The events that a reader has missed, which are sent before live events.

use std::time::Duration;

use ::metrics::histogram;
use fechatter_core::event::EphemeralEvent;
use fechatter_core::log::Cursor;
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::stream_event::GoodbyeReason;
use fechatter_core::{Position, metrics};
use tokio::time::{Instant, sleep, timeout};

use crate::app::App;
use crate::database::QueryCost;
use crate::frame::{self, Frame};
use crate::read::read_states;
use crate::stream::replay::{self, PageSize, RETRY, Stop, Tries};
use crate::workspace::hub::{Attachment, FollowOutcome};
use crate::workspace::recent::Event;
use crate::workspace::scan_scope::ScanScope;
use crate::workspace::state::Reader;

/// The progress of a reader that is catching up.
pub(crate) struct CatchUp {
    app: App,
    reader: Reader,
    /// The cursor at which the stream starts.
    start: Cursor,
    reached: Cursor,
    /// The position up to which the log is read from the database, if the next events are not in
    /// memory.
    replay_upto: Option<Position>,
    page_size: PageSize,
    tries: Tries,
    began: Instant,
    source: &'static str,
    events: usize,
    /// The number of positions read from the log, and the duration of the last read.
    positions_read: i64,
    last_read_duration: Duration,
}

/// A replay that has read at least this many positions pauses before each further read.
const LONG_REPLAY_POSITIONS: i64 = 10_000;
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Some of the missed events, and the step after they are sent.
pub(crate) struct Chunk {
    pub(crate) frames: Vec<Frame>,
    pub(crate) next_step: NextStep,
}

/// The step after a chunk.
pub(crate) enum NextStep {
    /// Request the next chunk.
    More,
    /// This chunk is the last one; later events are queued in the attachment's outbox.
    Live(Attachment),
    End(GoodbyeReason),
}

impl CatchUp {
    pub(crate) fn new(app: App, reader: Reader, from: Cursor) -> Self {
        Self {
            app,
            reader,
            start: from,
            reached: from,
            replay_upto: None,
            page_size: PageSize::default(),
            tries: Tries::default(),
            began: Instant::now(),
            source: "memory",
            events: 0,
            positions_read: 0,
            last_read_duration: Duration::ZERO,
        }
    }

    /// Returns the next missed events.
    pub(crate) async fn next(&mut self) -> Result<Chunk, Stop> {
        loop {
            if let Some(upto) = self.replay_upto {
                return self.replay(upto).await;
            }
            if let Some(chunk) = self.follow().await? {
                return Ok(chunk);
            }
        }
    }

    /// Returns the frames of the reader's read states that may have changed since the start. It is called
    /// when the stream is attached: later changes are queued in its outbox.
    async fn read_states(&mut self) -> Result<Vec<Frame>, Stop> {
        let (user, start) = (self.reader.user, self.start);
        loop {
            let reading = self.app.db.work(&user, QueryCost::Small, |mut db| async move {
                read_states::changed_since_event(&mut db, user, start).await
            });
            match reading.await {
                Ok(states) => {
                    let events = states.into_iter().map(EphemeralEvent::ReadStateUpdated);
                    return Ok(events.map(|event| frame::ephemeral(&event)).collect());
                }
                Err(error) => self.tries.wait(error).await?,
            }
        }
    }

    /// Records the number of missed events and the duration of the catch-up.
    pub(crate) fn record_metrics(&self) {
        let events = u32::try_from(self.events).unwrap_or(u32::MAX);
        histogram!(metrics::REPLAY_EVENTS).record(events);
        histogram!(metrics::REPLAY_SECONDS, "source" => self.source).record(self.began.elapsed());
    }

    /// Returns missed events from memory. Returns `None` if the caller must try again: after a wait
    /// or a load, or with a replay from the database.
    async fn follow(&mut self) -> Result<Option<Chunk>, Stop> {
        let workspace_id = self.reader.user.workspace_id;
        match self.app.hub.follow(&self.reader, self.reached) {
            FollowOutcome::Missed(missed) => {
                self.reached = missed.reached;
                self.events += missed.frames.len();
                let next_step = missed.end.map_or(NextStep::More, NextStep::End);
                return Ok(Some(Chunk { frames: missed.frames, next_step }));
            }
            FollowOutcome::Attached(missed, attachment) => {
                self.events += missed.frames.len();
                let mut frames = missed.frames;
                frames.extend(self.read_states().await?);
                return Ok(Some(Chunk { frames, next_step: NextStep::Live(attachment) }));
            }
            FollowOutcome::NotInMemory(upto) => {
                self.source = "database";
                self.replay_upto = Some(upto);
                self.page_size = PageSize::default();
            }
            FollowOutcome::ServerBehind(mut local_head) => {
                self.app.tail.wake(ScanScope::Workspaces([workspace_id].into()));
                let arrives = local_head.wait_for(|position| *position >= self.reached.position);
                if timeout(RETRY, arrives).await.is_err() {
                    replay::check(&self.app, &self.reader, self.reached).await?;
                }
            }
            // The check ends the stream with `Reset` if the log does not contain the reader's cursor.
            // Otherwise the events in memory are not those of the log, which the tail detects at its
            // next read.
            FollowOutcome::Diverged => {
                replay::check(&self.app, &self.reader, self.reached).await?;
                sleep(RETRY).await;
            }
            FollowOutcome::NotLoaded => {
                if let Err(error) = self.app.loader.load(&self.reader.user).await {
                    self.tries.wait(error).await?;
                }
            }
        }
        Ok(None)
    }

    /// Returns the pause before the next read of a long replay. The pause lets readers that are less
    /// far behind go first, and leaves the database time for other queries.
    fn pause(&self) -> Option<Duration> {
        let is_long =
            self.positions_read >= LONG_REPLAY_POSITIONS && !sabotage::is(Sabotage::NoShares);
        is_long.then(|| (3 * self.last_read_duration).min(MAX_PAUSE))
    }

    /// Reads the next events from the log, up to a position.
    async fn replay(&mut self, upto: Position) -> Result<Chunk, Stop> {
        let mut chunk = Chunk { frames: Vec::new(), next_step: NextStep::More };
        if self.reached.position >= upto {
            self.replay_upto = None;
            return Ok(chunk);
        }
        if let Some(pause) = self.pause() {
            sleep(pause).await;
        }
        let (began, from) = (Instant::now(), self.reached.position);
        let place = (self.reached, upto);
        let (entries, reached) =
            replay::read_on(&self.app, &self.reader, place, &mut self.page_size).await?;
        self.reached = reached;
        self.positions_read += reached.position.0 - from.0;
        self.last_read_duration = began.elapsed();
        for event in entries.iter().map(Event::new) {
            chunk.frames.extend(event.frame.clone());
            if let Some(reason) = self.reader.ended_by(&event) {
                chunk.next_step = NextStep::End(reason);
                break;
            }
        }
        self.events += chunk.frames.len();
        Ok(chunk)
    }
}
