//! When to come again, for those who find all places taken: by how many are ahead of them, and by how long generations
//! take.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How long a generation takes, as long as none has ended.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Nobody is sent away for less, or for longer: clients heed no longer time.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Those who were sent away and are remembered. Who comes after them waits no longer than the last.
const MOST_SENT: usize = 4096;

/// Who was sent away until when.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long a place is held, smoothed.
    held: Option<Duration>,
    /// When those come again who were sent away; rising, more or less.
    sent: VecDeque<Instant>,
}

impl Patience {
    /// A generation had its place for so long. Single ones vary much, so each counts for an eighth.
    pub(super) fn ended(&mut self, after: Duration) {
        self.held = Some(self.held.map_or(after, |held| (held * 7 + after) / 8));
    }

    /// When there is a place for one more, behind `waiting` others and those who will come again before.
    pub(super) fn come_again(&mut self, waiting: usize, places: u32, now: Instant) -> Duration {
        self.sent.retain(|until| *until > now);
        let ahead = u32::try_from(waiting + self.sent.len()).unwrap_or(u32::MAX);
        let held = self.held.unwrap_or(UNKNOWN);
        let wait = held.saturating_mul(ahead.saturating_add(1)) / places.max(1);
        let wait = wait.clamp(BOUNDS.0, BOUNDS.1);
        if self.sent.len() < MOST_SENT {
            self.sent.push_back(now + wait);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_sent_away_comes_again_when_those_ahead_are_done() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        (0..50).for_each(|_| patience.ended(8 * SECOND));
        // Four places of 8 s each: one is free every 2 s.
        let first: Vec<u64> = (0..3).map(|_| patience.come_again(7, 4, now).as_secs()).collect();
        assert_eq!(first, [16, 18, 20], "behind those who wait, and one another");
        let later = now + 17 * SECOND;
        assert_eq!(patience.come_again(0, 4, later).as_secs(), 6, "the first has come again");
        assert_eq!(patience.come_again(100_000, 1, later), BOUNDS.1);
        (0..200).for_each(|_| patience.ended(Duration::from_millis(1)));
        assert_eq!(Patience { sent: VecDeque::new(), ..patience }.come_again(0, 4, later), BOUNDS.0);
    }

    #[test]
    fn before_any_has_ended_it_is_guessed_and_memory_is_bounded() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert_eq!(patience.come_again(0, 1, now), UNKNOWN);
        (0..2 * MOST_SENT).for_each(|_| _ = patience.come_again(0, 1, now));
        assert_eq!(patience.sent.len(), MOST_SENT);
    }
}
