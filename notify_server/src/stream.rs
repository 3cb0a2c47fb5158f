//! One stream's life: ready, replay, live, goodbye.

use std::convert::Infallible;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use axum::body::Body;
use bytes::Bytes;
use fechatter_core::log::Cursor;
use fechatter_core::token::AuthUser;
use fechatter_core::{Position, Timestamp, metrics};
use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::warn;

use crate::admissions::Admission;
use crate::frame::{self, Control, GoodbyeReason};
use crate::hub::{Attachment, Follow};
use crate::outbox::{End, Next};
use crate::recent::Event;
use crate::replay::{self, Appetite, RETRY, Stop, Tries};
use crate::room::Reader;
use crate::sse::App;
use crate::tail::News;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// Frames on their way to the socket, so that they are written several at a time.
const IN_HAND: usize = 32;

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
            Err(stop) = self.play(from) => match stop {
                Stop::End(end) => end,
                Stop::Failed(error) => {
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
    async fn play(&self, from: Cursor) -> Result<Infallible, Stop> {
        // Boxed, so that its memory is free again for as long as the stream lives.
        let attachment = Box::pin(self.catch_up(from)).await?;
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = attachment.next() => match next {
                    Next::Frame(frame) => self.send(frame).await,
                    Next::End(end) => return Err(Stop::End(end)),
                },
                _ = heartbeat.tick() => attachment.heartbeat(),
            }
        }
    }

    /// Tells what this reader has missed after `from`, until everything further queues for them.
    async fn catch_up(&self, from: Cursor) -> Result<Attachment, Stop> {
        let reader = Reader { user: self.user, checked_at: self.head.position };
        let workspace_id = self.user.workspace_id;
        let mut reached = from;
        let mut tries = Tries::default();
        let mut catching_up = CatchingUp::now();
        loop {
            match self.app.hub.follow(&reader, reached) {
                Follow::Missed(missed) => {
                    catching_up.events += missed.frames.len();
                    self.send_all(missed.frames).await;
                    if let Some(reason) = missed.end {
                        return Err(Stop::End(End::Goodbye(reason)));
                    }
                    reached = missed.reached;
                }
                Follow::Attached(missed, attachment) => {
                    catching_up.events += missed.frames.len();
                    self.send_all(missed.frames).await;
                    if self.resumed {
                        catching_up.record();
                    }
                    return Ok(attachment);
                }
                Follow::Forgotten(upto) => {
                    catching_up.source = "database";
                    reached = self.replay(&reader, reached, upto, &mut catching_up.events).await?;
                }
                Follow::Behind(mut place) => {
                    self.app.tail.wake(News::In([workspace_id].into()));
                    let arrives = place.wait_for(|place| *place >= reached.position);
                    if timeout(RETRY, arrives).await.is_err() {
                        replay::check(&self.app, &reader, reached).await?;
                    }
                }
                // If it is the workspace that is wrong here, the tail is about to find out.
                Follow::Diverged => {
                    replay::check(&self.app, &reader, reached).await?;
                    sleep(RETRY).await;
                }
                Follow::Absent => {
                    if let Err(error) = self.app.loader.load(workspace_id).await {
                        tries.wait(error).await?;
                    }
                }
            }
        }
    }

    /// Reads the log after a cursor, up to a position, as fast as the client takes it, and says
    /// where that led.
    async fn replay(
        &self,
        reader: &Reader,
        mut reached: Cursor,
        upto: Position,
        events: &mut usize,
    ) -> Result<Cursor, Stop> {
        let mut appetite = Appetite::default();
        while reached.position < upto {
            let place = (reached, upto);
            let (entries, next) = replay::read_on(&self.app, reader, place, &mut appetite).await?;
            for entry in entries {
                let event = Event::new(&entry);
                if let Some(frame) = &event.frame {
                    *events += 1;
                    self.send(frame.clone()).await;
                }
                if let Some(reason) = reader.ended_by(&event) {
                    return Err(Stop::End(End::Goodbye(reason)));
                }
            }
            reached = next;
        }
        Ok(reached)
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
