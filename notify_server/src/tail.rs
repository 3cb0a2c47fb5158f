//! Reads what is new in the logs of the workspaces here and hands it on in order.
//!
//! The doorbell, a listener that lost its connection, and a poll all mean the same: look. What is
//! found decides, so that nothing announced can be missed and nothing lost can be passed over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fechatter_core::log::{self, Cursor, Entry, Range};
use fechatter_core::{Position, WorkspaceId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::frame::GoodbyeReason;
use crate::hub::{Advance, Hub};
use crate::outbox::End;

/// How late an event is when its doorbell was lost.
const POLL: Duration = Duration::from_secs(1);
/// After this a query is given up, and its connection with it: nothing else notices a network that
/// went silent.
const QUERY_LIMIT: Duration = Duration::from_secs(1);
/// Without a scan for so long, the streams here are stale.
const CURRENT: Duration = Duration::from_secs(5);
/// What one query reads: at most so many workspaces, and events in all. Half of what a stream's
/// queue holds, so that a burst alone overflows none.
const MAX_RANGES: usize = 32;
const MAX_ENTRIES: usize = 512;

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
    scanned: Mutex<Option<Instant>>,
}

impl Tail {
    pub(crate) fn new(hub: Arc<Hub>, options: PgConnectOptions) -> Self {
        let options = options.options([("statement_timeout", "2s"), ("jit", "off")]);
        let (news, woken, scanned) = Default::default();
        Self { hub, options, news, woken, scanned }
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

    /// Scans for ever, one scan at a time.
    pub(crate) async fn run(&self) {
        let mut connection = None;
        let mut failing = false;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.woken.notified() => {}
                _ = poll.tick() => self.note(News::Anywhere),
            }
            let news =
                std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            match self.scan(&mut connection, &news).await {
                Ok(()) => {
                    let now = Some(Instant::now());
                    *self.scanned.lock().unwrap_or_else(PoisonError::into_inner) = now;
                    if std::mem::take(&mut failing) {
                        info!("the logs can be read again");
                    }
                }
                // The poll looks at everything again.
                Err(error) if !failing => {
                    warn!(error = format_args!("{error:#}"), "the logs cannot be read");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    fn note(&self, news: News) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).add(news);
    }

    /// Reads until there is nothing new where it was asked to look.
    async fn scan(&self, connection: &mut Option<PgConnection>, news: &News) -> anyhow::Result<()> {
        let mut due = self.hub.heads(news);
        while !due.is_empty() {
            let batch = due.split_off(due.len().saturating_sub(MAX_RANGES));
            let limit = MAX_ENTRIES / batch.len();
            let entries = self.read(connection, &batch, limit).await?;
            for (workspace_id, from) in batch {
                let start = entries.partition_point(|entry| entry.workspace_id < workspace_id);
                let end = entries.partition_point(|entry| entry.workspace_id <= workspace_id);
                let entries = &entries[start..end];
                match self.hub.advance(workspace_id, from, entries) {
                    Advance::To(head) if entries.len() == limit => due.push((workspace_id, head)),
                    Advance::To(_) | Advance::Outdated => {}
                    Advance::Diverged => self.start_over(connection, workspace_id, from).await?,
                }
            }
        }
        Ok(())
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
        error!(%workspace_id, %from, "the log does not go on from where it was: resetting streams");
        let mut open = self.open(connection).await?;
        let head = timeout(QUERY_LIMIT, log::head(&mut open, workspace_id)).await;
        let end = match head.context("reading takes too long")? {
            Ok(head) => End::Reset(head),
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

#[cfg(test)]
mod tests {
    use super::*;

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
