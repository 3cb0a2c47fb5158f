//! The trials of streams, the same for proxies and clients: at once, cut, restart, kill −9.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use rig::Cluster;
use tokio::{
    sync::watch,
    task::{JoinHandle, block_in_place},
    time::sleep,
};

use crate::{conversation::Conversation, observed::Observed, tap::Tap, verdict::Verdict};

/// A browser takes this long to start on a busy machine.
const CONNECTING: Duration = Duration::from_secs(40);
/// A client may wait 3 s before it comes back, and longer if it fails more than once.
const RESUMING: Duration = Duration::from_secs(40);
const AT_ONCE: Duration = Duration::from_secs(5);
const GAP: Duration = Duration::from_millis(50);
/// Longer than the messages of the interrupted phases.
const INTERRUPTION: Duration = Duration::from_millis(500);

/// The phases of which the tables tell; all messages of a phase begin with its name.
pub(crate) const PHASES: [&str; 4] = ["cut", "live", "restart", "kill"];

/// One stream of a candidate.
pub(crate) struct Listener {
    pub(crate) label: &'static str,
    pub(crate) observed: Observed,
    pub(crate) cutter: Cutter,
}

/// The ways to cut a stream.
pub(crate) enum Cutter {
    Subscriber(watch::Sender<u64>, JoinHandle<()>),
    Tap(Tap),
}

/// A proxy or a client, with everything that it does at the same time as the others.
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) conversation: Conversation,
    pub(crate) listeners: Vec<Listener>,
}

/// The results for one listener.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) label: &'static str,
    /// From the first request to the first event.
    pub(crate) first: Option<Duration>,
    /// The slowest of the messages that were sent one by one.
    pub(crate) slowest: Option<Duration>,
    /// A verdict for each of [`PHASES`].
    pub(crate) verdicts: [Verdict; 4],
}

impl Cutter {
    fn cut(&self) {
        match self {
            Self::Subscriber(cuts, _) => cuts.send_modify(|cuts| *cuts += 1),
            Self::Tap(tap) => tap.cut(),
        }
    }

    /// In the middle of the next event, where that is possible.
    fn cut_in_half(&self) {
        match self {
            Self::Subscriber(..) => self.cut(),
            Self::Tap(tap) => tap.cut_in_half(),
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        if let Self::Subscriber(_, task) = self {
            task.abort();
        }
    }
}

/// Plays all phases; the candidates share the restarts.
pub(crate) async fn play(
    candidates: &[Candidate],
    cluster: &mut Cluster,
) -> Result<Vec<Vec<Outcome>>> {
    try_join_all(candidates.iter().map(Candidate::ready)).await?;
    // Before the first message there is only the `id` of `Ready` to resume from.
    all(candidates, async |candidate| {
        candidate.cut();
        candidate.conversation.talk("cut first", 5, Duration::ZERO).await
    })
    .await?;
    let slowest = try_join_all(candidates.iter().map(Candidate::live)).await?;
    all(candidates, async |candidate| {
        let cut = async {
            sleep(INTERRUPTION).await;
            candidate.cut();
            sleep(INTERRUPTION).await;
            candidate.listeners.iter().for_each(|listener| listener.cutter.cut_in_half());
        };
        let talk = candidate.conversation.talk("cut later", 30, GAP);
        let (talked, ()) = tokio::join!(talk, cut);
        talked
    })
    .await?;
    interrupt(candidates, cluster, "restart").await?;
    interrupt(candidates, cluster, "kill").await?;
    let outcomes = candidates.iter().zip(slowest);
    Ok(outcomes.map(|(candidate, slowest)| candidate.outcomes(slowest)).collect())
}

/// Does something for every candidate, and waits until each has seen everything.
async fn all(
    candidates: &[Candidate],
    action: impl AsyncFn(&Candidate) -> Result<()>,
) -> Result<()> {
    try_join_all(candidates.iter().map(|candidate| action(candidate))).await?;
    join_all(candidates.iter().map(Candidate::caught_up)).await;
    Ok(())
}

/// Ends `notify_server` in the middle of a conversation and starts it again.
async fn interrupt(
    candidates: &[Candidate],
    cluster: &mut Cluster,
    phase: &'static str,
) -> Result<()> {
    let restart = async {
        sleep(INTERRUPTION).await;
        let client = cluster.client.clone();
        let notifier = cluster.notifiers.first_mut().context("there is a notify_server")?;
        notifier.signal(if phase == "kill" { "KILL" } else { "TERM" })?;
        while notifier.check().is_ok() {
            sleep(GAP).await;
        }
        block_in_place(|| notifier.stop())?;
        sleep(INTERRUPTION).await;
        notifier.start()?;
        notifier.ready(&client, Duration::from_secs(30)).await
    };
    let talk = try_join_all(
        candidates.iter().map(|candidate| candidate.conversation.talk(phase, 60, GAP)),
    );
    let (restarted, talked) = tokio::join!(restart, talk);
    restarted?;
    talked?;
    join_all(candidates.iter().map(Candidate::caught_up)).await;
    Ok(())
}

impl Candidate {
    async fn ready(&self) -> Result<()> {
        for listener in &self.listeners {
            let is_ready = |observed: &Observed| observed.time_of_event("Ready").is_some();
            let came = listener.observed.wait(CONNECTING, is_ready).await;
            let seen = listener.observed.all();
            ensure!(came, "{} {} gets no stream: {seen:?}", self.name, listener.label);
        }
        Ok(())
    }

    /// The number of these streams that have ended so far.
    pub(crate) fn ends(&self) -> usize {
        self.listeners.iter().map(|listener| listener.observed.ends()).sum()
    }

    fn cut(&self) {
        self.listeners.iter().for_each(|listener| listener.cutter.cut());
    }

    /// Sends messages one by one. How long the slowest took to each listener; none if one did not come.
    async fn live(&self) -> Result<Vec<Option<Duration>>> {
        let mut slowest = vec![Some(Duration::ZERO); self.listeners.len()];
        for number in 0..10 {
            let content = format!("live {number}");
            let began = Instant::now();
            self.conversation.send(&content).await?;
            for (listener, slowest) in self.listeners.iter().zip(&mut slowest) {
                let came = |observed: &Observed| observed.time_of(&content).is_some();
                listener.observed.wait(AT_ONCE, came).await;
                let took = listener.observed.time_of(&content).map(|at| at - began);
                *slowest = slowest.zip(took).map(|(slowest, took)| slowest.max(took));
            }
            sleep(GAP).await;
        }
        Ok(slowest)
    }

    /// Waits until every listener has seen the last message, which comes after all others.
    async fn caught_up(&self) {
        let Some(last) = self.conversation.sent().pop() else { return };
        for listener in &self.listeners {
            let came = |observed: &Observed| observed.time_of(&last).is_some();
            listener.observed.wait(RESUMING, came).await;
        }
    }

    fn outcomes(&self, slowest: Vec<Option<Duration>>) -> Vec<Outcome> {
        let of = |phase: &str, contents: Vec<String>| {
            contents.into_iter().filter(|content| content.starts_with(phase)).collect::<Vec<_>>()
        };
        let outcome = |(listener, slowest): (&Listener, _)| {
            let (sent, seen) = (self.conversation.sent(), listener.observed.messages());
            let verdicts =
                PHASES.map(|phase| Verdict::of(&of(phase, sent.clone()), &of(phase, seen.clone())));
            Outcome { label: listener.label, first: listener.first(), slowest, verdicts }
        };
        self.listeners.iter().zip(slowest).map(outcome).collect()
    }
}

impl Listener {
    /// The time that the first event took.
    fn first(&self) -> Option<Duration> {
        let asked = match &self.cutter {
            Cutter::Subscriber(..) => self.observed.asked(),
            Cutter::Tap(tap) => tap.asked().first().map(|asked| asked.at),
        };
        Some(self.observed.time_of_event("Ready")? - asked?)
    }
}

impl Outcome {
    /// True if the first event and every message came within a second.
    pub(crate) fn is_at_once(&self) -> bool {
        let is_short = |took: Option<Duration>| took.is_some_and(|took| took.as_secs() < 1);
        is_short(self.first) && is_short(self.slowest)
    }

    pub(crate) fn total(&self) -> Verdict {
        let mut total = Verdict::default();
        self.verdicts.iter().for_each(|verdict| total += *verdict);
        total
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("name", &self.name).finish_non_exhaustive()
    }
}
