//! Reads the new events of the logs of loaded workspaces and delivers them in order.
//!
//! A doorbell, a lost listener connection and a poll all cause a scan. Only the contents of the log
//! decide what is delivered, so a lost notification cannot cause a lost event. A message in the
//! doorbell is delivered without reading the log if its event directly follows the workspace's
//! local head: the newest event that this server has delivered.

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

use crate::read::pace::Pacing;
use crate::workspace::hub::{Advance, Hub};
use crate::workspace::outbox::End;
use crate::workspace::scan_scope::ScanScope;
use crate::workspace::state::ApplyError;

/// The settings of the tail's connection.
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "2s"), ("jit", "off")];
/// The poll interval, and so the maximum delay of an event whose doorbell was lost.
const POLL: Duration = Duration::from_secs(1);
/// The time limit of a query. After a timeout, the connection is dropped too, because nothing else
/// detects a connection that hangs.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
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
    scope: ScanScope,
    announced: Vec<Announcement>,
}

/// The only reader of the logs for live streams.
#[derive(Debug)]
pub(crate) struct Tail {
    hub: Arc<Hub>,
    options: PgConnectOptions,
    pending_work: Mutex<PendingWork>,
    woken: Notify,
    started_at: Instant,
    last_full_scan: Mutex<Option<Instant>>,
}

impl Tail {
    pub(crate) fn new(hub: Arc<Hub>, options: PgConnectOptions) -> Self {
        let (pending_work, woken, last_full_scan) = Default::default();
        Self { hub, options, pending_work, woken, started_at: Instant::now(), last_full_scan }
    }

    /// Requests a scan. If one is running, another follows it.
    pub(crate) fn wake(&self, scope: ScanScope) {
        self.add_to_scope(scope);
        self.woken.notify_one();
    }

    /// Queues the content of a doorbell notification.
    pub(crate) fn on_doorbell(
        &self,
        DoorbellPayload { workspaces, announcements }: DoorbellPayload,
    ) {
        self.add_to_scope(workspaces.map_or(ScanScope::All, ScanScope::Workspaces));
        let mut pending = self.pending_work();
        for announcement in announcements {
            if pending.announced.len() < MAX_QUEUED_ANNOUNCEMENTS {
                pending.announced.push(announcement);
            } else {
                pending.scope.add(ScanScope::Workspaces([announcement.workspace_id].into()));
            }
        }
        drop(pending);
        self.woken.notify_one();
    }

    /// Returns true if the last full scan is not older than [`STALE_AFTER`].
    pub(crate) fn is_current(&self) -> bool {
        let last_full_scan = *self.last_full_scan.lock().unwrap_or_else(PoisonError::into_inner);
        last_full_scan.is_some_and(|time| time.elapsed() < STALE_AFTER)
    }

    /// Returns the time since the last full scan, or since the start if there was none.
    pub(crate) fn scan_age(&self) -> Duration {
        let last_full_scan = *self.last_full_scan.lock().unwrap_or_else(PoisonError::into_inner);
        last_full_scan.unwrap_or(self.started_at).elapsed()
    }

    /// Scans for ever, one scan at a time.
    pub(crate) async fn run(&self) {
        let mut connection = None;
        let mut max_entries = MAX_ENTRIES;
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        let mut failing = false;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found_by = tokio::select! {
                () = self.woken.notified() => "doorbell",
                // The metric has no value of its own for the end of a pause.
                () = sleep_until_or_forever(pacing.next_resume()) => "doorbell",
                _ = poll.tick() => {
                    self.hub.evict_idle();
                    pacing.retain(|workspace_id| self.hub.has(workspace_id));
                    if !sabotage::is(Sabotage::NoRescan) {
                        self.add_to_scope(ScanScope::All);
                    }
                    "poll"
                }
            };
            self.add_to_scope(ScanScope::Workspaces(pacing.resume_due(Instant::now())));
            let PendingWork { mut scope, announced } = std::mem::take(&mut *self.pending_work());
            let delivered = self.deliver_announced(&mut pacing, announced, &mut scope);
            counter!(metrics::EVENTS_READ, "found_by" => "announcement").increment(delivered);
            let local_heads = pacing.not_paused(self.hub.local_heads(&scope));
            if local_heads.is_empty() {
                // No query was needed, so `failing` keeps its value.
                self.record_scan(found_by);
                continue;
            }
            match self.scan(&mut connection, &mut pacing, &local_heads, max_entries).await {
                Ok(found) => {
                    counter!(metrics::EVENTS_READ, "found_by" => found_by).increment(found);
                    max_entries = (max_entries + MAX_RANGES).min(MAX_ENTRIES);
                    self.record_scan(found_by);
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

    /// Records the time of a full scan. Only a poll causes a full scan: a doorbell may name only
    /// some workspaces.
    fn record_scan(&self, found_by: &str) {
        if found_by == "poll" {
            let now = Some(Instant::now());
            *self.last_full_scan.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    fn add_to_scope(&self, scope: ScanScope) {
        self.pending_work().scope.add(scope);
    }

    fn pending_work(&self) -> MutexGuard<'_, PendingWork> {
        self.pending_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the announced messages that directly follow a local head, and returns their number.
    /// Adds the workspaces of the others to `scope`, so that the next scan reads their logs.
    fn deliver_announced(
        &self,
        pacing: &mut Pacing,
        announced: Vec<Announcement>,
        scope: &mut ScanScope,
    ) -> u64 {
        let mut delivered = 0;
        for announcement in announced {
            let (id, after) = (announcement.workspace_id, announcement.after);
            if pacing.is_paused(id) || self.hub.has_event(id, announcement.cursor) {
                continue;
            }
            match self.hub.deliver_next(id, after, &announcement.into_entry()) {
                Advance::To(_) => {
                    delivered += 1;
                    // Only after a delivery: if a rejected announcement also paused the workspace,
                    // repeated announcements would delay its scan for ever.
                    if self.hub.has_backlog(id) {
                        pacing.pause(id, Instant::now() + PAUSE);
                    }
                }
                Advance::Skipped | Advance::Failed(_) => {
                    scope.add(ScanScope::Workspaces([id].into()));
                }
            }
        }
        delivered
    }

    /// Reads each of these workspaces once, and returns the number of new events. If a read was
    /// incomplete, another scan follows, so that a busy workspace does not delay others.
    async fn scan(
        &self,
        connection: &mut Option<PgConnection>,
        pacing: &mut Pacing,
        local_heads: &[(WorkspaceId, Cursor)],
        max_entries: usize,
    ) -> anyhow::Result<u64> {
        let mut found = 0;
        for batch in local_heads.chunks(MAX_RANGES) {
            let limit = max_entries / batch.len();
            let ranges: Vec<_> = batch.iter().map(|&head| range(pacing, head, limit)).collect();
            let entries = self.read(connection, &ranges, limit).await?;
            for (&(workspace_id, from), range) in batch.iter().zip(&ranges) {
                let start = entries.partition_point(|entry| entry.workspace_id < workspace_id);
                let end = entries.partition_point(|entry| entry.workspace_id <= workspace_id);
                match self.deliver(pacing, workspace_id, from, &entries[start..end]) {
                    Advance::To(head) => {
                        found += u64::try_from(head.position.0 - from.position.0)?;
                        if head.position == range.to {
                            self.wake(ScanScope::Workspaces([workspace_id].into()));
                        }
                    }
                    Advance::Skipped => {}
                    Advance::Failed(ApplyError::Diverged) => {
                        self.reset_workspace(connection, workspace_id, from).await?;
                    }
                    Advance::Failed(ApplyError::UnknownEffect) => {
                        warn!(
                            %workspace_id,
                            "the log contains an event with an unknown effect, written by a newer \
                             server version: reloading the workspace"
                        );
                        // `Draining` makes the clients reconnect and resume.
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
        pacing: &mut Pacing,
        workspace_id: WorkspaceId,
        mut from: Cursor,
        mut entries: &[Entry],
    ) -> Advance {
        // The first entry is the local head.
        let without_head = |count: usize| count.saturating_sub(1);
        let found = without_head(entries.len());
        pacing.record(workspace_id, found, without_head(step_len(entries)));
        loop {
            let step = step_len(entries);
            let advance = self.hub.advance(workspace_id, from, &entries[..step]);
            let Advance::To(head) = advance else { return advance };
            let is_backlogged = step > 1 && self.hub.has_backlog(workspace_id);
            if is_backlogged {
                pacing.pause(workspace_id, Instant::now() + PAUSE);
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
        let entries = timeout(QUERY_TIMEOUT, log::read(&mut open, ranges, None, limit)).await;
        let entries = entries.context("reading the log timed out")??;
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
        error!(
            %workspace_id, %from,
            "the log no longer contains the last delivered event (failover or restore): resetting \
             the streams of the workspace"
        );
        let mut open = self.open(connection).await?;
        let head = timeout(QUERY_TIMEOUT, log::head(&mut open, workspace_id)).await;
        let end = match head.context("reading the log timed out")? {
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
        Ok(timeout(QUERY_TIMEOUT, opening).await.context("connecting timed out")??)
    }
}

/// Returns the range to read for a workspace. The range begins with the workspace's local head, to
/// verify that the log still contains it, and adds as many new events as the pace and the limit
/// allow.
fn range(pacing: &Pacing, (workspace_id, head): (WorkspaceId, Cursor), limit: usize) -> Range {
    let events = pacing.max_events(workspace_id).min(limit - 1);
    let events = i64::try_from(events).unwrap_or(i64::MAX);
    Range { workspace_id, from: head.position, to: Position(head.position.0 + events) }
}

async fn sleep_until_or_forever(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Returns the number of entries in a step: the local head, and then the new events up to and
/// including the one with which their total size reaches `STEP_BYTES`.
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
    use crate::workspace::hub::tests::{BUSY, QUIET, at, entry, hub_with_streams};

    #[tokio::test]
    async fn a_backlogged_workspace_does_not_delay_the_events_of_another() {
        let (hub, [busy, quiet]) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        // One step has 11 events. After the fourth step, the outbox is more than half full.
        let log: Vec<_> = (1..=80).map(|position| entry(BUSY, position, 50_000)).collect();
        let heads = |pacing: &Pacing| pacing.not_paused(tail.hub.local_heads(&ScanScope::All));

        let advance = tail.deliver(&mut pacing, BUSY, at(1), &log);
        assert_eq!(advance, Advance::To(at(45)));
        assert_eq!(heads(&pacing), [(QUIET, at(1))], "the backlogged workspace is paused");
        let entries = [entry(QUIET, 1, 1), entry(QUIET, 2, 1)];
        assert_eq!(tail.deliver(&mut pacing, QUIET, at(1), &entries), Advance::To(at(2)));
        assert_eq!(quiet.outbox.len(), 1);

        // After the pause, delivery continues with one step, even if the client has read nothing.
        let due = pacing.next_resume().unwrap();
        assert_eq!(pacing.resume_due(due), [BUSY].into());
        assert!(heads(&pacing).contains(&(BUSY, at(45))));
        assert_eq!(range(&pacing, (BUSY, at(45)), MAX_ENTRIES).to, Position(56));
        let advance = tail.deliver(&mut pacing, BUSY, at(45), &log[44..56]);
        assert_eq!(advance, Advance::To(at(56)));
        assert_eq!(busy.outbox.len(), 55);
        let due = pacing.next_resume().unwrap();
        assert_eq!(pacing.resume_due(due), [BUSY].into());
        // Without new events there is no reason to pause.
        tail.deliver(&mut pacing, BUSY, at(56), &log[55..56]);
        assert_eq!(pacing.next_resume(), None);
    }

    /// Returns the announcement of a message that follows the event `after`.
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
    async fn an_announced_message_is_delivered_only_if_it_follows_the_local_head() {
        let (hub, _streams) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        let local_head =
            || tail.hub.local_heads(&ScanScope::Workspaces([QUIET].into()))[0].1.position.0;
        let mut announce = |id, after, position| {
            let mut scope = ScanScope::default();
            let announced = announced(id, after, position);
            assert_eq!(announced.len(), 1);
            (tail.deliver_announced(&mut pacing, announced, &mut scope), scope)
        };
        let (nothing, to_read) = (ScanScope::default(), ScanScope::Workspaces([QUIET].into()));

        assert_eq!(announce(QUIET, at(1), 2), (1, nothing.clone()));
        assert_eq!(local_head(), 2);
        assert_eq!(announce(QUIET, at(1), 2), (0, nothing.clone()), "already delivered");
        assert_eq!(announce(QUIET, at(3), 4), (0, to_read.clone()), "an earlier event is missing");
        let other = "0000ffff-2".parse().unwrap();
        assert_eq!(announce(QUIET, other, 3), (0, to_read.clone()), "different stamp");
        assert_eq!(announce(QUIET, at(2), 4), (0, to_read), "position gap");
        let elsewhere = WorkspaceId(99);
        // The workspace is not loaded here, so the scan will skip it.
        let to_scan = ScanScope::Workspaces([elsewhere].into());
        assert_eq!(announce(elsewhere, at(1), 2), (0, to_scan));
        assert_eq!(local_head(), 2);
        assert_eq!(announce(QUIET, at(2), 3), (1, nothing));
        assert_eq!(local_head(), 3);
    }

    #[tokio::test]
    async fn announcements_of_a_paused_workspace_are_not_delivered() {
        let (hub, _streams) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        pacing.pause(QUIET, Instant::now() + PAUSE);
        let mut scope = ScanScope::default();
        let delivered = tail.deliver_announced(&mut pacing, announced(QUIET, at(1), 2), &mut scope);
        assert_eq!((delivered, tail.hub.local_heads(&ScanScope::All)[1].1), (0, at(1)));
    }

    #[tokio::test]
    async fn a_backlogged_workspace_that_is_behind_is_still_scanned() {
        let (hub, _streams) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        let log: Vec<_> = (1..=60).map(|position| entry(BUSY, position, 50_000)).collect();
        tail.deliver(&mut pacing, BUSY, at(1), &log);
        let due = pacing.next_resume().unwrap();
        assert_eq!(pacing.resume_due(due), [BUSY].into());

        let mut scope = ScanScope::Workspaces([BUSY].into());
        tail.deliver_announced(&mut pacing, announced(BUSY, at(98), 99), &mut scope);
        let ready = pacing.not_paused(tail.hub.local_heads(&scope));
        assert_eq!(ready.len(), 1, "a workspace that is behind is scanned");
    }

    #[tokio::test]
    async fn an_announcement_with_another_stamp_at_a_known_position_causes_a_scan() {
        let (hub, _streams) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        let mut pacing = Pacing::new(MAX_ENTRIES - 1);
        let log = [1, 2, 3].map(|position| entry(QUIET, position, 1));
        tail.deliver(&mut pacing, QUIET, at(1), &log);
        for (announced, is_known) in [
            (announced(QUIET, at(1), 2), true),
            (
                DoorbellPayload::parse(&line(QUIET, at(1), "0000ffff-2".parse().unwrap()))
                    .announcements,
                false,
            ),
        ] {
            let mut scope = ScanScope::default();
            assert_eq!(tail.deliver_announced(&mut pacing, announced, &mut scope), 0);
            assert_eq!(scope == ScanScope::default(), is_known, "{scope:?}");
        }
    }

    #[test]
    fn announcements_beyond_the_limit_cause_a_scan() {
        let (hub, _streams) = hub_with_streams();
        let tail = Tail::new(hub, PgConnectOptions::new());
        for position in 1..1_002 {
            let announcements = announced(QUIET, at(position), position + 1);
            tail.on_doorbell(DoorbellPayload { workspaces: Some([BUSY].into()), announcements });
        }
        let pending = tail.pending_work();
        assert_eq!(pending.announced.len(), 1_000);
        assert_eq!(pending.scope, ScanScope::Workspaces([BUSY, QUIET].into()));
    }

    #[test]
    fn a_step_contains_at_least_one_new_event() {
        let entry = |bytes| entry(QUIET, 1, bytes);
        assert_eq!(step_len(&[]), 0);
        assert_eq!(step_len(&[entry(STEP_BYTES)]), 1);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(STEP_BYTES), entry(1)]), 2);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(1), entry(STEP_BYTES), entry(1)]), 3);
        assert_eq!(step_len(&[entry(STEP_BYTES), entry(1), entry(1), entry(1)]), 4);
    }
}
