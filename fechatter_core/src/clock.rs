//! The database's clock. All servers judge expiry by it, because the clocks of hosts differ.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{counter, gauge};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{Timestamp, metrics};

const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Slower answers are ignored, because they do not show the time precisely.
const SLOW: Duration = Duration::from_secs(1);
/// The difference in milliseconds above which a warning is logged.
const MUCH: i64 = 1_000;
/// The accepted lead of another server's clock, in seconds.
const MOST_AHEAD: i64 = 60;
/// The time for which a server is not ready after it has seen a clock that is too far ahead.
const DISTRUST: Duration = Duration::from_mins(1);

/// The database's time, as this server last read it. Clones share it. Until the first read, it is
/// the host's time.
#[derive(Debug, Clone)]
pub struct Clock(Arc<State>);

#[derive(Debug)]
struct State {
    began: Instant,
    /// The database's time at `began`, in Unix milliseconds. A monotonic clock, which cannot be
    /// set, adds the time since then.
    base: AtomicI64,
    /// The last time at which a clock too far ahead was seen.
    distrusted_at: Mutex<Option<Instant>>,
}

impl Default for Clock {
    fn default() -> Self {
        let (began, base) = (Instant::now(), AtomicI64::new(Utc::now().timestamp_millis()));
        Self(Arc::new(State { began, base, distrusted_at: Mutex::default() }))
    }
}

impl Clock {
    /// Returns the time of the database's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let base = self.0.base.load(Ordering::Relaxed);
        let now = base.saturating_add(millis(self.0.began.elapsed()));
        DateTime::from_timestamp_millis(now).unwrap_or_else(Utc::now)
    }

    /// Returns the same time in the form for clients.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.now())
    }

    /// Returns the same time in Unix seconds.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        self.now().timestamp()
    }

    /// Returns true if another server can have issued this timestamp, in Unix seconds: its clock
    /// may be a minute ahead. If it is further ahead, logs an error, counts it, and makes this
    /// server not ready for a minute.
    pub(crate) fn is_plausible(&self, stamped_at: i64) -> bool {
        let ahead = stamped_at.saturating_sub(self.seconds());
        if ahead <= MOST_AHEAD {
            return true;
        }
        counter!(metrics::CLOCKS_AHEAD).increment(1);
        error!(ahead, "another server's clock is ahead of the database's by so many seconds");
        *self.distrusted_at() = Some(Instant::now());
        false
    }

    /// Returns an error if another server's clock was too far ahead within the last minute.
    ///
    /// # Errors
    /// The reason, for operators.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_trusted = self.distrusted_at().is_none_or(|at| at.elapsed() > DISTRUST);
        if is_trusted { Ok(()) } else { Err("another server's clock is ahead of the database's") }
    }

    /// Reads the database's clock periodically until shutdown.
    pub async fn follow(self, db: PgPool, shutdown: CancellationToken) {
        let looks = async {
            loop {
                let pause = match self.look(&db).await {
                    Ok(()) => BETWEEN_LOOKS,
                    Err(error) => {
                        debug!(%error, "the database does not say its time");
                        AFTER_FAILURE
                    }
                };
                sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(looks).await;
    }

    /// Reads the database's time and adjusts this clock to it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&self, db: &PgPool) -> sqlx::Result<()> {
        let mut connection = db.acquire().await?;
        let asked = Instant::now();
        let told = sqlx::query_scalar!(r#"select clock_timestamp() as "now!: DateTime<Utc>""#)
            .fetch_one(&mut *connection)
            .await?;
        let took = asked.elapsed();
        if took < SLOW {
            let host = Utc::now();
            let now = told + TimeDelta::from_std(took / 2).unwrap_or_default();
            self.set(now, host);
        }
        Ok(())
    }

    fn set(&self, now: DateTime<Utc>, host: DateTime<Utc>) {
        let was = self.now();
        let base = now.timestamp_millis() - millis(self.0.began.elapsed());
        self.0.base.store(base, Ordering::Relaxed);
        let ahead = (host - now).num_milliseconds();
        #[expect(clippy::cast_precision_loss, reason = "a few digits are enough")]
        gauge!(metrics::CLOCK_AHEAD_SECONDS).set(ahead as f64 / 1_000.0);
        if ahead.abs() > MUCH && (was - now).num_milliseconds().abs() > MUCH {
            warn!(
                ahead_milliseconds = ahead,
                "this host's clock differs from the database's, whose time counts; synchronise both \
                 (NTP)"
            );
        }
    }

    fn distrusted_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.distrusted_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_databases_whatever_the_hosts_clock_says() {
        for hours in [-1, 1] {
            let clock = Clock::default();
            let theirs = Utc::now() + TimeDelta::hours(hours);
            clock.set(theirs, Utc::now());
            let off = (clock.now() - theirs).num_milliseconds();
            assert!((0..10_000).contains(&off), "{off}");
        }
    }

    #[test]
    fn a_clock_may_be_a_minute_ahead_and_no_more() {
        let clock = Clock::default();
        assert!(clock.is_plausible(clock.seconds() + MOST_AHEAD - 1));
        assert!(clock.is_plausible(0));
        assert_eq!(clock.check(), Ok(()));
        assert!(!clock.is_plausible(clock.seconds() + MOST_AHEAD + 5));
        assert!(!clock.is_plausible(i64::MAX));
        assert!(clock.check().is_err());
    }
}
