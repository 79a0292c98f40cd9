//! How fast peers are, and which is too slow to wait for. Pure.

/// What the last second counts in the mean over the seconds before.
const WEIGHT: f64 = 0.3;
/// Of the median of the others: who gives less than that is slow.
const SLOW: f64 = 0.25;
/// Seconds for which a peer must have been slow: pieces come in bursts.
const SLOW_FOR: u32 = 10;

/// Bytes a second of one peer. Told once a second.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    total: u64,
    mean: f64,
    slow_for: u32,
}

impl Speed {
    /// A second passed; so many bytes came since the beginning.
    pub(crate) fn second(&mut self, total: u64) {
        let came = total.saturating_sub(std::mem::replace(&mut self.total, total));
        self.mean += WEIGHT * (came as f64 - self.mean);
    }

    /// Bytes a second, over some seconds.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Compares with the others that work. Says whether it was slow for too long.
    pub(crate) fn is_slow(&mut self, others: &mut [f64]) -> bool {
        others.sort_by(f64::total_cmp);
        let median = others.get(others.len() / 2).copied();
        let is_slow = median.is_some_and(|median| self.mean < SLOW * median);
        self.slow_for = if is_slow { self.slow_for + 1 } else { 0 };
        self.slow_for >= SLOW_FOR
    }

    /// It has nothing to do, so it is not slow.
    pub(crate) fn rests(&mut self) {
        self.slow_for = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_who_gives_less_than_a_quarter_of_the_median_for_long() {
        let after = |rate: u64, others: &[f64]| {
            let mut speed = Speed::default();
            (1..=60).position(|second| {
                speed.second(second * rate);
                speed.is_slow(&mut others.to_vec())
            })
        };
        assert_eq!(after(10, &[100.0, 100.0, 1.0]), Some(9));
        assert_eq!(after(30, &[100.0, 100.0, 1.0]), None, "slow only before it got going");
        assert_eq!(after(0, &[]), None, "nobody else is there");
        assert_eq!(after(10, &[1e9, 20.0, 20.0]), None, "one fast peer makes the others not slow");
    }
}
