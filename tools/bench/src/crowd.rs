//! Many streams, each of another person.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fechatter_core::UserId;
use rig::{Follower, Frame, Heard, Person};
use tokio::{task::JoinSet, time::sleep};

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
/// How often it is looked whether it has happened: telling at each message would cost more than the message.
const LOOK: Duration = Duration::from_millis(1);

/// Open streams. Dropping this closes them.
#[derive(Debug)]
pub(crate) struct Crowd {
    clock: Clock,
    addresses: Arc<[SocketAddr]>,
    streams: JoinSet<()>,
    ears: Vec<Arc<Mutex<Vec<Receipt>>>>,
    heard: Arc<All>,
}

/// What all streams have heard together.
#[derive(Debug, Default)]
struct All {
    beginnings: Mutex<Beginnings>,
    begun: AtomicUsize,
    received: AtomicUsize,
    lost: AtomicUsize,
    /// The first message, as it came.
    sample: Mutex<Option<String>>,
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
    pub(crate) async fn gather(
        clock: Clock,
        addresses: &Arc<[SocketAddr]>,
        people: &[Person],
    ) -> Result<Self> {
        let mut crowd = Self::nobody(clock, addresses);
        for few in people.chunks(SIDE_BY_SIDE) {
            for person in few {
                crowd.join(person, None);
            }
            crowd.wait_for(|heard| &heard.begun, crowd.streams.len()).await?;
        }
        Ok(crowd)
    }

    /// Begins to open a stream for each from their cursor on, all at once.
    pub(crate) fn storm(
        clock: Clock,
        addresses: &Arc<[SocketAddr]>,
        people: &[Person],
        mut cursors: Beginnings,
    ) -> Self {
        let mut crowd = Self::nobody(clock, addresses);
        for person in people {
            crowd.join(person, cursors.remove(&person.id));
        }
        crowd
    }

    /// Closes all streams and tells where each began.
    pub(crate) async fn leave(mut self) -> Beginnings {
        self.streams.shutdown().await;
        std::mem::take(&mut lock(&self.heard.beginnings))
    }

    /// Waits until so many messages have been received since the last [`receipts`](Self::receipts).
    pub(crate) async fn received(&self, count: usize) -> Result<()> {
        self.wait_for(|heard| &heard.received, count).await
    }

    /// Waits until so many messages have been received, and forgets them.
    pub(crate) async fn receipts(&self, count: usize) -> Result<Vec<Receipt>> {
        self.received(count).await?;
        let mut receipts = Vec::with_capacity(count);
        for ear in &self.ears {
            receipts.append(&mut lock(ear));
        }
        self.heard.received.fetch_sub(receipts.len(), Ordering::Relaxed);
        Ok(receipts)
    }

    /// How often a stream broke off or was not to be had.
    pub(crate) fn lost(&self) -> usize {
        self.heard.lost.load(Ordering::Relaxed)
    }

    /// A message as it came, with its fields.
    pub(crate) fn sample(&self) -> Option<String> {
        lock(&self.heard.sample).clone()
    }

    fn nobody(clock: Clock, addresses: &Arc<[SocketAddr]>) -> Self {
        let addresses = Arc::clone(addresses);
        Self { clock, addresses, streams: JoinSet::new(), ears: Vec::new(), heard: Arc::default() }
    }

    fn join(&mut self, person: &Person, cursor: Option<String>) {
        let addresses = Arc::clone(&self.addresses);
        let token = Arc::clone(&person.token);
        let (clock, heard, user_id) = (self.clock, Arc::clone(&self.heard), person.id);
        let ear = Arc::default();
        self.ears.push(Arc::clone(&ear));
        self.streams.spawn(async move {
            let mut follower = Follower { addresses, server: 0, token, cursor, pause: PAUSE };
            let hear = |what: Heard<'_>| match what {
                Heard::Frame(frame) => heard.hear(clock, &ear, user_id, frame),
                Heard::Lost => _ = heard.lost.fetch_add(1, Ordering::Relaxed),
                Heard::Opened(_) => {}
            };
            follower.follow(hear).await;
        });
    }

    async fn wait_for(&self, what: fn(&All) -> &AtomicUsize, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while what(&self.heard).load(Ordering::Relaxed) < count {
            if Instant::now() > deadline {
                let All { begun, received, lost, .. } = &*self.heard;
                bail!(
                    "of {} streams {begun:?} have begun and {lost:?} broke off; they received {received:?}",
                    self.streams.len()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl All {
    fn hear(&self, clock: Clock, ear: &Mutex<Vec<Receipt>>, user_id: UserId, frame: Frame<'_>) {
        let received = clock.now();
        match frame.event {
            "NewMessage" => {
                if let Some(sent) = sent_at(frame.data) {
                    lock(ear).push(Receipt { sent, received });
                    if self.received.fetch_add(1, Ordering::Relaxed) == 0 {
                        *lock(&self.sample) = Some(as_it_came(frame));
                    }
                }
            }
            "Ready" => {
                let ready: Option<serde_json::Value> = serde_json::from_slice(frame.data).ok();
                if let Some(cursor) = ready.as_ref().and_then(|ready| ready["cursor"].as_str()) {
                    lock(&self.beginnings).insert(user_id, cursor.to_owned());
                    self.begun.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
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

fn as_it_came(frame: Frame<'_>) -> String {
    let id = frame.id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {}\ndata: {}\n\n", frame.event, String::from_utf8_lossy(frame.data))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
