//! Reads what is new in the logs of the workspaces here and hands it on in order.
//!
//! The doorbell, a listener that lost its connection, and a poll all mean the same: look. What is
//! found decides, so that nothing announced can be missed and nothing lost can be passed over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::counter;
use anyhow::Context;
use bytes::Bytes;
use fechatter_core::log::{self, Cursor, Entry, Range};
use fechatter_core::sabotage::{self, Sabotage};
use fechatter_core::{Position, WorkspaceId, metrics};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::frame::{GoodbyeReason, ResetReason};
use crate::hub::{Advance, Hub};
use crate::outbox::End;

/// How late an event is when its doorbell was lost.
const POLL: Duration = Duration::from_secs(1);
/// After this a query is given up, and its connection with it: nothing else notices a network that
/// went silent.
const QUERY_LIMIT: Duration = Duration::from_secs(1);
/// Without a scan for so long, the streams here are stale.
const CURRENT: Duration = Duration::from_secs(5);
/// What one query reads: at most so many workspaces, and events in all.
const MAX_RANGES: usize = 32;
const MAX_ENTRIES: usize = 256;
/// What streams are handed at once, and how long those who still have much to take are given before
/// the next: a burst alone must not overflow the queue of a reader who keeps up.
const STEP: usize = 512 * 1024;
const PAUSE: Duration = Duration::from_millis(10);

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Anywhere,
    In(BTreeSet<WorkspaceId>),
}

impl Default for News {
    fn default() -> Self {
        Self::In(BTreeSet::new())
    }
}

impl News {
    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::In(workspaces), Self::In(more)) => workspaces.extend(more),
            (Self::In(_), Self::Anywhere) => *self = Self::Anywhere,
            (Self::Anywhere, _) => {}
        }
    }
}

/// The one reader of the logs.
#[derive(Debug)]
pub(crate) struct Tail {
    hub: Arc<Hub>,
    options: PgConnectOptions,
    news: Mutex<News>,
    woken: Notify,
    began: Instant,
    scanned: Mutex<Option<Instant>>,
}

impl Tail {
    pub(crate) fn new(hub: Arc<Hub>, options: PgConnectOptions) -> Self {
        let options = options.options([("statement_timeout", "2s"), ("jit", "off")]);
        let options = options.options(log::PLAN_ONCE);
        let (news, woken, scanned) = Default::default();
        Self { hub, options, news, woken, began: Instant::now(), scanned }
    }

    /// Asks for a scan; one that is under way is followed by another.
    pub(crate) fn wake(&self, news: News) {
        self.note(news);
        self.woken.notify_one();
    }

    /// Whether the logs have been read lately.
    pub(crate) fn is_current(&self) -> bool {
        let scanned = *self.scanned.lock().unwrap_or_else(PoisonError::into_inner);
        scanned.is_some_and(|scanned| scanned.elapsed() < CURRENT)
    }

    /// How long ago the logs were read; since the start, if they never were.
    pub(crate) fn scan_age(&self) -> Duration {
        let scanned = *self.scanned.lock().unwrap_or_else(PoisonError::into_inner);
        scanned.unwrap_or(self.began).elapsed()
    }

    /// Scans for ever, one scan at a time.
    pub(crate) async fn run(&self) {
        let mut connection = None;
        let mut at_once = MAX_ENTRIES;
        let mut failing = false;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found_by = tokio::select! {
                () = self.woken.notified() => "doorbell",
                _ = poll.tick() => {
                    self.hub.forget_deserted();
                    if !sabotage::is(Sabotage::NoRescan) {
                        self.note(News::Anywhere);
                    }
                    "poll"
                }
            };
            let news =
                std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            match self.scan(&mut connection, &news, at_once).await {
                Ok(found) => {
                    counter!(metrics::EVENTS_READ, "found_by" => found_by).increment(found);
                    at_once = (at_once + MAX_RANGES).min(MAX_ENTRIES);
                    // A poll reads all of them; a doorbell may have named one.
                    if found_by == "poll" {
                        let now = Some(Instant::now());
                        *self.scanned.lock().unwrap_or_else(PoisonError::into_inner) = now;
                    }
                    if std::mem::take(&mut failing) {
                        info!("the logs can be read again");
                    }
                }
                // The poll looks at everything again, with smaller queries if it was for their size.
                Err(error) => {
                    at_once = (at_once / 2).max(2 * MAX_RANGES);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = format_args!("{error:#}"), "the logs cannot be read");
                    }
                }
            }
        }
    }

    fn note(&self, news: News) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).add(news);
    }

    /// Reads once where it was asked to look, and says how many events were new. Where that was not all, another scan follows, so that
    /// a busy workspace keeps no other waiting.
    async fn scan(
        &self,
        connection: &mut Option<PgConnection>,
        news: &News,
        at_once: usize,
    ) -> anyhow::Result<u64> {
        let mut found = 0;
        for batch in self.hub.heads(news).chunks(MAX_RANGES) {
            let limit = at_once / batch.len();
            let entries = self.read(connection, batch, limit).await?;
            for &(workspace_id, from) in batch {
                let start = entries.partition_point(|entry| entry.workspace_id < workspace_id);
                let end = entries.partition_point(|entry| entry.workspace_id <= workspace_id);
                let entries = &entries[start..end];
                found += u64::try_from(entries.len().saturating_sub(1))?;
                match self.hand_on(workspace_id, from, entries).await {
                    Advance::To(_) if entries.len() == limit => {
                        self.wake(News::In([workspace_id].into()));
                    }
                    Advance::To(_) | Advance::Outdated => {}
                    Advance::Diverged => self.start_over(connection, workspace_id, from).await?,
                }
            }
        }
        Ok(found)
    }

    async fn hand_on(
        &self,
        workspace_id: WorkspaceId,
        mut from: Cursor,
        mut entries: &[Entry],
    ) -> Advance {
        loop {
            let step = step(entries);
            let advance = self.hub.advance(workspace_id, from, &entries[..step]);
            let Advance::To(head) = advance else { return advance };
            if self.hub.is_crowded(workspace_id) {
                sleep(PAUSE).await;
            }
            if step == entries.len() {
                return advance;
            }
            from = head;
            entries = &entries[step - 1..];
        }
    }

    /// From each workspace's own newest event on, to see that it is still there.
    async fn read(
        &self,
        connection: &mut Option<PgConnection>,
        batch: &[(WorkspaceId, Cursor)],
        limit: usize,
    ) -> anyhow::Result<Vec<Entry>> {
        let range = |&(workspace_id, head): &(WorkspaceId, Cursor)| Range {
            workspace_id,
            from: head.position,
            to: Position(i64::MAX),
        };
        let ranges: Vec<_> = batch.iter().map(range).collect();
        let limit = i64::try_from(limit)?;
        let mut open = self.open(connection).await?;
        let entries = timeout(QUERY_LIMIT, log::read(&mut open, &ranges, None, limit)).await;
        let entries = entries.context("reading takes too long")??;
        *connection = Some(open);
        Ok(entries)
    }

    /// The database is not the one that the streams have seen: it failed over or was restored.
    /// Their clients start from a snapshot; events are never passed over.
    async fn start_over(
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
            // The workspace is gone, and its people's sessions with it.
            Err(sqlx::Error::RowNotFound) => End::Goodbye(GoodbyeReason::SessionRevoked),
            Err(error) => return Err(error.into()),
        };
        *connection = Some(open);
        self.hub.forget(workspace_id, end);
        Ok(())
    }

    /// Takes the connection, or opens one; whoever has used it with success puts it back.
    async fn open(&self, connection: &mut Option<PgConnection>) -> anyhow::Result<PgConnection> {
        if let Some(open) = connection.take() {
            return Ok(open);
        }
        let opened = timeout(QUERY_LIMIT, PgConnection::connect_with(&self.options)).await;
        Ok(opened.context("connecting takes too long")??)
    }
}

/// How many entries make a step: the workspace's own newest event, at least one more if there is
/// one, and then as many as fit.
fn step(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let full = entries.iter().skip(1).position(|entry| {
        bytes += entry.data.as_ref().map_or(0, Bytes::len);
        bytes >= STEP
    });
    full.map_or(entries.len(), |index| index + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_goes_on_by_at_least_one_event() {
        let entry = |bytes: usize| Entry {
            workspace_id: WorkspaceId(1),
            cursor: "00000001-1".parse().unwrap(),
            kind: "NewMessage".into(),
            chat_id: None,
            user_id: None,
            message_id: None,
            joined: Vec::new(),
            data: Some(vec![b'x'; bytes].into()),
        };
        assert_eq!(step(&[]), 0);
        assert_eq!(step(&[entry(STEP)]), 1);
        assert_eq!(step(&[entry(STEP), entry(STEP), entry(1)]), 2);
        assert_eq!(step(&[entry(STEP), entry(1), entry(STEP), entry(1)]), 3);
        assert_eq!(step(&[entry(STEP), entry(1), entry(1), entry(1)]), 4);
    }

    #[test]
    fn news_of_anywhere_outweighs_news_of_some() {
        let mut news = News::default();
        news.add(News::In([WorkspaceId(1)].into()));
        news.add(News::In([WorkspaceId(2)].into()));
        assert_eq!(news, News::In([WorkspaceId(1), WorkspaceId(2)].into()));

        news.add(News::Anywhere);
        news.add(News::In([WorkspaceId(3)].into()));
        assert_eq!(news, News::Anywhere);
    }
}
