//! One stream's life: ready, replay, live, goodbye.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use fechatter_core::log::{self, Cursor, Range};
use fechatter_core::token::AuthUser;
use fechatter_core::{Position, Timestamp};
use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{debug, warn};

use crate::admissions::Admission;
use crate::frame::{self, Control, GoodbyeReason, ResetReason};
use crate::outbox::{End, Next};
use crate::room::revoked_session;
use crate::sse::App;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// One query of a replay looks at so many positions and takes so many events: neither a log of
/// other people's events nor one of long messages makes it slow or large.
const MAX_SPAN: i64 = 1_000;
const MAX_ENTRIES: i64 = 100;
/// A stream further behind the hub than this catches up before events queue for it.
const NEAR: i64 = 256;
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
        let stream = Self { app, user, head, frames, _admission: admission };
        let life = async move {
            stream.send(frame::ready(from, resumed)).await;
            stream.live(from).await;
        };
        let taken = stream::poll_fn(move |context| taken.poll_recv(context));
        let life = life.into_stream().filter_map(|()| future::ready(None));
        Body::from_stream(stream::select(taken, life).map(Ok::<_, Infallible>))
    }

    async fn live(&self, from: Cursor) {
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
                    return;
                }
            },
        };
        let last = match end {
            End::Goodbye(reason) => Control::goodbye(reason),
            End::Reset(cursor) => Control::Reset { reason: ResetReason::CursorUnknown, cursor },
        };
        self.send(last.frame()).await;
    }

    /// Everything after `from` that is for this reader, once and in order, until something ends it.
    async fn play(&self, from: Cursor) -> sqlx::Result<End> {
        self.replay(from.position, self.head.position).await?;
        let mut reached = self.head;
        let is_far = |reached: Cursor, hub: &Cursor| hub.position.0 - reached.position.0 > NEAR;
        while let Some(hub) =
            self.app.hub.head(self.user.workspace_id).filter(|hub| is_far(reached, hub))
        {
            if let Some(end) = self.replay(reached.position, hub.position).await? {
                return Ok(end);
            }
            reached = hub;
        }

        let mut tries = Tries::default();
        let attachment = loop {
            match self.app.loader.attach(&self.app.hub, self.user, reached).await {
                Ok(attachment) => break attachment,
                Err(error) => tries.wait(error).await?,
            }
        };
        // What came between, while what comes from now on queues up behind it.
        if let Some(end) = self.replay(reached.position, attachment.head.position).await? {
            return Ok(end);
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

    /// Reads what came after `after`, up to `upto`, as fast as the client takes it. The end is that
    /// of the reader's session, if it stands there.
    async fn replay(&self, mut after: Position, upto: Position) -> sqlx::Result<Option<End>> {
        while after < upto {
            let to = Position(after.0 + MAX_SPAN).min(upto);
            let range = Range { workspace_id: self.user.workspace_id, from: after.next(), to };
            let mut tries = Tries::default();
            let entries = loop {
                let turn = self.app.replays.acquire().await;
                let reader = Some(self.user.id);
                let read = log::read(&self.app.db, &[range], reader, MAX_ENTRIES).await;
                drop(turn);
                match read {
                    Ok(entries) => break entries,
                    Err(error) => tries.wait(error).await?,
                }
            };
            after = match entries.last() {
                Some(last) if i64::try_from(entries.len()) == Ok(MAX_ENTRIES) => {
                    last.cursor.position
                }
                _ => to,
            };
            for entry in entries {
                if let Some(frame) = frame::durable(&entry) {
                    self.send(frame).await;
                }
                // The session was good at the head: nothing up to there ends the stream.
                if entry.cursor.position > self.head.position
                    && revoked_session(&entry) == Some(self.user.session_id)
                {
                    return Ok(Some(End::Goodbye(GoodbyeReason::SessionRevoked)));
                }
            }
        }
        Ok(None)
    }

    /// Waits until there is room for the frame.
    async fn send(&self, frame: Bytes) {
        // The other end lives in the same body: it cannot be gone.
        let _ = self.frames.send(frame).await;
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
