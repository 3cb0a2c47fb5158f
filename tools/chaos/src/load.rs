//! People who send messages all the time, each until it is known what became of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fechatter_core::{ChatId, message::Message};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rig::{Answer, Person};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::history::{Attempt, Outcome, Send};

/// Who has no answer by then asks another server, under the same key.
const PATIENCE: Duration = Duration::from_secs(3);
/// Who has none by then gives up.
const GIVING_UP: Duration = Duration::from_secs(40);

/// Somebody's place in a chat, from which they send.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Seat {
    pub person: Person,
    pub chat: ChatId,
    /// The longest that they say, in characters of four bytes.
    pub length: usize,
}

/// The senders, at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    workers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    seats: Mutex<Vec<Seat>>,
    sends: Mutex<Vec<Send>>,
    acknowledged: AtomicUsize,
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
    pub fn begin(seats: Vec<Seat>, workers: u32, per_second: u32, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            seats: Mutex::new(seats),
            sends: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            let pause = Duration::from_secs(1) * workers / per_second;
            let rng = StdRng::seed_from_u64(seed ^ u64::from(worker));
            tasks.spawn(work(Arc::clone(&shared), rng, pause, stop.clone()));
        }
        Self { shared, stop, workers: tasks }
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
            shared.note(say(&seat, &mut rng).await);
        });
    }

    /// Ends the load; what is on its way is settled first.
    pub async fn end(mut self) -> Vec<Send> {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        std::mem::take(&mut *lock(&self.shared.sends))
    }
}

impl Shared {
    fn note(&self, send: Send) {
        if send.acknowledged().is_some() {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.sends).push(send);
    }
}

async fn work(shared: Arc<Shared>, mut rng: StdRng, pause: Duration, stop: CancellationToken) {
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
            shared.note(say(&seat, &mut rng).await);
        }
    }
}

async fn say(seat: &Seat, rng: &mut StdRng) -> Send {
    let key = Uuid::from_u128(rng.random());
    let content = format!("{key} {}", "🍜".repeat(rng.random_range(0..seat.length)));
    let Seat { person, chat, .. } = seat;
    let mut send = Send {
        chat: *chat,
        sender: person.id,
        session: person.session_id,
        key,
        content,
        attempts: Vec::new(),
    };
    let began = Instant::now();
    let mut person = person.at(rng.random_range(0..1_000));
    loop {
        let invoked = Instant::now();
        let answer = timeout(PATIENCE, person.send(*chat, &send.content, key)).await;
        let mut refusal = None;
        let outcome = match answer {
            Ok(Answer::Ok { body, .. }) => match serde_json::from_value::<Message>(body) {
                Ok(message) => Outcome::Ok(Box::new(message)),
                Err(_) => Outcome::Unknown,
            },
            Ok(Answer::Refused { .. }) => Outcome::Failed,
            Ok(Answer::ServerBug(_)) => Outcome::Fault,
            Ok(Answer::Unknown(answer)) => {
                refusal = Some(answer);
                Outcome::Unknown
            }
            Err(_) => Outcome::Unknown,
        };
        let is_known = outcome != Outcome::Unknown;
        let acknowledged = matches!(outcome, Outcome::Ok(_));
        let server = person.rest.server_index(person.server);
        let returned = Instant::now();
        send.attempts.push(Attempt { server, invoked, returned, outcome, refusal });
        // Now and then an answer is taken for lost: saying it once more changes nothing.
        let again = acknowledged && send.attempts.len() == 1 && rng.random_ratio(1, 20);
        let is_settled = is_known || send.acknowledged().is_some();
        if !again && (is_settled || began.elapsed() > GIVING_UP) {
            return send;
        }
        person.server += 1;
        sleep(Duration::from_millis(rng.random_range(20..60))).await;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
