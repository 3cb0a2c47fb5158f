//! Reads the new events of the logs of loaded workspaces and delivers them in order.
//!
//! A doorbell, a lost listener connection and a poll all cause a scan. Only the contents of the log
//! decide what is delivered, so a lost notification cannot cause a lost event. A message in the
//! doorbell is delivered without reading the log if its event directly follows the workspace's
//! head.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::metrics::counter;
use anyhow::Context;
use bytes::Bytes;
use fechatter_core::log::{self, Announcement, Cursor, DoorbellPayload, Entry, Range};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::stream_event::{GoodbyeReason, ResetReason};
use fechatter_core::{Position, WorkspaceId, db, metrics};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::read::pace::Paces;
use crate::workspace::hub::{Advance, Hub};
use crate::workspace::news::News;
use crate::workspace::outbox::End;
use crate::workspace::state::ApplyError;

/// The settings of the tail's connection.
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "2s"), ("jit", "off")];
/// The poll interval, and so the maximum delay of an event whose doorbell was lost.
const POLL: Duration = Duration::from_secs(1);
/// The time limit of a query. After it, the connection is dropped too, because nothing else detects
/// a silent network.
const QUERY_LIMIT: Duration = Duration::from_secs(1);
/// The age of the last full scan at which the streams here count as stale.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// The maximum number of workspaces (ranges), and of events in total, that one query reads.
const MAX_RANGES: usize = 32;
const MAX_ENTRIES: usize = 256;
/// The maximum number of bytes delivered to a workspace's streams in one step, and the pause before
/// the next step while an outbox is more than half full. The pause keeps a burst from overflowing
/// the outbox of a client that reads fast enough. Other workspaces are not paused.
const STEP_BYTES: usize = 512 * 1024;
const PAUSE: Duration = Duration::from_millis(10);
/// The maximum number of queued announcements during a scan; further ones are read from the log.
const MAX_QUEUED_ANNOUNCEMENTS: usize = 1_000;

/// The notifications since the last scan.
#[derive(Debug, Default)]
struct PendingWork {
    news: News,
    announced: Vec<Announcement>,
}

/// The only reader of the logs for live streams.
#[derive(Debug)]
pub(crate) struct Tail {
    hub: Arc<Hub>,
    options: PgConnectOptions,
    pending_work: Mutex<PendingWork>,
    woken: Notify,
    began: Instant,
    last_poll: Mutex<Option<Instant>>,
}

impl Tail {
    pub(crate) fn new(hub: Arc<Hub>, options: PgConnectOptions) -> Self {
        let (pending_work, woken, last_poll) = Default::default();
        Self { hub, options, pending_work, woken, began: Instant::now(), last_poll }
    }

    /// Requests a scan. If one is running, another follows it.
    pub(crate) fn wake(&self, news: News) {
        self.add_news(news);
        self.woken.notify_one();
    }

    /// Queues the content of a doorbell notification.
    pub(crate) fn on_doorbell(
        &self,
        DoorbellPayload { workspaces, announcements }: DoorbellPayload,
    ) {
        self.add_news(workspaces.map_or(News::Anywhere, News::In));
        let mut pending = self.pending_work();
        for announcement in announcements {
            if pending.announced.len() < MAX_QUEUED_ANNOUNCEMENTS {
                pending.announced.push(announcement);
            } else {
                pending.news.add(News::In([announcement.workspace_id].into()));
            }
        }
        drop(pending);
        self.woken.notify_one();
    }

    /// Returns true if all logs were read within [`STALE_AFTER`].
    pub(crate) fn is_current(&self) -> bool {
        let scanned = *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
        scanned.is_some_and(|scanned| scanned.elapsed() < STALE_AFTER)
    }

    /// Returns the time since the last scan of all logs, or since the start if there was none.
    pub(crate) fn scan_age(&self) -> Duration {
        let scanned = *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
        scanned.unwrap_or(self.began).elapsed()
    }

    /// Scans for ever, one scan at a time.
    pub(crate) async fn run(&self) {
        let mut connection = None;
        let mut max_entries = MAX_ENTRIES;
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        let mut failing = false;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found_by = tokio::select! {
                () = self.woken.notified() => "doorbell",
                () = sleep_until_or_forever(paces.next()) => "doorbell",
                _ = poll.tick() => {
                    self.hub.evict_idle();
                    paces.keep(|workspace_id| self.hub.has(workspace_id));
                    if !sabotage::is(Sabotage::NoRescan) {
                        self.add_news(News::Anywhere);
                    }
                    "poll"
                }
            };
            self.add_news(News::In(paces.resume(Instant::now())));
            let PendingWork { mut news, announced } = std::mem::take(&mut *self.pending_work());
            let delivered = self.deliver_announced(&mut paces, announced, &mut news);
            counter!(metrics::EVENTS_READ, "found_by" => "announcement").increment(delivered);
            let heads = paces.ready(self.hub.heads(&news));
            if heads.is_empty() {
                // No query was needed, so the failing state of the database stays as it is.
                self.note_scan(found_by);
                continue;
            }
            match self.scan(&mut connection, &mut paces, &heads, max_entries).await {
                Ok(found) => {
                    counter!(metrics::EVENTS_READ, "found_by" => found_by).increment(found);
                    max_entries = (max_entries + MAX_RANGES).min(MAX_ENTRIES);
                    self.note_scan(found_by);
                    if std::mem::take(&mut failing) {
                        info!("the logs can be read again");
                    }
                }
                // The next poll reads all logs again, with smaller queries in case this one was too
                // large.
                Err(error) => {
                    max_entries = (max_entries / 2).max(2 * MAX_RANGES);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = format_args!("{error:#}"), "the logs cannot be read");
                    }
                }
            }
        }
    }

    /// Records the time of a scan of all workspaces, which only a poll causes. A doorbell may have
    /// named only some.
    fn note_scan(&self, found_by: &str) {
        if found_by == "poll" {
            let now = Some(Instant::now());
            *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    fn add_news(&self, news: News) {
        self.pending_work().news.add(news);
    }

    fn pending_work(&self) -> MutexGuard<'_, PendingWork> {
        self.pending_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the announced messages that come next in their logs, and returns their number. The
    /// logs of the others are added to `news`, to be read.
    fn deliver_announced(
        &self,
        paces: &mut Paces,
        announced: Vec<Announcement>,
        news: &mut News,
    ) -> u64 {
        let mut delivered = 0;
        for announcement in announced {
            let (id, after) = (announcement.workspace_id, announcement.after);
            if paces.is_put_off(id) || self.hub.has_event(id, announcement.cursor) {
                continue;
            }
            match self.hub.append(id, after, &announcement.into_entry()) {
                Advance::To(_) => {
                    delivered += 1;
                    // Only after progress, because otherwise a workspace that is behind would never
                    // be read.
                    if self.hub.has_backlog(id) {
                        paces.put_off(id, Instant::now() + PAUSE);
                    }
                }
                Advance::Stale | Advance::Failed(_) => news.add(News::In([id].into())),
            }
        }
        delivered
    }

    /// Reads each of these workspaces once, and returns the number of new events. If a read was
    /// incomplete, another scan follows, so that a busy workspace does not delay others.
    async fn scan(
        &self,
        connection: &mut Option<PgConnection>,
        paces: &mut Paces,
        heads: &[(WorkspaceId, Cursor)],
        max_entries: usize,
    ) -> anyhow::Result<u64> {
        let mut found = 0;
        for batch in heads.chunks(MAX_RANGES) {
            let limit = max_entries / batch.len();
            let ranges: Vec<_> = batch.iter().map(|&head| range(paces, head, limit)).collect();
            let entries = self.read(connection, &ranges, limit).await?;
            for (&(workspace_id, from), range) in batch.iter().zip(&ranges) {
                let start = entries.partition_point(|entry| entry.workspace_id < workspace_id);
                let end = entries.partition_point(|entry| entry.workspace_id <= workspace_id);
                match self.deliver(paces, workspace_id, from, &entries[start..end]) {
                    Advance::To(head) => {
                        found += u64::try_from(head.position.0 - from.position.0)?;
                        if head.position == range.to {
                            self.wake(News::In([workspace_id].into()));
                        }
                    }
                    Advance::Stale => {}
                    Advance::Failed(ApplyError::Diverged) => {
                        self.reset_workspace(connection, workspace_id, from).await?;
                    }
                    Advance::Failed(ApplyError::UnknownEffect) => {
                        warn!(%workspace_id, "a newer version has written what is not known here: \
                                              loading the workspace anew");
                        self.hub
                            .close_workspace(workspace_id, End::Goodbye(GoodbyeReason::Draining));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Delivers the entries that were read of a workspace, until one of its outboxes is backlogged:
    /// the rest is read again after a pause.
    fn deliver(
        &self,
        paces: &mut Paces,
        workspace_id: WorkspaceId,
        mut from: Cursor,
        mut entries: &[Entry],
    ) -> Advance {
        let new = |entries: usize| entries.saturating_sub(1);
        paces.note(workspace_id, new(entries.len()), new(step_len(entries)));
        loop {
            let step = step_len(entries);
            let advance = self.hub.advance(workspace_id, from, &entries[..step]);
            let Advance::To(head) = advance else { return advance };
            let is_backlogged = step > 1 && self.hub.has_backlog(workspace_id);
            if is_backlogged {
                paces.put_off(workspace_id, Instant::now() + PAUSE);
            }
            if is_backlogged || step == entries.len() {
                return advance;
            }
            from = head;
            entries = &entries[step - 1..];
        }
    }

    async fn read(
        &self,
        connection: &mut Option<PgConnection>,
        ranges: &[Range],
        limit: usize,
    ) -> anyhow::Result<Vec<Entry>> {
        let limit = i64::try_from(limit)?;
        let mut open = self.open(connection).await?;
        let entries = timeout(QUERY_LIMIT, log::read(&mut open, ranges, None, limit)).await;
        let entries = entries.context("reading takes too long")??;
        *connection = Some(open);
        Ok(entries)
    }

    /// Resets the streams of a workspace whose log does not contain their events: the database
    /// failed over or was restored. Their clients start from a snapshot; events are never skipped
    /// silently.
    async fn reset_workspace(
        &self,
        connection: &mut Option<PgConnection>,
        workspace_id: WorkspaceId,
        from: Cursor,
    ) -> anyhow::Result<()> {
        counter!(metrics::LOG_BREAKS).increment(1);
        error!(%workspace_id, %from, "the log does not go on from where it was: resetting streams");
        let mut open = self.open(connection).await?;
        let head = timeout(QUERY_LIMIT, log::head(&mut open, workspace_id)).await;
        let end = match head.context("reading takes too long")? {
            Ok(head) => End::Reset(ResetReason::CursorUnknown, head),
            // The workspace was deleted, and its people's sessions with it.
            Err(sqlx::Error::RowNotFound) => End::Goodbye(GoodbyeReason::SessionRevoked),
            Err(error) => return Err(error.into()),
        };
        *connection = Some(open);
        self.hub.close_workspace(workspace_id, end);
        Ok(())
    }

    /// Takes the connection, or opens one. The caller puts it back after a successful query, so
    /// that a failed connection is dropped.
    async fn open(&self, connection: &mut Option<PgConnection>) -> anyhow::Result<PgConnection> {
        if let Some(open) = connection.take() {
            return Ok(open);
        }
        let opening = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            db::set(&mut connection, &SETTINGS).await?;
            db::set(&mut connection, &log::PLAN_ONCE).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        Ok(timeout(QUERY_LIMIT, opening).await.context("connecting takes too long")??)
    }
}

/// Returns the range to read for a workspace. The range begins with the workspace's known head, to
/// verify that the log still contains it, and adds as many new events as the pace and the limit
/// allow.
fn range(paces: &Paces, (workspace_id, head): (WorkspaceId, Cursor), limit: usize) -> Range {
    let events = paces.events(workspace_id).min(limit - 1);
    let events = i64::try_from(events).unwrap_or(i64::MAX);
    Range { workspace_id, from: head.position, to: Position(head.position.0 + events) }
}

async fn sleep_until_or_forever(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Returns the number of entries in a step: the workspace's own head, at least one more if there is
/// one, and then as many as fit.
fn step_len(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let full = entries.iter().skip(1).position(|entry| {
        bytes += entry.data.as_ref().map_or(0, Bytes::len);
        bytes >= STEP_BYTES
    });
    full.map_or(entries.len(), |index| index + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::hub::tests::{CROWDED, QUIET, at, entry, followed};

    #[tokio::test]
    async fn a_crowded_workspace_does_not_hold_up_another_ones_events() {
        let (hub, [backlogged, quiet]) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        // A step is 11 of them; with the fourth step, an outbox is half full.
        let log: Vec<_> = (1..=80).map(|position| entry(CROWDED, position, 50_000)).collect();
        let heads = |paces: &Paces| paces.ready(tail.hub.heads(&News::Anywhere));

        let advance = tail.deliver(&mut paces, CROWDED, at(1), &log);
        assert_eq!(advance, Advance::To(at(45)));
        assert_eq!(heads(&paces), [(QUIET, at(1))], "the crowded workspace is put off");
        let news = [entry(QUIET, 1, 1), entry(QUIET, 2, 1)];
        assert_eq!(tail.deliver(&mut paces, QUIET, at(1), &news), Advance::To(at(2)));
        assert_eq!(quiet.outbox.len(), 1);

        // It continues where it was, by one step, even if nothing was taken.
        let due = paces.next().unwrap();
        assert_eq!(paces.resume(due), [CROWDED].into());
        assert!(heads(&paces).contains(&(CROWDED, at(45))));
        assert_eq!(range(&paces, (CROWDED, at(45)), MAX_ENTRIES).to, Position(56));
        let advance = tail.deliver(&mut paces, CROWDED, at(45), &log[44..56]);
        assert_eq!(advance, Advance::To(at(56)));
        assert_eq!(backlogged.outbox.len(), 55);
        let due = paces.next().unwrap();
        assert_eq!(paces.resume(due), [CROWDED].into());
        // Without new events there is no reason to pause.
        tail.deliver(&mut paces, CROWDED, at(56), &log[55..56]);
        assert_eq!(paces.next(), None);
    }

    /// Returns a message of a workspace, announced to readers that are at `after`.
    fn announced(workspace_id: WorkspaceId, after: Cursor, position: i64) -> Vec<Announcement> {
        DoorbellPayload::parse(&line(workspace_id, after, at(position))).announcements
    }

    fn line(workspace_id: WorkspaceId, after: Cursor, cursor: Cursor) -> String {
        format!(
            "\n{{\"workspace_id\":{workspace_id},\"after\":\"{after}\",\"cursor\":\"{cursor}\",\
             \"kind\":\"NewMessage\",\"effect\":\"none\",\"chat_id\":3,\"message_id\":9,\"data\":{{}}}}"
        )
    }

    #[tokio::test]
    async fn a_message_is_handed_on_unread_only_by_those_who_have_all_before_it() {
        let (hub, _streams) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        let head = || tail.hub.heads(&News::In([QUIET].into()))[0].1.position.0;
        let mut announce = |id, after, position| {
            let mut news = News::default();
            let announced = announced(id, after, position);
            assert_eq!(announced.len(), 1);
            (tail.deliver_announced(&mut paces, announced, &mut news), news)
        };
        let (nothing, to_read) = (News::default(), News::In([QUIET].into()));

        assert_eq!(announce(QUIET, at(1), 2), (1, nothing.clone()));
        assert_eq!(head(), 2);
        assert_eq!(announce(QUIET, at(1), 2), (0, nothing.clone()), "it is there");
        assert_eq!(announce(QUIET, at(3), 4), (0, to_read.clone()), "something is missing");
        let other = "0000ffff-2".parse().unwrap();
        assert_eq!(announce(QUIET, other, 3), (0, to_read.clone()), "it is of another log");
        assert_eq!(announce(QUIET, at(2), 4), (0, to_read), "it leaves a gap");
        let elsewhere = WorkspaceId(99);
        let read = News::In([elsewhere].into());
        assert_eq!(announce(elsewhere, at(1), 2), (0, read), "it is not here, so nothing is read");
        assert_eq!(head(), 2);
        assert_eq!(announce(QUIET, at(2), 3), (1, nothing));
        assert_eq!(head(), 3);
    }

    #[tokio::test]
    async fn a_workspace_that_is_put_off_is_told_nothing() {
        let (hub, _streams) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        paces.put_off(QUIET, Instant::now() + PAUSE);
        let mut news = News::default();
        let told = tail.deliver_announced(&mut paces, announced(QUIET, at(1), 2), &mut news);
        assert_eq!((told, tail.hub.heads(&News::Anywhere)[1].1), (0, at(1)));
    }

    #[tokio::test]
    async fn a_crowded_workspace_that_is_behind_is_read_all_the_same() {
        let (hub, _streams) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        let log: Vec<_> = (1..=60).map(|position| entry(CROWDED, position, 50_000)).collect();
        tail.deliver(&mut paces, CROWDED, at(1), &log);
        let due = paces.next().unwrap();
        assert_eq!(paces.resume(due), [CROWDED].into());

        let mut news = News::In([CROWDED].into());
        tail.deliver_announced(&mut paces, announced(CROWDED, at(98), 99), &mut news);
        let ready = paces.ready(tail.hub.heads(&news));
        assert_eq!(ready.len(), 1, "it waits for its next pause and is never read");
    }

    #[tokio::test]
    async fn an_event_of_another_log_at_a_known_position_is_looked_at() {
        let (hub, _streams) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut paces = Paces::new(MAX_ENTRIES - 1);
        let log = [1, 2, 3].map(|position| entry(QUIET, position, 1));
        tail.deliver(&mut paces, QUIET, at(1), &log);
        for (announced, is_known) in [
            (announced(QUIET, at(1), 2), true),
            (
                DoorbellPayload::parse(&line(QUIET, at(1), "0000ffff-2".parse().unwrap()))
                    .announcements,
                false,
            ),
        ] {
            let mut news = News::default();
            assert_eq!(tail.deliver_announced(&mut paces, announced, &mut news), 0);
            assert_eq!(news == News::default(), is_known, "{news:?}");
        }
    }

    #[test]
    fn announcements_beyond_a_limit_are_read_in_the_log() {
        let (hub, _streams) = followed();
        let tail = Tail::new(hub, PgConnectOptions::new());
        for position in 1..1_002 {
            let announcements = announced(QUIET, at(position), position + 1);
            tail.on_doorbell(DoorbellPayload { workspaces: Some([CROWDED].into()), announcements });
        }
        let pending = tail.pending_work();
        assert_eq!(pending.announced.len(), 1_000);
        assert_eq!(pending.news, News::In([CROWDED, QUIET].into()));
    }

    #[test]
    fn a_step_goes_on_by_at_least_one_event() {
        let entry = |bytes| entry(QUIET, 1, bytes);
        assert_eq!(step_len(&[]), 0);
        assert_eq!(step_len(&[entry(STEP_BYTES)]), 1);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(STEP_BYTES), entry(1)]), 2);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(1), entry(STEP_BYTES), entry(1)]), 3);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(1), entry(1), entry(1)]), 4);
    }
}
