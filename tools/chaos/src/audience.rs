//! Clients that listen all the time and note everything they hear.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use fechatter_core::{ChatId, Position, Seq, SessionId, UserId, log::Cursor};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rig::{Connection, End, Follower, Frame, Person, Target};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    checker::marks::{Due, untold},
    history::{Heard, Receipt, Stream, StreamEnd, What},
};

/// Between two tries to get the stream back; shorter than a server would ask for.
const PAUSE: Duration = Duration::from_millis(100);

/// The receive buffer of a client that does not read, in bytes.
const SMALL_BUFFER: u32 = 4_096;
/// How long it may take to read what waits in the sockets.
const DRAINED: Duration = Duration::from_secs(5);

/// All who listen.
#[derive(Debug, Default)]
pub struct Audience {
    listeners: Vec<Listener>,
}

/// One client.
#[derive(Debug)]
struct Listener {
    person: Person,
    notes: Arc<Notes>,
    task: JoinHandle<()>,
    stalled: bool,
}

/// What a client knows.
#[derive(Debug, Default)]
pub struct Notes {
    heard: Mutex<Vec<Heard>>,
    reached: AtomicI64,
    connected: AtomicBool,
    refused: AtomicBool,
    kept_open: AtomicBool,
}

impl Audience {
    /// Lets a person listen. With `restless` they now and then close the stream and come back.
    pub fn add(
        &mut self,
        person: &Person,
        addresses: Arc<[SocketAddr]>,
        restless: Option<Duration>,
        seed: u64,
    ) {
        let notes = Arc::new(Notes::default());
        let mut rng = StdRng::seed_from_u64(seed);
        let follower = follower(person, addresses, rng.random_range(0..1_000));
        let task = tokio::spawn(listen(follower, Arc::clone(&notes), restless, rng));
        self.listeners.push(Listener { person: person.clone(), notes, task, stalled: false });
    }

    /// Lets a person open a stream and then read nothing of it for so long; after that they listen like everybody else.
    pub fn add_stalled(
        &mut self,
        person: &Person,
        addresses: Arc<[SocketAddr]>,
        pause: Duration,
        seed: u64,
    ) {
        let notes = Arc::new(Notes::default());
        let mut rng = StdRng::seed_from_u64(seed);
        let mut follower = follower(person, addresses, rng.random_range(0..1_000));
        let known = Arc::clone(&notes);
        let task = tokio::spawn(async move {
            stall(&mut follower, &known, pause).await;
            listen(follower, known, None, rng).await;
        });
        self.listeners.push(Listener { person: person.clone(), notes, task, stalled: true });
    }

    /// How many of those who stalled found their stream still open afterwards.
    #[must_use]
    pub fn kept_open(&self) -> usize {
        self.listeners.iter().filter(|l| l.notes.kept_open.load(Ordering::Relaxed)).count()
    }

    /// The client of a session.
    #[must_use]
    pub fn of(&self, session: SessionId) -> Option<Arc<Notes>> {
        let listener = self.listeners.iter().find(|l| l.person.session_id == session)?;
        Some(Arc::clone(&listener.notes))
    }

    /// Waits until everyone whom the servers don't refuse has a stream, and says how long that took; none if it never
    /// came to that.
    pub async fn connected(&self, patience: Duration) -> Option<Duration> {
        self.until(patience, |listener| listener.notes.connected.load(Ordering::Relaxed)).await
    }

    /// The same for having come as far as this.
    pub async fn reached(&self, position: Position, patience: Duration) -> Option<Duration> {
        let reached = |listener: &Listener| listener.notes.reached.load(Ordering::Relaxed);
        self.until(patience, |listener| reached(listener) >= position.0).await
    }

    /// The same for having told people how far they have read.
    pub async fn told(
        &self,
        due: &HashMap<UserId, Vec<Due>>,
        patience: Duration,
    ) -> Option<Duration> {
        let untold = |listener: &Listener| {
            let due = due.get(&listener.person.id);
            due.map(|due| untold(&listener.notes.heard(), due)).unwrap_or_default()
        };
        self.until(patience, |listener| listener.stalled || untold(listener).is_empty()).await
    }

    async fn until(
        &self,
        patience: Duration,
        is_there: impl Fn(&Listener) -> bool,
    ) -> Option<Duration> {
        let began = Instant::now();
        let is_there = |listener: &Listener| listener.notes.is_refused() || is_there(listener);
        while !self.listeners.iter().all(is_there) {
            if began.elapsed() > patience {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
        Some(began.elapsed())
    }

    /// Lets everybody go, and collects what they heard.
    pub fn end(self) -> Vec<Stream> {
        self.listeners.into_iter().map(Listener::end).collect()
    }
}

impl Listener {
    fn end(self) -> Stream {
        self.task.abort();
        let end = if self.notes.is_refused() { StreamEnd::Refused } else { StreamEnd::Live };
        let heard = std::mem::take(&mut *self.notes.heard());
        let Self { person, stalled, .. } = self;
        Stream { reader: person.id, session: person.session_id, heard, stalled, end }
    }
}

impl Notes {
    /// Whether the servers have refused this client.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn note(&self, what: What) {
        self.connected.store(!matches!(what, What::Opened(_) | What::Lost), Ordering::Relaxed);
        self.heard().push(Heard { at: Instant::now(), what });
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, frame: Frame<'_>) {
        match (frame.event, frame.id.and_then(|id| id.parse::<Cursor>().ok())) {
            ("Ready", _) => {
                if let Some(cursor) = cursor(frame.data) {
                    self.note(What::Ready(cursor.position));
                }
            }
            ("Reset", Some(cursor)) => self.note(What::Reset(cursor.position)),
            ("ReadStateUpdated", _) => {
                if let Some((chat, seq)) = mark(frame.data) {
                    self.note(What::Mark(chat, seq));
                }
            }
            // They tell no event; that they come too early shows in what is missing.
            ("Heartbeat", _) | (_, None) => {}
            (_, Some(cursor)) => {
                self.note(What::Event(Receipt::new(cursor, frame.data)));
                self.reached.store(cursor.position.0, Ordering::Relaxed);
            }
        }
    }
}

fn follower(person: &Person, addresses: Arc<[SocketAddr]>, server: usize) -> Follower {
    Follower { addresses, server, token: person.token.clone(), cursor: None, pause: PAUSE }
}

/// One connection that is not read, and then read to its end, which has to be near.
async fn stall(follower: &mut Follower, notes: &Notes, pause: Duration) {
    let target = Target {
        address: follower.addresses[follower.server % follower.addresses.len()],
        token: &follower.token,
        cursor: None,
        receive_buffer: Some(SMALL_BUFFER),
    };
    let asked_at = Instant::now();
    let Ok(mut connection) = Connection::open(target).await else { return };
    notes.note(What::Opened(asked_at));
    let mut reached = None;
    let mut hear = |frame: Frame<'_>| {
        match frame.id {
            Some(id) => reached = Some(id.to_owned()),
            None if frame.event == "Ready" => {
                reached = cursor(frame.data).map(|cursor| cursor.to_string());
            }
            None => {}
        }
        notes.frame(frame);
    };
    sleep(pause).await;
    // What had been sent by then comes at once; what comes later is of an open stream.
    let rest = async { while let Ok(true) = connection.read(&mut hear).await {} };
    let kept_open = timeout(DRAINED, rest).await.is_err();
    notes.kept_open.store(kept_open, Ordering::Relaxed);
    notes.note(What::Lost);
    follower.cursor = reached;
}

async fn listen(
    mut follower: Follower,
    notes: Arc<Notes>,
    restless: Option<Duration>,
    mut rng: StdRng,
) {
    let hear = |heard: rig::Heard<'_>| match heard {
        rig::Heard::Opened(at) => notes.note(What::Opened(at)),
        rig::Heard::Frame(frame) => notes.frame(frame),
        rig::Heard::Lost => notes.note(What::Lost),
    };
    loop {
        let stay = restless.map_or(Duration::MAX, |mean| mean.mul_f64(rng.random_range(0.2..1.8)));
        if let Ok(End::Refused(_)) = timeout(stay, follower.follow(hear)).await {
            notes.note(What::Lost);
            notes.refused.store(true, Ordering::Relaxed);
            return;
        }
        notes.note(What::Lost);
        follower.server += 1;
    }
}

fn cursor(ready: &[u8]) -> Option<Cursor> {
    let ready: Value = serde_json::from_slice(ready).ok()?;
    ready["cursor"].as_str()?.parse().ok()
}

fn mark(state: &[u8]) -> Option<(ChatId, Seq)> {
    let state: Value = serde_json::from_slice(state).ok()?;
    Some((ChatId(state["chat_id"].as_i64()?), Seq(state["last_read_seq"].as_i64()?)))
}
