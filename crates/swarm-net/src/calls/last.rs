//! When something last happened, noted and read by threads that share it without waiting for each other.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The last time of something.
#[derive(Debug, Default)]
pub(crate) struct Last {
    /// In ms since the first use of any, and one more; 0: never.
    at: AtomicU64,
}

impl Last {
    /// It happens now.
    pub(crate) fn note(&self) {
        self.at.store(millis() + 1, Ordering::Relaxed);
    }

    /// Whether it happened not longer ago than this.
    pub(crate) fn is_within(&self, time: Duration) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        at > 0 && Duration::from_millis(millis().saturating_sub(at - 1)) <= time
    }
}

fn millis() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
}
