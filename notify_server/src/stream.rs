//! One stream's life: ready, replay, live, goodbye.

use std::convert::Infallible;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use axum::body::Body;
use bytes::Bytes;
use fechatter_core::log::{self, Cursor, Entry, Found, Range};
use fechatter_core::token::AuthUser;
use fechatter_core::{Position, Timestamp, metrics};
use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{debug, warn};

use crate::admissions::Admission;
use crate::frame::{self, Control, GoodbyeReason, ResetReason};
use crate::hub::Follow;
use crate::outbox::{End, Next};
use crate::recent::Event;
use crate::room::Reader;
use crate::sse::App;
use crate::tail::News;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// One query of a replay looks at so many positions and takes so many events: neither a log of
/// other people's events nor one of long messages makes it slow or large.
const MAX_SPAN: i64 = 1_000;
const MAX_ENTRIES: i64 = 100;
/// Frames on their way to the socket, so that they are written several at a time.
const IN_HAND: usize = 32;

/// How often a failed query is asked again, and after which wait.
const TRIES: usize = 20;
const RETRY: Duration = Duration::from_millis(250);

/// One caller's stream.
pub(crate) struct Stream {
    app: App,
    user: AuthUser,
    /// Where the log was when the stream was asked for.
    head: Cursor,
    resumed: bool,
    frames: mpsc::Sender<Bytes>,
    _admission: Admission,
}

impl Stream {
    /// The stream's body, which runs it: it moves when the client reads, and is gone with them.
    pub(crate) fn body(
        app: App,
        user: AuthUser,
        admission: Admission,
        [from, head]: [Cursor; 2],
        resumed: bool,
    ) -> Body {
        let (frames, mut taken) = mpsc::channel(IN_HAND);
        let stream = Self { app, user, head, resumed, frames, _admission: admission };
        let life = async move {
            let mut closing = Closing::of_opened();
            stream.send(frame::ready(from, resumed)).await;
            closing.reason = stream.live(from).await;
        };
        let taken = stream::poll_fn(move |context| taken.poll_recv(context));
        let life = life.into_stream().filter_map(|()| future::ready(None));
        Body::from_stream(stream::select(taken, life).map(Ok::<_, Infallible>))
    }

    /// Lives until something other than the client ends it; says what.
    async fn live(&self, from: Cursor) -> &'static str {
        let seconds_left = self.user.expires_at - Timestamp::now().0.timestamp();
        let lifetime = Duration::from_secs(seconds_left.try_into().unwrap_or(0));
        let end = tokio::select! {
            biased;
            () = self.app.shutdown.cancelled() => End::Goodbye(GoodbyeReason::Draining),
            () = sleep(lifetime) => End::Goodbye(GoodbyeReason::TokenExpired),
            end = self.play(from) => match end {
                Ok(end) => end,
                Err(error) => {
                    // Without a goodbye: the client comes back and resumes.
                    warn!(%error, user_id = %self.user.id, "a stream could not be continued");
                    return "failed";
                }
            },
        };
        let (last, reason) = match end {
            End::Goodbye(reason) => (Control::goodbye(reason), reason.name()),
            End::Reset(reason, cursor) => (Control::reset(reason, cursor), "reset"),
        };
        self.send(last.frame()).await;
        reason
    }

    /// Everything after `from` that is for this reader, once and in order, until something ends it.
    async fn play(&self, from: Cursor) -> sqlx::Result<End> {
        let reader = Reader { user: self.user, checked_at: self.head.position };
        let workspace_id = self.user.workspace_id;
        let mut reached = from;
        let mut tries = Tries::default();
        let mut catching_up = CatchingUp::now();
        let attachment = loop {
            match self.app.hub.follow(&reader, reached) {
                Follow::Missed(missed) => {
                    catching_up.events += missed.frames.len();
                    self.send_all(missed.frames).await;
                    if let Some(reason) = missed.end {
                        return Ok(End::Goodbye(reason));
                    }
                    reached = missed.reached;
                }
                Follow::Attached(missed, attachment) => {
                    catching_up.events += missed.frames.len();
                    self.send_all(missed.frames).await;
                    break attachment;
                }
                Follow::Forgotten(upto) => {
                    catching_up.source = "database";
                    match self.replay(&reader, reached, upto, &mut catching_up.events).await? {
                        Ok(cursor) => reached = cursor,
                        Err(end) => return Ok(end),
                    }
                }
                Follow::Absent => {
                    if let Err(error) = self.app.loader.load(workspace_id).await {
                        tries.wait(error).await?;
                    }
                }
                // Either the room or the cursor is of a log that is no more: the tail finds out.
                Follow::Diverged => {
                    self.app.tail.wake(News::In([workspace_id].into()));
                    tries.wait(sqlx::Error::RowNotFound).await?;
                }
            }
        };
        if self.resumed {
            catching_up.record();
        }
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = attachment.next() => match next {
                    Next::Frame(frame) => self.send(frame).await,
                    Next::End(end) => return Ok(end),
                },
                _ = heartbeat.tick() => attachment.heartbeat(),
            }
        }
    }

    /// Reads the log after a cursor, up to a position, as fast as the client takes it, and says
    /// where that led or what ends the stream.
    async fn replay(
        &self,
        reader: &Reader,
        mut reached: Cursor,
        upto: Position,
        events: &mut usize,
    ) -> sqlx::Result<Result<Cursor, End>> {
        while reached.position < upto {
            let (entries, step) = match self.read_on(reached, upto).await? {
                Ok(read) => read,
                Err(reset) => return Ok(Err(reset)),
            };
            for entry in entries {
                let event = Event::new(&entry);
                if let Some(frame) = &event.frame {
                    *events += 1;
                    self.send(frame.clone()).await;
                }
                if let Some(reason) = reader.ended_by(&event) {
                    return Ok(Err(End::Goodbye(reason)));
                }
            }
            reached = step;
        }
        Ok(Ok(reached))
    }

    /// The next few events that are for this reader, and the cursor up to which these are all.
    ///
    /// Whether the log still had what was asked of it, and was still the same, is looked at after
    /// they were read: it may have been pruned in the meantime, or have failed over.
    async fn read_on(
        &self,
        reached: Cursor,
        upto: Position,
    ) -> sqlx::Result<Result<(Vec<Entry>, Cursor), End>> {
        let workspace_id = self.user.workspace_id;
        let to = Position(reached.position.0 + MAX_SPAN).min(upto);
        let range = Range { workspace_id, from: reached.position.next(), to };
        let mut tries = Tries::default();
        loop {
            let turn = self.app.replays.acquire().await;
            let read = async {
                let reader = Some(self.user.id);
                let entries = log::read(&self.app.db, &[range], reader, MAX_ENTRIES).await?;
                let to = match entries.last() {
                    Some(last) if i64::try_from(entries.len()) == Ok(MAX_ENTRIES) => {
                        last.cursor.position
                    }
                    _ => to,
                };
                let again = log::look_again(&self.app.db, workspace_id, reached, to).await?;
                let reason = match again {
                    (Found::It, Some(step)) => return Ok(Ok((entries, step))),
                    (Found::Pruned, _) => ResetReason::CursorExpired,
                    (Found::It | Found::Other, _) => ResetReason::CursorUnknown,
                };
                let head = log::head(&self.app.db, workspace_id).await?;
                Ok(Err(End::Reset(reason, head)))
            };
            let read = read.await;
            drop(turn);
            match read {
                Ok(read) => return Ok(read),
                Err(error) => tries.wait(error).await?,
            }
        }
    }

    async fn send_all(&self, frames: Vec<Bytes>) {
        for frame in frames {
            self.send(frame).await;
        }
    }

    /// Waits until there is room for the frame.
    async fn send(&self, frame: Bytes) {
        // The other end lives in the same body: it cannot be gone.
        let _ = self.frames.send(frame).await;
    }
}

/// Counts a stream while it is open, and then why it is not.
struct Closing {
    reason: &'static str,
}

impl Closing {
    fn of_opened() -> Self {
        gauge!(metrics::STREAMS_OPEN).increment(1);
        // Until something else does, the client ends it.
        Self { reason: "gone" }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        gauge!(metrics::STREAMS_OPEN).decrement(1);
        counter!(metrics::STREAMS_CLOSED, "reason" => self.reason).increment(1);
    }
}

/// What a stream had to be told before it was live.
struct CatchingUp {
    began: Instant,
    source: &'static str,
    events: usize,
}

impl CatchingUp {
    fn now() -> Self {
        Self { began: Instant::now(), source: "memory", events: 0 }
    }

    fn record(&self) {
        let events = u32::try_from(self.events).unwrap_or(u32::MAX);
        histogram!(metrics::REPLAY_EVENTS).record(events);
        histogram!(metrics::REPLAY_SECONDS, "source" => self.source).record(self.began.elapsed());
    }
}

/// Patience with a database that restarts: it ends no stream that is catching up.
#[derive(Default)]
struct Tries(usize);

impl Tries {
    /// Waits before the next try, or gives the error back after the last.
    async fn wait(&mut self, error: sqlx::Error) -> sqlx::Result<()> {
        self.0 += 1;
        if self.0 == TRIES {
            return Err(error);
        }
        debug!(%error, "asking again");
        sleep(RETRY).await;
        Ok(())
    }
}
