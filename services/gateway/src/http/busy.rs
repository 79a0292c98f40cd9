//! How busy this gateway is, told each second to those who watch the swarm.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::generation::Generator;

/// Also the sign of life by which a watcher knows that it is still connected.
const EVERY: Duration = Duration::from_secs(1);
/// The rate is that of the last two seconds: steady enough to read, and soon true again after a change.
const INTERVALS: usize = 2;

/// How busy the gateway is.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Busy {
    /// Of all generations together.
    tokens_per_second: f64,
    /// That run now.
    generations: u32,
}

/// Tells each second how busy the gateway is.
pub(super) struct BusyMeter {
    generator: Generator,
    rate: Rate,
    ticks: Interval,
}

impl BusyMeter {
    /// Measures from now on.
    pub(super) fn new(generator: Generator) -> Self {
        let now = Instant::now();
        let rate = Rate::from(now, generator.generated_tokens());
        let mut ticks = interval_at(now + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { generator, rate, ticks }
    }

    /// How busy it was, when the next second is over. Cancel safe.
    pub(super) async fn next(&mut self) -> Busy {
        self.ticks.tick().await;
        Busy {
            tokens_per_second: self.rate.per_second(Instant::now(), self.generator.generated_tokens()),
            generations: self.generator.running(),
        }
    }
}

/// How fast a counter grows.
struct Rate {
    /// The counter at the last few times, oldest first; never empty.
    marks: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn from(now: Instant, count: u64) -> Self {
        Self { marks: VecDeque::from([(now, count)]) }
    }

    /// Since the oldest mark; this one becomes the newest.
    fn per_second(&mut self, now: Instant, count: u64) -> f64 {
        self.marks.push_back((now, count));
        if self.marks.len() > INTERVALS + 1 {
            self.marks.pop_front();
        }
        let (since, before) = self.marks[0];
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { count.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_two_intervals() {
        let start = Instant::now();
        let mut rate = Rate::from(start, 100);
        let seen: Vec<f64> = [(1, 110), (2, 140), (3, 140), (4, 140)]
            .map(|(second, count)| rate.per_second(start + Duration::from_secs(second), count))
            .into();
        assert_eq!(seen, [10.0, 20.0, 15.0, 0.0]);
    }
}
