//! Notices that the engine does not come back from a batch: a GPU that hangs, a disk that its weights are read from.
//! The worker still answers then, so that nobody else would notice.
//!
//! How long a batch may take goes by how long those before it took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::{metrics::Metrics, offer::Loading};

/// A machine that has much else to do keeps a thread waiting for so long, and it is no stall.
const LEAST: Duration = Duration::from_secs(5);
/// As long as no batch has ended.
const UNKNOWN: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(3600);
/// So many times the time that rows have taken.
const TIMES: f64 = 20.0;
/// So many times the longest batch: few rows take longer each than many.
const TIMES_LONGEST: f64 = 4.0;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is seen of an engine from outside its thread. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Signs>);

#[derive(Debug, Default)]
struct Signs {
    /// Grows with all that the engine gets done.
    beats: AtomicU64,
    /// Who waits for the engine.
    waiting: AtomicUsize,
    /// Microseconds that the next beat may take.
    bound: AtomicU64,
}

/// Somebody waits for the engine until this is dropped.
pub(crate) struct Waits(Pulse);

impl Pulse {
    /// Somebody waits from now on.
    pub(crate) fn waits(&self) -> Waits {
        self.0.waiting.fetch_add(1, Relaxed);
        Waits(self.clone())
    }

    fn beats(&self, next_within: Duration) {
        let micros = u64::try_from(next_within.as_micros()).unwrap_or(u64::MAX);
        self.0.bound.store(micros, Relaxed);
        self.0.beats.fetch_add(1, Relaxed);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Who looks at it now and then.
#[derive(Debug)]
struct Onlooker {
    pulse: Pulse,
    /// The last beat, and when it was new.
    beat: u64,
    since: Instant,
    stalled: bool,
}

impl Onlooker {
    /// Whether somebody waits for longer than the engine should need. That lasts until it gets something done: who
    /// waited goes elsewhere meanwhile.
    fn sees_stall(&mut self, now: Instant) -> bool {
        let Signs { beats, waiting, bound } = &*self.pulse.0;
        let beat = beats.load(Relaxed);
        if beat != self.beat || (!self.stalled && waiting.load(Relaxed) == 0) {
            (self.beat, self.since) = (beat, now);
        }
        let bound = Duration::from_micros(bound.load(Relaxed)).max(LEAST);
        self.stalled = now.duration_since(self.since) > bound;
        self.stalled
    }
}

/// How long batches take, on the engine's thread.
#[derive(Debug)]
pub(crate) struct Pace {
    pulse: Pulse,
    /// Seconds a row, smoothed; nothing before the first batch.
    row: Option<f64>,
    /// Seconds of the longest batch, forgotten slowly.
    longest: f64,
}

impl Pace {
    pub(crate) fn new(pulse: Pulse) -> Self {
        Self { pulse, row: None, longest: 0.0 }
    }

    /// Something other than a batch was done.
    pub(crate) fn goes_on(&self) {
        self.pulse.beats(LEAST);
    }

    /// A batch of so many rows begins.
    pub(crate) fn begins(&self, rows: usize) {
        self.pulse.beats(self.bound(rows));
    }

    /// It took so long.
    pub(crate) fn ended(&mut self, rows: usize, took: Duration) {
        self.goes_on();
        let took = took.as_secs_f64();
        let row = took / rows.max(1) as f64;
        self.row = Some(self.row.map_or(row, |before| before + (row - before) / 16.0));
        self.longest = took.max(self.longest * 0.999);
    }

    fn bound(&self, rows: usize) -> Duration {
        let Some(row) = self.row else { return UNKNOWN };
        let seconds = (TIMES * row * rows as f64).max(TIMES_LONGEST * self.longest);
        Duration::try_from_secs_f64(seconds).unwrap_or(MOST).clamp(LEAST, MOST)
    }
}

/// Tells whether the engine stalls, as long as the worker runs. While there are no sessions nobody looks.
pub(crate) async fn watch(
    pulse: Pulse,
    mut sessions: watch::Receiver<usize>,
    loading: watch::Sender<Loading>,
    metrics: Metrics,
) {
    let mut onlooker = Onlooker { pulse, beat: 0, since: Instant::now(), stalled: false };
    let mut stalled = false;
    loop {
        if !stalled && *sessions.borrow_and_update() == 0 {
            if sessions.changed().await.is_err() {
                return;
            }
            onlooker.since = Instant::now();
        }
        sleep(LOOK_EVERY).await;
        if onlooker.sees_stall(Instant::now()) == stalled {
            continue;
        }
        stalled = !stalled;
        metrics.engine_stalled.set(stalled.into());
        if stalled {
            tracing::warn!("the engine does not come back from a batch: no new sessions until it does");
        } else {
            tracing::info!("the engine computes again");
        }
        loading.send_if_modified(|loading| match loading {
            Loading::Done { is_stalled, .. } => std::mem::replace(is_stalled, stalled) != stalled,
            _ => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_may_take_a_multiple_of_what_those_before_it_took() {
        let mut pace = Pace::new(Pulse::default());
        let bound = |pace: &Pace, rows| pace.bound(rows).as_secs();
        assert_eq!(bound(&pace, 1), 60, "nothing is known yet");
        pace.ended(1, Duration::from_millis(500));
        assert_eq!((bound(&pace, 1), bound(&pace, 4)), (10, 40));
        pace.ended(1000, Duration::from_secs(20));
        assert_eq!(bound(&pace, 1), 80, "few rows may take as long as many");
        let mut fast = Pace::new(Pulse::default());
        fast.ended(1, Duration::from_millis(1));
        assert_eq!(bound(&fast, 1), 5, "a busy machine is no stall");
    }

    #[test]
    fn it_is_a_stall_when_somebody_waits_and_nothing_is_done() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        let mut onlooker = Onlooker { pulse: pulse.clone(), beat: 0, since: start, stalled: false };
        let mut stalls = |after| onlooker.sees_stall(start + Duration::from_secs(after));
        assert!(!stalls(100), "nobody waits");
        let waits = pulse.waits();
        assert!(!stalls(105) && stalls(106), "it does not even begin");
        pulse.beats(Duration::from_secs(20));
        assert!(!stalls(107) && !stalls(127) && stalls(128));
        drop(waits);
        assert!(stalls(129), "who waited has gone");
        pulse.beats(LEAST);
        assert!(!stalls(130) && !stalls(1000));
    }
}
