//! Many durations, and what can be said of them.

use std::time::Duration;

/// Durations in ascending order, at least one.
#[derive(Debug)]
pub(crate) struct Timed(Vec<Duration>);

impl Timed {
    /// None of none.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        (!durations.is_empty()).then_some(Self(durations))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    pub(crate) fn max(&self) -> Duration {
        self.percentile(100)
    }

    /// The shortest one that so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent).div_ceil(100) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_durations() {
        let timed = |upto: u64| Timed::new((1..=upto).rev().map(Duration::from_millis).collect());
        let hundred = timed(100).unwrap();
        let found = [hundred.p50(), hundred.p99(), hundred.max()];
        assert_eq!(found.map(|duration| duration.as_millis()), [50, 99, 100]);
        let three = timed(3).unwrap();
        let found = [three.p50(), three.p99(), three.max()];
        assert_eq!(found.map(|duration| duration.as_millis()), [2, 3, 3]);
        assert!(timed(0).is_none());
    }
}
