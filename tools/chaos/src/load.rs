//! People who send messages all the time, and change what was sent, each until it is known what became of it.

mod changes;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fechatter_core::ChatId;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use rig::{Answer, Person};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::changes::{Sent, archive_now_and_then, change, use_rights};
use crate::history::{Attempt, Calls, Change, Outcome, Send};

/// The longest wait for an answer, after which the caller asks another server.
const PATIENCE: Duration = Duration::from_secs(3);
/// Who has none by then gives up.
const GIVING_UP: Duration = Duration::from_secs(40);

/// Of so many messages, one is followed by a change.
const SENDS_A_CHANGE: u32 = 2;

/// Somebody's place in a chat, from which they send.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Seat {
    pub person: Person,
    pub chat: ChatId,
    /// The longest that they say, in characters of four bytes.
    pub length: usize,
}

/// The calls that a load makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Sends only.
    Sends,
    /// Sends, edits, deletions, reactions, reading; and chats are archived for a moment.
    Everything,
}

/// The senders, at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    workers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seats: Mutex<Vec<Seat>>,
    calls: Mutex<Calls>,
    /// The messages that nobody is changing at this moment and that may be changed.
    sent: Mutex<Vec<Sent>>,
    acknowledged: AtomicUsize,
}

/// A call that may be repeated.
#[derive(Debug)]
struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Seat {
    /// Of somebody who says little at a time.
    #[must_use]
    pub fn new(person: &Person, chat: ChatId) -> Self {
        Self { person: person.clone(), chat, length: 50 }
    }
}

impl Load {
    /// Lets so many workers send so many messages a second in all.
    #[must_use]
    pub fn begin(seats: Vec<Seat>, workers: u32, per_second: u32, mix: Mix, seed: u64) -> Self {
        let shared = Arc::new(Shared { seats: Mutex::new(seats), ..Shared::default() });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            let pause = Duration::from_secs(1) * workers / per_second;
            let rng = StdRng::seed_from_u64(seed ^ u64::from(worker));
            tasks.spawn(work(Arc::clone(&shared), mix, rng, pause, stop.clone()));
        }
        Self { shared, stop, workers: tasks }
    }

    /// Lets the owners of these chats archive one of them now and then, and unarchive it after a moment.
    pub fn archive(&mut self, owners: Vec<Seat>, seed: u64) {
        let rng = StdRng::seed_from_u64(seed);
        let archiving =
            archive_now_and_then(Arc::clone(&self.shared), owners, rng, self.stop.clone());
        self.workers.spawn(archiving);
    }

    /// How many messages have been acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until one more message is acknowledged and says how long that took.
    pub async fn next_acknowledged(&self) -> Duration {
        let (began, before) = (Instant::now(), self.acknowledged());
        while self.acknowledged() == before && began.elapsed() < GIVING_UP {
            sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    /// Lets another person send, too.
    pub fn seat(&self, seat: Seat) {
        lock(&self.shared.seats).push(seat);
    }

    /// Lets somebody say something at about this moment, besides everything else.
    pub fn say(&mut self, seat: Seat, about: Duration, seed: u64) {
        let shared = Arc::clone(&self.shared);
        self.workers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            sleep(about.mul_f64(rng.random())).await;
            shared.note_send(&seat.person, say(&seat, &mut rng).await);
        });
    }

    /// The same for a message or a change, whichever it happens to be.
    pub fn say_or_change(&mut self, seat: Seat, about: Duration, seed: u64) {
        let shared = Arc::clone(&self.shared);
        self.workers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            sleep(about.mul_f64(rng.random())).await;
            if rng.random() {
                shared.note_send(&seat.person, say(&seat, &mut rng).await);
            } else {
                use_rights(&shared, &seat, &mut rng).await;
            }
        });
    }

    /// Ends the load; what is on its way is settled first.
    pub async fn end(mut self) -> Calls {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        std::mem::take(&mut *lock(&self.shared.calls))
    }
}

impl Shared {
    fn note_send(&self, by: &Person, send: Send) {
        if let Some(message) = send.acknowledged() {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            lock(&self.sent).push(Sent {
                id: message.id,
                chat: message.chat_id,
                seq: message.seq,
                sender: by.clone(),
            });
        }
        lock(&self.calls).sends.push(send);
    }

    fn note_change(&self, change: Change) {
        lock(&self.calls).changes.push(change);
    }
}

async fn work(
    shared: Arc<Shared>,
    mix: Mix,
    mut rng: StdRng,
    pause: Duration,
    stop: CancellationToken,
) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Not all at the same moment.
    sleep(pause.mul_f64(rng.random())).await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let seat = lock(&shared.seats).choose(&mut rng).cloned();
        if let Some(seat) = seat {
            shared.note_send(&seat.person, say(&seat, &mut rng).await);
        }
        if mix == Mix::Everything && rng.random_ratio(1, SENDS_A_CHANGE) {
            change(&shared, &mut rng).await;
        }
    }
}

async fn say(seat: &Seat, rng: &mut StdRng) -> Send {
    let key = Uuid::from_u128(rng.random());
    let content = text(key, seat.length, rng);
    let Seat { person, chat, .. } = seat;
    let call = Call {
        method: Method::POST,
        path: format!("/api/chat/{chat}/messages"),
        body: Some(json!({ "content": content, "idempotency_key": key })),
    };
    let message = |body| serde_json::from_value(body).ok().map(Box::new);
    let attempts = settle(person, rng, &call, message).await;
    Send { chat: *chat, sender: person.id, session: person.session_id, key, content, attempts }
}

/// A text that is no other message's.
fn text(key: Uuid, length: usize, rng: &mut StdRng) -> String {
    format!("{key} {}", "🍜".repeat(rng.random_range(0..length)))
}

/// Calls one server after the other until it is known what became of it.
async fn settle<T>(
    person: &Person,
    rng: &mut StdRng,
    Call { method, path, body }: &Call,
    read: impl Fn(Value) -> Option<T>,
) -> Vec<Attempt<T>> {
    let began = Instant::now();
    let mut person = person.at(rng.random_range(0..1_000));
    let mut attempts: Vec<Attempt<T>> = Vec::new();
    loop {
        let invoked = Instant::now();
        let answer = timeout(PATIENCE, person.call(method.clone(), path, body.as_ref())).await;
        let mut refusal = None;
        let outcome = match answer {
            Ok(Answer::Ok { body, .. }) => read(body).map_or(Outcome::Unknown, Outcome::Ok),
            Ok(Answer::Refused { .. }) => Outcome::Failed,
            Ok(Answer::ServerBug(_)) => Outcome::Fault,
            Ok(Answer::Unknown(answer)) => {
                refusal = Some(answer);
                Outcome::Unknown
            }
            Err(_) => Outcome::Unknown,
        };
        let is_known = !matches!(outcome, Outcome::Unknown);
        let acknowledged = matches!(outcome, Outcome::Ok(_));
        let server = person.rest.server_index(person.server);
        let returned = Instant::now();
        attempts.push(Attempt { server, invoked, returned, outcome, refusal });
        // Now and then an answer is taken for lost: calling once more changes nothing.
        let again = acknowledged && attempts.len() == 1 && rng.random_ratio(1, 20);
        let is_settled = is_known || attempts.iter().any(Attempt::is_ok);
        if !again && (is_settled || began.elapsed() > GIVING_UP) {
            return attempts;
        }
        person.server += 1;
        sleep(Duration::from_millis(rng.random_range(20..60))).await;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
