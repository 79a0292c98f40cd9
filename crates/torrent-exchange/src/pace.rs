//! So many bytes a second and no more, for all streams together.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::wire::DATA_LIMIT;

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
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    /// When the next frame may go.
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, next: Mutex::new(Instant::now()) }
    }

    /// How many bytes of a piece go at once.
    pub(crate) fn frame(&self) -> usize {
        let limited = self.bytes_per_second.map(|limit| limit.get() / FRAMES_A_SECOND);
        limited.map_or(FRAME, |frame| frame.clamp(SHORTEST_FRAME, FRAME)) as usize
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(limit) = self.bytes_per_second else { return };
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
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_streams_get_the_same_of_the_limit() {
        let pace = Arc::new(Pace::new(NonZeroU64::new(1 << 20)));
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
