//! Many streams, each of another person.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use fechatter_core::UserId;
use rig::{Cluster, Follower, Frame, Heard, Person};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    clock::{Clock, sent_at},
    timed::Timed,
};

/// How many streams are opened side by side when there is no hurry.
const SIDE_BY_SIDE: usize = 50;
/// How long a stream that was refused waits at least.
const PAUSE: Duration = Duration::from_millis(200);
/// For whatever streams are waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Open streams. Dropping this closes them.
#[derive(Debug)]
pub(crate) struct Crowd {
    clock: Clock,
    streams: JoinSet<()>,
    heard: Arc<watch::Sender<State>>,
}

/// What all streams have heard together.
#[derive(Debug, Default)]
struct State {
    beginnings: Beginnings,
    receipts: Vec<Receipt>,
    lost: usize,
}

/// The cursors at which people's streams have begun.
pub(crate) type Beginnings = HashMap<UserId, String>;

/// One message at one stream, in the clock's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    sent: Duration,
    received: Duration,
}

impl Crowd {
    /// Opens a stream for each, a few at a time, and waits until all are there.
    pub(crate) async fn gather(clock: Clock, cluster: &Cluster, people: &[Person]) -> Result<Self> {
        let mut crowd = Self::nobody(clock);
        for few in people.chunks(SIDE_BY_SIDE) {
            for person in few {
                crowd.join(cluster, person, None);
            }
            let there = crowd.streams.len();
            crowd.wait_for(|state| state.beginnings.len() >= there).await?;
        }
        Ok(crowd)
    }

    /// Begins to open a stream for each from their cursor on, all at once.
    pub(crate) fn storm(
        clock: Clock,
        cluster: &Cluster,
        people: &[Person],
        mut cursors: Beginnings,
    ) -> Self {
        let mut crowd = Self::nobody(clock);
        for person in people {
            crowd.join(cluster, person, cursors.remove(&person.id));
        }
        crowd
    }

    /// Closes all streams and tells where each began.
    pub(crate) async fn leave(mut self) -> Beginnings {
        self.streams.shutdown().await;
        self.heard.send_replace(State::default()).beginnings
    }

    /// Waits until so many messages have been received, and forgets them.
    pub(crate) async fn receipts(&self, count: usize) -> Result<Vec<Receipt>> {
        self.wait_for(|state| state.receipts.len() >= count).await?;
        let mut receipts = Vec::new();
        self.heard.send_modify(|state| std::mem::swap(&mut state.receipts, &mut receipts));
        Ok(receipts)
    }

    /// How often a stream broke off or was not to be had.
    pub(crate) fn lost(&self) -> usize {
        self.heard.borrow().lost
    }

    fn nobody(clock: Clock) -> Self {
        Self { clock, streams: JoinSet::new(), heard: Arc::new(watch::Sender::default()) }
    }

    fn join(&mut self, cluster: &Cluster, person: &Person, cursor: Option<String>) {
        let addresses = Arc::clone(&cluster.events);
        let token = Arc::clone(&person.token);
        let (clock, heard, user_id) = (self.clock, Arc::clone(&self.heard), person.id);
        self.streams.spawn(async move {
            let mut follower = Follower { addresses, server: 0, token, cursor, pause: PAUSE };
            let hear = |what: Heard<'_>| match what {
                Heard::Frame(frame) => hear(clock, &heard, user_id, frame),
                Heard::Lost => heard.send_modify(|state| state.lost += 1),
                Heard::Opened => {}
            };
            follower.follow(hear).await;
        });
    }

    async fn wait_for(&self, is_enough: impl FnMut(&State) -> bool) -> Result<()> {
        let mut heard = self.heard.subscribe();
        let waited = timeout(PATIENCE, heard.wait_for(is_enough)).await.map(drop);
        waited.with_context(|| {
            let State { beginnings, receipts, lost } = &*self.heard.borrow();
            format!(
                "of {} streams {} have begun and {lost} broke off; they received {}",
                self.streams.len(),
                beginnings.len(),
                receipts.len()
            )
        })
    }
}

impl Receipt {
    /// How long the messages were on their way.
    pub(crate) fn latencies(receipts: &[Self]) -> Option<Timed> {
        Timed::new(
            receipts.iter().map(|receipt| receipt.received.saturating_sub(receipt.sent)).collect(),
        )
    }

    /// How long after a moment they were received.
    pub(crate) fn since(receipts: &[Self], moment: Duration) -> Option<Timed> {
        Timed::new(receipts.iter().map(|receipt| receipt.received.saturating_sub(moment)).collect())
    }
}

fn hear(clock: Clock, heard: &watch::Sender<State>, user_id: UserId, frame: Frame<'_>) {
    let received = clock.now();
    match frame.event {
        "NewMessage" => {
            if let Some(sent) = sent_at(frame.data) {
                heard.send_modify(|state| state.receipts.push(Receipt { sent, received }));
            }
        }
        "Ready" => {
            let ready: Option<serde_json::Value> = serde_json::from_slice(frame.data).ok();
            if let Some(cursor) = ready.as_ref().and_then(|ready| ready["cursor"].as_str()) {
                heard.send_modify(|state| {
                    state.beginnings.insert(user_id, cursor.to_owned());
                });
            }
        }
        _ => {}
    }
}
