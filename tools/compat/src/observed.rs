//! The observations of one client of its stream, in order.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

/// The pause between two looks of a wait. Times are those of the observations, not of the looks.
const LOOK: Duration = Duration::from_millis(20);

/// One thing that a client saw.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) at: Instant,
    pub(crate) what: What,
}

/// The JSON lines that the scripts in `clients/` print.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "seen", rename_all = "lowercase")]
pub(crate) enum What {
    /// The client asks for the stream; only our own client says so.
    #[serde(skip)]
    Asked,
    /// An event of the stream.
    Event { event: String, data: Value },
    /// The stream ended, or there was none; the client connects again.
    Ended { text: String },
    /// The client gave up.
    Stopped { text: String },
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed(Arc<Mutex<Vec<Observation>>>);

impl Observed {
    pub(crate) fn add(&self, what: What) {
        self.lock().push(Observation { at: Instant::now(), what });
    }

    pub(crate) fn all(&self) -> Vec<Observation> {
        self.lock().clone()
    }

    /// The names of the events, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.all().into_iter().filter_map(|observation| match observation.what {
            What::Event { event, .. } => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// The contents of the messages, in order.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.lock().iter().filter_map(Observation::message).collect()
    }

    /// When the client asked for the first time.
    pub(crate) fn asked(&self) -> Option<Instant> {
        let observed = self.lock();
        let first = observed.iter().find(|observation| matches!(observation.what, What::Asked))?;
        Some(first.at)
    }

    /// When the client saw this message for the first time.
    pub(crate) fn time_of(&self, content: &str) -> Option<Instant> {
        let observed = self.lock();
        let found = observed.iter().find(|seen| seen.message().as_deref() == Some(content))?;
        Some(found.at)
    }

    /// When the client saw this event for the first time.
    pub(crate) fn time_of_event(&self, name: &str) -> Option<Instant> {
        let observed = self.lock();
        let found = observed.iter().find(
            |observation| matches!(&observation.what, What::Event { event, .. } if event == name),
        )?;
        Some(found.at)
    }

    /// The number of times a stream ended.
    pub(crate) fn ends(&self) -> usize {
        let is_end = |observation: &&Observation| matches!(observation.what, What::Ended { .. });
        self.lock().iter().filter(is_end).count()
    }

    /// The reason for the last end that the client was aware of.
    pub(crate) fn last_end(&self) -> Option<String> {
        self.lock().iter().rev().find_map(|observation| match &observation.what {
            What::Ended { text } => Some(text.clone()),
            _ => None,
        })
    }

    /// Why the client gave up, if it did.
    pub(crate) fn stopped(&self) -> Option<String> {
        self.lock().iter().find_map(|observation| match &observation.what {
            What::Stopped { text } => Some(text.clone()),
            _ => None,
        })
    }

    /// Waits until the condition holds; false if it does not within this time.
    pub(crate) async fn wait(&self, patience: Duration, holds: impl Fn(&Observed) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Observation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observation {
    fn message(&self) -> Option<String> {
        match &self.what {
            What::Event { event, data } if event == "NewMessage" => {
                data["content"].as_str().map(ToOwned::to_owned)
            }
            _ => None,
        }
    }
}
