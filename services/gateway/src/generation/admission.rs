//! Who may run how many generations, and how many wait for their turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    GenerationConfig, GenerationError, Principal, metrics::GenerationMetrics, recovery::RETRY_AFTER,
};

/// The bounds of one gateway's generations, and what of them is taken.
#[derive(Debug)]
pub(super) struct Admission {
    /// All principals there are share one set of bounds.
    anonymous: Bounds,
    /// How long a generation waits for its turn.
    patience: Duration,
    closed: AtomicBool,
    metrics: GenerationMetrics,
}

/// What one principal may run.
#[derive(Debug)]
struct Bounds {
    limit: u32,
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// A generation's place among those that run, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held, never looked at")] OwnedSemaphorePermit);

impl Admission {
    /// Nothing runs or waits yet.
    pub(super) fn new(config: &GenerationConfig, metrics: GenerationMetrics) -> Self {
        let anonymous = Bounds {
            limit: config.max_generations,
            running: Arc::new(Semaphore::new(config.max_generations as usize)),
            waiting: Semaphore::new(config.max_queued as usize),
        };
        Self { anonymous, patience: config.queue_timeout, closed: AtomicBool::new(false), metrics }
    }

    fn bounds(&self, principal: Principal) -> &Bounds {
        match principal {
            Principal::Anonymous => &self.anonymous,
        }
    }

    /// Whether nothing more is taken in.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Generations that run now, of all principals.
    pub(super) fn running(&self) -> u32 {
        self.anonymous.taken()
    }

    /// A place for a generation of `principal`, when its turn comes.
    ///
    /// # Errors
    /// `Full` when too many wait already, or its turn does not come in time.
    pub(super) async fn enter(&self, principal: Principal) -> Result<Place, GenerationError> {
        let full = || GenerationError::Full { retry_after: RETRY_AFTER };
        let Bounds { running, waiting, .. } = self.bounds(principal);
        if let Ok(place) = running.clone().try_acquire_owned() {
            return Ok(Place(place));
        }
        let _waiting = waiting.try_acquire().map_err(|_| full())?;
        let _counted = self.metrics.waits();
        match timeout(self.patience, running.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place(place)),
            Ok(Err(_)) | Err(_) => Err(full()),
        }
    }

    /// Takes nothing more in and waits, up to `patience`, until all that runs has ended.
    pub(super) async fn drain(&self, patience: Duration) {
        self.closed.store(true, Ordering::Relaxed);
        let Bounds { limit, running, .. } = &self.anonymous;
        if timeout(patience, running.acquire_many(*limit)).await.is_err() {
            let left = self.running();
            tracing::warn!(left, "not all generations ended in time, they are broken off");
        }
    }
}

impl Bounds {
    fn taken(&self) -> u32 {
        let free = u32::try_from(self.running.available_permits()).unwrap_or(u32::MAX);
        self.limit.saturating_sub(free)
    }
}
