//! A worker's counters.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use swarm_proto::RefusalCause;

/// Why something was refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

/// Cheap to clone; all clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    refused: Family<Cause, Counter>,
    /// Rows computed.
    pub rows: Counter,
    /// Rows of one batch.
    pub batch_rows: Histogram,
    /// Time in the engine for one batch.
    pub compute_seconds: Histogram,
    /// Time of a step in the queue.
    pub queue_seconds: Histogram,
    /// Handing a step's result to the hop below, or its token to the gateway.
    pub send_seconds: Histogram,
    /// Sessions open now.
    pub sessions: Gauge,
    /// Caches of sessions whose stream broke, kept for a newer attempt.
    pub leases: Gauge,
    /// How often a newer attempt went on with a kept cache.
    pub taken_over: Counter,
    /// Rows sent again to a hop below that had lost them.
    pub replayed: Counter,
    /// Bytes of what was sent to hops below, kept for that.
    pub replay_bytes: Gauge<u64, AtomicU64>,
    /// Bytes of cache set aside.
    pub kv_bytes: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// 1 while the engine does not come back from a batch.
    pub engine_stalled: Gauge,
    /// Bytes of weights held.
    pub weight_bytes: Gauge<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let times = || Histogram::new(exponential_buckets(0.000_1, 2.0, 18));
        let metrics = Self {
            refused: Family::default(),
            rows: Counter::default(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            compute_seconds: times(),
            queue_seconds: times(),
            send_seconds: times(),
            sessions: Gauge::default(),
            leases: Gauge::default(),
            taken_over: Counter::default(),
            replayed: Counter::default(),
            replay_bytes: Gauge::default(),
            kv_bytes: Gauge::default(),
            engine_stalled: Gauge::default(),
            weight_bytes: Gauge::default(),
        };
        // A series that is not there before its first event hides that event.
        for cause in RefusalCause::ALL {
            let _ = metrics.refused.get_or_create(&Cause { cause: cause.as_str() });
        }
        registry.register(
            "sessions_refused",
            "Sessions and steps refused, by cause",
            metrics.refused.clone(),
        );
        registry.register("rows", "Rows computed", metrics.rows.clone());
        registry.register("batch_rows", "Rows of a batch", metrics.batch_rows.clone());
        registry.register("step_compute_seconds", "Time in the engine", metrics.compute_seconds.clone());
        registry.register("step_queue_seconds", "Time waiting for the engine", metrics.queue_seconds.clone());
        let sending = "Time handing a step on, to the hop below or to the gateway";
        registry.register("step_send_seconds", sending, metrics.send_seconds.clone());
        registry.register("sessions", "Sessions open now", metrics.sessions.clone());
        let leases = "Caches kept for sessions whose stream broke (--session-lease)";
        registry.register("sessions_leased", leases, metrics.leases.clone());
        let taken_over = "Sessions that went on with their kept cache";
        registry.register("sessions_taken_over", taken_over, metrics.taken_over.clone());
        let replayed = "Rows sent again to a hop below that had lost them";
        registry.register("rows_replayed", replayed, metrics.replayed.clone());
        let replay_bytes = "Bytes of what was sent to hops below, kept for the loss of one (--replay-memory)";
        registry.register("replay_bytes", replay_bytes, metrics.replay_bytes.clone());
        registry.register("kv_cache_bytes", "Bytes of cache set aside", metrics.kv_bytes.clone());
        let stalled = "1 while the engine does not come back from a batch";
        registry.register("engine_stalled", stalled, metrics.engine_stalled.clone());
        registry.register("weight_bytes", "Bytes of weights held", metrics.weight_bytes.clone());
        metrics
    }

    pub(crate) fn refused(&self, cause: RefusalCause) {
        self.refused.get_or_create(&Cause { cause: cause.as_str() }).inc();
    }
}
