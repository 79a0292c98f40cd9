//! When to come again, for those who find all places taken: by how many are ahead of them, and by how long generations
//! take.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// How long a generation takes at least, as long as none has ended.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Nobody is sent away for less, or for longer: clients heed no longer time.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Those who were sent away and are remembered. Who comes after them waits no longer than the last.
const MOST_SENT: usize = 4096;

/// Who was sent away until when.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long a place is held, smoothed.
    held: Option<Duration>,
    /// Of those that are held, since when; in the order in which they were taken.
    taken: BTreeMap<u64, Instant>,
    next: u64,
    /// When those come again who were sent away; rising, more or less.
    sent: VecDeque<Instant>,
}

impl Patience {
    /// A generation has a place from now on, which is known by this number.
    pub(super) fn began(&mut self, now: Instant) -> u64 {
        self.next += 1;
        self.taken.insert(self.next, now);
        self.next
    }

    /// It has the place no more. Single ones vary much in how long they had theirs, so each counts for a part; a
    /// shorter time for less, as those that run when all others have ended are the fast ones.
    pub(super) fn ended(&mut self, place: u64, now: Instant) {
        let Some(since) = self.taken.remove(&place) else { return };
        let after = now - since;
        self.held = Some(match self.held {
            None => after,
            Some(held) if after > held => held + (after - held) / 4,
            Some(held) => held - (held - after) / 64,
        });
    }

    /// Nobody was there to take it.
    pub(super) fn never_began(&mut self, place: u64) {
        self.taken.remove(&place);
    }

    /// How long a place is held, as far as one can tell: by those that were held, and as those that are will be held
    /// for twice as long as they were so far, on the whole.
    fn holds(&self, now: Instant) -> Duration {
        let middle = self.taken.values().nth(self.taken.len() / 2);
        let twice = middle.map_or(Duration::ZERO, |since| 2 * (now - *since));
        self.held.unwrap_or(UNKNOWN).max(twice)
    }

    /// When there is a place for one more, behind `waiting` others and those who will come again before.
    pub(super) fn come_again(&mut self, waiting: usize, places: u32, now: Instant) -> Duration {
        self.sent.retain(|until| *until > now);
        let ahead = u32::try_from(waiting + self.sent.len()).unwrap_or(u32::MAX);
        let held = self.holds(now);
        let wait = held.saturating_mul(ahead.saturating_add(1)) / places.max(1);
        let wait = wait.clamp(BOUNDS.0, BOUNDS.1);
        if self.sent.len() < MOST_SENT {
            self.sent.push_back(now + wait);
        }
        wait
    }
}

#[cfg(test)]
impl Patience {
    /// Nobody has a place.
    pub(super) fn holds_none(&self) -> bool {
        self.taken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_sent_away_comes_again_when_those_ahead_are_done() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        let lasts = |patience: &mut Patience, time: Duration| {
            let place = patience.began(now);
            patience.ended(place, now + time);
        };
        (0..50).for_each(|_| lasts(&mut patience, 8 * SECOND));
        // Four places of 8 s each: one is free every 2 s.
        let first: Vec<u64> = (0..3).map(|_| patience.come_again(7, 4, now).as_secs()).collect();
        assert_eq!(first, [16, 18, 20], "behind those who wait, and one another");
        let later = now + 17 * SECOND;
        assert_eq!(patience.come_again(0, 4, later).as_secs(), 6, "the first has come again");
        assert_eq!(patience.come_again(100_000, 1, later), BOUNDS.1);
        (0..200).for_each(|_| lasts(&mut patience, Duration::from_millis(1)));
        assert_eq!(Patience { sent: VecDeque::new(), ..patience }.come_again(0, 4, later), BOUNDS.0);
    }

    #[test]
    fn before_any_has_ended_it_is_guessed_and_memory_is_bounded() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert_eq!(patience.come_again(0, 1, now), UNKNOWN);
        patience.sent.clear();
        patience.began(now);
        let later = now + 7 * SECOND;
        assert_eq!(patience.come_again(0, 1, later), 14 * SECOND, "those that run are half through");
        (0..2 * MOST_SENT).for_each(|_| _ = patience.come_again(0, 1, now));
        assert_eq!(patience.sent.len(), MOST_SENT);
    }
}
