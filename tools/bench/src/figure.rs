//! One figure of several repetitions.

use std::time::Duration;

/// Its median, and how far the others are from it. Of no repetition at all it is not a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    /// What could not be measured.
    pub(crate) const NONE: Self = Self { median: f64::NAN, least: f64::NAN, most: f64::NAN };

    /// A time, in milliseconds.
    pub(crate) fn ms(time: Duration) -> Self {
        (time.as_secs_f64() * 1000.0).into()
    }

    /// What one repetition says, over all of them.
    pub(crate) fn over<T>(repetitions: &[T], of: impl Fn(&T) -> f64) -> Self {
        let mut values: Vec<_> = repetitions.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else { return Self::NONE };
        let middle = [(values.len() - 1) / 2, values.len() / 2].map(|index| values[index]);
        Self { median: f64::midpoint(middle[0], middle[1]), least: *least, most: *most }
    }
}

/// Measured once.
impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { median: value, least: value, most: value }
    }
}

/// A count, or a size in bytes.
pub(crate) fn as_f64(number: impl TryInto<u64>) -> f64 {
    let number = number.try_into().unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "what is counted here stays below 2^53")]
    let number = number as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let figure = Figure::over(&[30, 10, 20], |value| f64::from(*value));
        assert_eq!(figure, Figure { median: 20.0, least: 10.0, most: 30.0 });
        assert!((Figure::over(&[1.0, 2.0], |value| *value).median - 1.5).abs() < f64::EPSILON);
        assert!(Figure::over(&[], |value: &f64| *value).median.is_nan());
    }
}
