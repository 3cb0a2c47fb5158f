//! Rate limits for requests to this server: one token bucket per key, in memory.
//!
//! A bucket is stored as the time at which it will be full again (the generic cell rate algorithm,
//! ITU-T I.371). Unlike in the existing crates, a bucket can go into debt, because the size of a
//! response is known only after it has been made.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::sabotage::{self, Sabotage};

/// The buckets of the keys that were used lately. Clones share them.
#[derive(Debug)]
pub struct Rates<K> {
    /// The time in which one unit comes back.
    unit: Duration,
    burst: u32,
    full_at: Arc<Mutex<HashMap<K, Instant>>>,
}

impl<K> Clone for Rates<K> {
    fn clone(&self) -> Self {
        Self { unit: self.unit, burst: self.burst, full_at: Arc::clone(&self.full_at) }
    }
}

impl<K: Eq + Hash + Send + 'static> Rates<K> {
    /// Creates buckets of `burst` units, of which `per_second` come back each second. Both are at
    /// least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let unit = Duration::from_secs(1) / per_second.max(1);
        Self { unit, burst: burst.max(1), full_at: Arc::default() }
    }

    /// Takes `units` from a bucket, or `burst` units if that is less.
    ///
    /// # Errors
    /// When the bucket has fewer units: the time until it has enough.
    pub fn take(&self, key: K, units: u32) -> Result<(), Duration> {
        self.take_at(Instant::now(), key, units)
    }

    /// Takes `units` from a bucket, or `burst` units if that is less, even if the bucket goes into
    /// debt. The debt is at most `burst` units.
    pub fn charge(&self, key: K, units: u32) {
        self.charge_at(Instant::now(), key, units);
    }

    /// Removes full buckets once a minute, until shutdown.
    pub async fn forget_idle(self, shutdown: CancellationToken) {
        let mut minutes = interval(Duration::from_mins(1));
        loop {
            tokio::select! {
                _ = minutes.tick() => {
                    let now = Instant::now();
                    self.buckets(|buckets| buckets.retain(|_, full_at| *full_at > now));
                }
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn take_at(&self, now: Instant, key: K, units: u32) -> Result<(), Duration> {
        let units = self.cost(units);
        self.buckets(|buckets| {
            let full_at = buckets.entry(key).or_insert(now);
            let taken = (*full_at).max(now) + self.unit * units;
            let most = now + self.unit * self.burst;
            if taken > most {
                return Err(taken - most);
            }
            *full_at = taken;
            Ok(())
        })
    }

    fn charge_at(&self, now: Instant, key: K, units: u32) {
        let units = self.cost(units);
        self.buckets(|buckets| {
            let full_at = buckets.entry(key).or_insert(now);
            let most = now + self.unit * self.burst * 2;
            *full_at = ((*full_at).max(now) + self.unit * units).min(most);
        });
    }

    fn cost(&self, units: u32) -> u32 {
        let is_flat = sabotage::is(Sabotage::NoShares);
        if is_flat { 1 } else { units.min(self.burst) }
    }

    fn buckets<T>(&self, work: impl FnOnce(&mut HashMap<K, Instant>) -> T) -> T {
        work(&mut self.full_at.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates() -> Rates<u8> {
        Rates::new(2, 4)
    }

    #[test]
    fn a_bucket_holds_a_burst_and_fills_up_again() {
        let (rates, now) = (rates(), Instant::now());
        for _ in 0..4 {
            rates.take_at(now, 1, 1).unwrap();
        }
        assert_eq!(rates.take_at(now, 1, 1), Err(SECOND / 2));
        assert_eq!(rates.take_at(now, 2, 4), Ok(()));
        assert_eq!(rates.take_at(now + SECOND, 1, 3), Err(SECOND / 2));
        assert_eq!(rates.take_at(now + SECOND, 1, 2), Ok(()));
    }

    #[test]
    fn what_costs_more_than_a_bucket_holds_takes_a_full_one() {
        let (rates, now) = (rates(), Instant::now());
        rates.take_at(now, 1, 1_000).unwrap();
        assert_eq!(rates.take_at(now, 1, 1_000), Err(2 * SECOND));
    }

    #[test]
    fn debts_are_paid_before_anything_else_and_are_bounded() {
        let (rates, now) = (rates(), Instant::now());
        rates.take_at(now, 1, 1).unwrap();
        rates.charge_at(now, 1, 4);
        assert_eq!(rates.take_at(now, 1, 1), Err(SECOND));
        for _ in 0..100 {
            rates.charge_at(now, 1, u32::MAX);
        }
        assert_eq!(rates.take_at(now, 1, 1), Err(2 * SECOND + SECOND / 2));
    }
}
