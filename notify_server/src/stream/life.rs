//! Runs one stream: sends `Ready`, the missed events, live events, and the final frame (`Goodbye` or
//! `Reset`).

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use ::metrics::{counter, gauge};
use fechatter_core::http::{TakenConnection, Takeover};
use fechatter_core::metrics;
use fechatter_core::stream_event::GoodbyeReason;
use fechatter_core::token::AuthUser;
use tokio::time::sleep;
use tracing::warn;

use crate::app::App;
use crate::frame::{self};
use crate::stream::catch_up::{CatchUp, Chunk, NextStep};
use crate::stream::limits::StreamPermit;
use crate::stream::replay::Stop;
use crate::stream::start::Start;
use crate::stream::writer::Writer;
use crate::workspace::hub::Attachment;
use crate::workspace::outbox::{End, Next};
use crate::workspace::state::Reader;

/// One caller's stream.
pub(crate) struct Stream {
    pub(crate) app: App,
    pub(crate) user: AuthUser,
    pub(crate) start: Start,
    pub(crate) permit: StreamPermit,
}

impl Stream {
    /// Returns a takeover that runs the stream on the request's connection, in a separate task.
    pub(crate) fn takeover(self) -> Takeover {
        Takeover::new(move |taken| drop(tokio::spawn(self.run(taken))))
    }

    fn run(self, taken: TakenConnection) -> impl Future<Output = ()> + Send {
        let Self { app, user, start, permit } = self;
        let TakenConnection { socket, response_head, is_chunked, connection_guard } = taken;
        let user_id = user.id;
        // Boxed, so that its memory is freed before the live events are sent.
        let begin_phase = Box::pin(async move {
            let mut writer = Writer::new(socket, response_head, is_chunked);
            let attached = begin(app, user, start, &mut writer).await;
            (writer, attached)
        });
        async move {
            let _held = (connection_guard, permit);
            let mut metrics_guard = StreamMetricsGuard::new();
            let (mut writer, attached) = begin_phase.await;
            let stop = match attached {
                Ok(attachment) => send_live_frames(attachment, &mut writer).await,
                Err(stop) => stop,
            };
            match stop {
                Stop::Gone => {}
                Stop::End(end) => metrics_guard.reason = send_final_frame(writer, end).await,
                Stop::Failed(error) => {
                    warn!(%error, %user_id, "a stream failed");
                    metrics_guard.reason = "failed";
                }
            }
        }
    }
}

/// Sends `Ready` and the missed events, until later events are queued for the stream.
async fn begin(
    app: App,
    user: AuthUser,
    start: Start,
    writer: &mut Writer,
) -> Result<Attachment, Stop> {
    let (from, head, resumed) = match start {
        Start::At { from, head, resumed } => (from, head, resumed),
        Start::Reset { reason, cursor } => return Err(Stop::End(End::Reset(reason, cursor))),
    };
    let now = app.verifier.clock().timestamp();
    writer.enqueue([frame::ready(from, resumed, now)].into());
    let seconds_left = user.expires_at - now.0.timestamp();
    let lifetime = Duration::from_secs(seconds_left.try_into().unwrap_or(0));
    let shutdown = app.shutdown.clone();
    let reader = Reader { user, authorized_position: head.position };
    let mut catch_up = CatchUp::new(app, reader, from);
    let send_missed_events = async {
        loop {
            writer.flush().await?;
            let Chunk { frames, next_step } = tokio::select! {
                biased;
                gone = poll_fn(|context| writer.poll_gone(context)) => return Err(gone.into()),
                chunk = catch_up.next() => chunk?,
            };
            writer.enqueue(frames.into());
            match next_step {
                NextStep::More => {}
                NextStep::End(reason) => {
                    writer.flush().await?;
                    return Err(Stop::End(End::Goodbye(reason)));
                }
                NextStep::Live(attachment) => {
                    if resumed {
                        catch_up.record_metrics();
                    }
                    return Ok(attachment);
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Stop::End(End::Goodbye(GoodbyeReason::Draining))),
        () = sleep(lifetime) => Err(Stop::End(End::Goodbye(GoodbyeReason::TokenExpired))),
        attached = send_missed_events => attached,
    }
}

/// Sends the frames of live events from the outbox until the stream ends.
async fn send_live_frames(attachment: Attachment, writer: &mut Writer) -> Stop {
    poll_fn(|context| {
        if let Poll::Ready(gone) = writer.poll_gone(context) {
            return Poll::Ready(gone.into());
        }
        loop {
            match writer.poll_flush(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(gone)) => return Poll::Ready(gone.into()),
                // If the socket is blocked and the user has lost the right to the pending data,
                // close the stream without flushing it.
                Poll::Pending => {
                    return match attachment.outbox.poll_end(context) {
                        Poll::Ready(end) if end.discards_queued_frames() => {
                            Poll::Ready(Stop::End(end))
                        }
                        _ => Poll::Pending,
                    };
                }
            }
            match writer.poll_fill_from(&attachment.outbox, context) {
                Poll::Ready(Next::Frames) => {}
                Poll::Ready(Next::End(end)) => return Poll::Ready(Stop::End(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Sends the final frame (`Goodbye` or `Reset`) and closes the stream. Skips the frame if the
/// socket is blocked and `end` discards queued frames. Returns the reason for the metrics.
async fn send_final_frame(mut writer: Writer, end: End) -> &'static str {
    let (last, reason) = match end {
        End::Goodbye(reason) => (frame::goodbye(reason), reason.name()),
        End::Reset(reason, cursor) => (frame::reset(reason, cursor), "reset"),
    };
    if !(writer.is_blocked() && end.discards_queued_frames()) {
        writer.enqueue([frame::control(&last)].into());
        writer.end().await;
    }
    reason
}

/// The reasons why streams end, as labels of the metrics.
pub(crate) const REASONS: [&str; 10] = [
    GoodbyeReason::TokenExpired.name(),
    GoodbyeReason::SessionRevoked.name(),
    GoodbyeReason::Suspended.name(),
    GoodbyeReason::Removed.name(),
    GoodbyeReason::WorkspaceClosed.name(),
    GoodbyeReason::SlowConsumer.name(),
    GoodbyeReason::Draining.name(),
    "reset",
    "gone",
    "failed",
];

/// Counts a stream as open until it is dropped, and then counts its end by reason.
struct StreamMetricsGuard {
    reason: &'static str,
}

impl StreamMetricsGuard {
    fn new() -> Self {
        gauge!(metrics::STREAMS_OPEN).increment(1);
        // The reason if no other one is set: the client has left.
        Self { reason: "gone" }
    }
}

impl Drop for StreamMetricsGuard {
    fn drop(&mut self) {
        gauge!(metrics::STREAMS_OPEN).decrement(1);
        counter!(metrics::STREAMS_CLOSED, "reason" => self.reason).increment(1);
    }
}
