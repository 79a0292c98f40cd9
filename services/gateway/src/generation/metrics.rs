//! What is counted of generations.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{self, Unit},
};
use swarm_process::metrics::Registry;
use swarm_proto::RefusalCause;
use swarm_types::{Route, ShardRange};

use super::{FinishReason, GeneratedToken, GenerationError, gen_ai::GenAiMetrics};
use crate::record::{CANCELLED, FAILED};

/// Counters of generations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GenerationMetrics {
    started: Counter,
    refused: Family<Cause, Counter>,
    failed: Family<Cause, Counter>,
    finished: Family<Finish, Counter>,
    retries: Family<Cause, Counter>,
    moves: Counter,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    running: Gauge,
    waiting: Gauge,
    time_to_first_token: Histogram,
    time_between_tokens: Histogram,
    duration: Histogram,
    hop_compute: Family<Hop, Histogram, fn() -> Histogram>,
    hop_queue: Family<Hop, Histogram, fn() -> Histogram>,
    hop_network: Histogram,
    gen_ai: GenAiMetrics,
}

/// The label of a counter by cause.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Finish {
    reason: &'static str,
}

/// A hop, by its place in all routes: workers come and go, and a label for each would grow without a bound.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Hop {
    shard: Shards,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Shards(ShardRange);

impl EncodeLabelValue for Shards {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        write!(encoder, "{}", self.0)
    }
}

impl GenerationMetrics {
    /// Counters at zero, shown with the others of the process. `model` is the name under which it is served.
    #[must_use]
    pub fn new(registry: &Registry, model: &str) -> Self {
        let metrics = Self {
            started: Counter::default(),
            refused: Family::default(),
            failed: Family::default(),
            finished: Family::default(),
            retries: Family::default(),
            moves: Counter::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            time_to_first_token: seconds_from(0.005),
            time_between_tokens: seconds_from(0.001),
            duration: seconds_from(0.01),
            hop_compute: Family::new_with_constructor(step_seconds),
            hop_queue: Family::new_with_constructor(step_seconds),
            hop_network: step_seconds(),
            gen_ai: GenAiMetrics::new(model),
        };
        metrics.begin_at_zero();
        registry.register(|registry| metrics.show(registry.sub_registry_with_prefix("gateway")));
        registry.register_by_convention(|registry| metrics.gen_ai.show(registry));
        metrics
    }

    /// A series that is not there before its first event hides that event from `increase()` and `rate()`.
    fn begin_at_zero(&self) {
        for cause in GenerationError::CAUSES {
            let _ = self.refused.get_or_create(&Cause { cause });
            let _ = self.failed.get_or_create(&Cause { cause });
        }
        for reason in [FinishReason::End.as_str(), FinishReason::Length.as_str(), FAILED, CANCELLED] {
            let _ = self.finished.get_or_create(&Finish { reason });
        }
        for cause in RefusalCause::ALL {
            let _ = self.retries.get_or_create(&Cause { cause: cause.as_str() });
        }
    }

    fn show(&self, registry: &mut registry::Registry) {
        registry.register("generations", "Generations started", self.started.clone());
        registry.register("refused", "Generations refused, by cause", self.refused.clone());
        registry.register("failed", "Generations broken off, by cause", self.failed.clone());
        registry.register("finished", "Generations that began and ended, by reason", self.finished.clone());
        registry.register("retries", "Attempts on another route, by cause", self.retries.clone());
        let moves = "Generations that moved away from a worker that leaves";
        registry.register("moves", moves, self.moves.clone());
        registry.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        registry.register("generated_tokens", "Tokens generated", self.generated_tokens.clone());
        registry.register("generations_running", "Generations that run now", self.running.clone());
        registry.register(
            "generations_waiting",
            "Generations that wait for their turn",
            self.waiting.clone(),
        );
        let mut times = |name: &str, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        times("time_to_first_token", "From the request to its first token", &self.time_to_first_token);
        times("time_between_tokens", "From one token of a generation to the next", &self.time_between_tokens);
        times("generation_duration", "From the request to its last token", &self.duration);
        times(
            "hop_network",
            "Time of a decode step on one of its ways between nodes: what no hop accounts for, spread evenly",
            &self.hop_network,
        );
        let compute = "Time of a decode step in one hop's engine, by its shards";
        registry.register_with_unit("hop_compute", compute, Unit::Seconds, self.hop_compute.clone());
        let queue = "Time of a decode step waiting for one hop's engine, by its shards";
        registry.register_with_unit("hop_queue", queue, Unit::Seconds, self.hop_queue.clone());
    }

    /// Those by OpenTelemetry's conventions.
    pub(super) fn gen_ai(&self) -> &GenAiMetrics {
        &self.gen_ai
    }

    /// A generation begins; it runs until what this gives is dropped.
    pub(super) fn started(&self, prompt_tokens: usize) -> Counted {
        self.started.inc();
        self.prompt_tokens.inc_by(prompt_tokens as u64);
        Counted::new(&self.running)
    }

    /// A generation waits for its turn until what this gives is dropped.
    pub(super) fn waits(&self) -> Counted {
        Counted::new(&self.waiting)
    }

    pub(super) fn generated(&self) {
        self.generated_tokens.inc();
    }

    /// A token that came over this route, `since` after the one before it.
    pub(super) fn decoded(&self, token: &GeneratedToken, route: &Route, since: Duration) {
        self.time_between_tokens.observe(since.as_secs_f64());
        let mut inside = Duration::ZERO;
        for (hop, at) in token.hops.iter().zip(route.hops()) {
            let place = Hop { shard: Shards(at.shards) };
            self.hop_compute.get_or_create(&place).observe(hop.compute.as_secs_f64());
            self.hop_queue.get_or_create(&place).observe(hop.queue.as_secs_f64());
            inside += hop.compute + hop.queue;
        }
        // A route of n hops has n + 1 ways: the last hop answers the gateway.
        let ways = token.hops.len() + 1;
        self.hop_network.observe(token.round_trip.saturating_sub(inside).as_secs_f64() / ways as f64);
    }

    pub(super) fn ended(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
    }

    /// Tokens generated since the start.
    pub(super) fn generated_tokens(&self) -> u64 {
        self.generated_tokens.get()
    }

    pub(super) fn first_token(&self, after: Duration) {
        self.time_to_first_token.observe(after.as_secs_f64());
    }

    pub(super) fn moved(&self) {
        self.moves.inc();
    }

    pub(super) fn retried(&self, cause: RefusalCause) {
        self.retries.get_or_create(&Cause { cause: cause.as_str() }).inc();
    }

    /// A generation that did not begin.
    pub(super) fn refused(&self, error: &GenerationError) {
        self.refused.get_or_create(&Cause { cause: error.cause() }).inc();
    }

    /// A generation that began has ended, as its client is told.
    pub(super) fn finished(&self, reason: &'static str) {
        self.finished.get_or_create(&Finish { reason }).inc();
    }

    /// A generation that began and did not come to its end.
    pub(super) fn failed(&self, error: &GenerationError) {
        self.failed.get_or_create(&Cause { cause: error.cause() }).inc();
    }
}

/// Of a part of a decode step.
fn step_seconds() -> Histogram {
    seconds_from(0.000_05)
}

/// Sixteen buckets, the first up to so many seconds, each twice as wide as the one before.
fn seconds_from(first: f64) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, 16))
}

/// One more in a gauge for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
