//! So many bytes a second and no more, for all streams together; fewer while the process has something better to do.

use std::{
    fmt,
    num::NonZeroU64,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{limits::SeedLimits, wire::DATA_LIMIT};

/// Small enough that a stream does not keep the others, or the process's main work, waiting.
const FRAME: u64 = 64 * 1024;
/// With a limit, frames are so small that so many pass in a second: many streams get something of it every few seconds,
/// and are not taken for dead.
const FRAMES_A_SECOND: u64 = 16;
/// Of a very low limit.
const SHORTEST_FRAME: u64 = 4 * 1024;

const _: () = assert!(FRAME <= DATA_LIMIT as u64, "a frame fits into a message");

/// Lets pass what the limit allows. Each stream has one frame that waits, and who waits longest goes first: so all
/// streams that have something to send get the same.
pub(crate) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    beside_work: NonZeroU64,
    /// Whether the process has something better to do.
    works: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// When the next frame may go.
    next: Mutex<Instant>,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("bytes_per_second", &self.limit()).finish_non_exhaustive()
    }
}

impl Pace {
    pub(crate) fn new(limits: &SeedLimits) -> Self {
        Self {
            bytes_per_second: limits.bytes_per_second,
            beside_work: limits.bytes_per_second_beside_work,
            works: OnceLock::new(),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Gives way as long as this says so. Who says it first is heard.
    pub(crate) fn give_way_while(&self, works: impl Fn() -> bool + Send + Sync + 'static) {
        _ = self.works.set(Box::new(works));
    }

    fn gives_way(&self) -> bool {
        self.works.get().is_some_and(|works| works())
    }

    /// Bytes in a second, now.
    fn limit(&self) -> Option<NonZeroU64> {
        match self.gives_way() {
            true => Some(self.bytes_per_second.map_or(self.beside_work, |limit| limit.min(self.beside_work))),
            false => self.bytes_per_second,
        }
    }

    /// How many bytes of a piece go at once.
    pub(crate) fn frame(&self) -> usize {
        let limited = self.limit().map(|limit| limit.get() / FRAMES_A_SECOND);
        limited.map_or(FRAME, |frame| frame.clamp(SHORTEST_FRAME, FRAME)) as usize
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(limit) = self.limit() else { return };
        let takes = Duration::from_secs_f64(bytes as f64 / limit.get() as f64);
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + takes;
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    use tokio::task::JoinSet;

    use super::*;

    fn pace(bytes_per_second: Option<u64>, beside_work: u64) -> Arc<Pace> {
        Arc::new(Pace::new(&SeedLimits {
            bytes_per_second: bytes_per_second.and_then(NonZeroU64::new),
            bytes_per_second_beside_work: NonZeroU64::new(beside_work).unwrap(),
            ..SeedLimits::default()
        }))
    }

    /// How long so many bytes take, in frames.
    async fn takes(pace: &Pace, bytes: usize) -> Duration {
        let (start, mut sent) = (Instant::now(), 0);
        while sent < bytes {
            pace.pass(pace.frame()).await;
            sent += pace.frame();
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_process_works_less_is_sent_and_then_all_again() {
        let (works, mib) = (Arc::new(AtomicBool::new(false)), 1 << 20);
        for (limit, beside_work, at_work) in [(None, 1, 4.0), (Some(8), 1, 4.0), (Some(1), 2, 4.0)] {
            let pace = pace(limit.map(|limit| limit << 20), beside_work << 20);
            assert_eq!(pace.frame(), FRAME as usize);
            let asked = works.clone();
            pace.give_way_while(move || asked.load(Relaxed));
            works.store(true, Relaxed);
            let took = takes(&pace, 4 * mib).await.as_secs_f64();
            assert!((at_work - 0.1..=at_work).contains(&took), "{took} s");
            works.store(false, Relaxed);
            let took = takes(&pace, 4 * mib).await.as_secs_f64();
            let expected = limit.map_or(0.0, |limit| 4.0 / limit as f64);
            assert!((expected - 0.1..=expected + 0.1).contains(&took), "{took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_get_the_same_of_the_limit() {
        let pace = pace(Some(1 << 20), 1 << 30);
        let (start, mut streams) = (Instant::now(), JoinSet::new());
        for _ in 0..4 {
            let pace = pace.clone();
            streams.spawn(async move {
                let mut sent = 0;
                while start.elapsed() < Duration::from_secs(4) {
                    pace.pass(pace.frame()).await;
                    sent += pace.frame();
                }
                sent
            });
        }
        let sent = streams.join_all().await;
        assert!(sent.iter().all(|bytes| bytes.abs_diff(1 << 20) <= 2 * pace.frame()), "{sent:?}");
    }
}
