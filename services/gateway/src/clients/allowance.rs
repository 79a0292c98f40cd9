//! So much a minute.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An amount that grows back evenly, up to what a minute allows. It can be overdrawn: what a generation takes is known
/// only when it has been made. Who has overdrawn waits until that has grown back; limiters that only ever say yes or no
/// beforehand cannot do this.
#[derive(Debug)]
pub(super) struct Allowance {
    per_minute: f64,
    left: Mutex<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    amount: f64,
    at: Instant,
}

impl Allowance {
    /// All of a minute's is there at once.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let per_minute = f64::from(per_minute.get());
        Self { per_minute, left: Mutex::new(Left { amount: per_minute, at: Instant::now() }) }
    }

    /// Takes so much, if it is there. More than a minute allows is there when the whole minute's is. Nothing at all is
    /// there unless it was overdrawn.
    ///
    /// # Errors
    /// How long it takes until it is there.
    pub(super) fn draw(&self, amount: u64) -> Result<(), Duration> {
        self.draw_at(amount, Instant::now())
    }

    /// Takes so much, there or not.
    pub(super) fn overdraw(&self, amount: u64) {
        self.change(Instant::now(), |left| left - amount as f64);
    }

    /// So much was taken for nothing.
    pub(super) fn give_back(&self, amount: u64) {
        self.change(Instant::now(), |left| left + amount as f64);
    }

    fn draw_at(&self, amount: u64, now: Instant) -> Result<(), Duration> {
        let needed = (amount as f64).min(self.per_minute);
        let mut missing = None;
        self.change(now, |left| {
            missing = (left < needed).then(|| (needed - left) / self.per_minute);
            if missing.is_none() { left - amount as f64 } else { left }
        });
        match missing {
            Some(minutes) => Err(Duration::from_secs_f64(60.0 * minutes)),
            None => Ok(()),
        }
    }

    fn change(&self, now: Instant, change: impl FnOnce(f64) -> f64) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let minutes = now.saturating_duration_since(left.at).as_secs_f64() / 60.0;
        let amount = (left.amount + minutes * self.per_minute).min(self.per_minute);
        *left = Left { amount: change(amount).min(self.per_minute), at: left.at.max(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(per_minute: u32) -> (Allowance, Instant) {
        (Allowance::new(NonZeroU32::new(per_minute).expect("not 0")), Instant::now())
    }

    fn seconds(of: u64) -> Duration {
        Duration::from_secs(of)
    }

    #[test]
    fn a_minutes_amount_may_be_taken_at_once_and_grows_back_evenly() {
        let (six, start) = of(6);
        assert!((0..6).all(|_| six.draw_at(1, start).is_ok()));
        let wait = six.draw_at(1, start).expect_err("all is taken");
        assert!((9..=10).contains(&wait.as_secs()), "{wait:?}");
        assert!(six.draw_at(1, start + seconds(11)).is_ok());
        assert!(six.draw_at(1, start + seconds(11)).is_err());
        let later = start + seconds(3600);
        assert!((0..6).all(|_| six.draw_at(1, later).is_ok()), "an idle hour saves up no more than a minute");
        assert!(six.draw_at(1, later).is_err());
    }

    #[test]
    fn what_was_overdrawn_has_to_grow_back_first() {
        let (hundred, start) = of(100);
        assert_eq!(hundred.draw_at(100, start), Ok(()));
        hundred.overdraw(50);
        assert!(hundred.draw_at(0, start + seconds(20)).is_err());
        assert_eq!(hundred.draw_at(0, start + seconds(31)), Ok(()));
        hundred.give_back(1_000_000);
        assert!(
            hundred.draw_at(100, start + seconds(31)).is_ok()
                && hundred.draw_at(1, start + seconds(31)).is_err()
        );
    }

    #[test]
    fn more_than_a_minutes_amount_needs_a_whole_one_and_is_paid_afterwards() {
        let (hundred, start) = of(100);
        assert_eq!(hundred.draw_at(250, start), Ok(()));
        let wait = hundred.draw_at(1, start).expect_err("overdrawn by 150");
        assert!((90..=91).contains(&wait.as_secs()), "{wait:?}");
        assert!(hundred.draw_at(250, start + seconds(100)).is_err(), "only part of it has grown back");
        assert!(hundred.draw_at(250, start + seconds(151)).is_ok());
    }
}
