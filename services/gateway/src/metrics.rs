//! The gateway's counters.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
};
use swarm_process::metrics::Registry;
use swarm_proto::RefusalCause;

use crate::generation::GenerationError;

/// Counters of generations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GenerationMetrics {
    started: Counter,
    refused: Family<Cause, Counter>,
    failed: Family<Cause, Counter>,
    retries: Family<Cause, Counter>,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    time_to_first_token: Histogram,
}

/// The label of a counter by cause.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

impl GenerationMetrics {
    /// Counters at zero, shown with the others of the process.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            started: Counter::default(),
            refused: Family::default(),
            failed: Family::default(),
            retries: Family::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            // 5 ms to 164 s, twice as long each.
            time_to_first_token: Histogram::new(exponential_buckets(0.005, 2.0, 16)),
        };
        registry.register(|registry| {
            let registry = registry.sub_registry_with_prefix("gateway");
            registry.register("generations", "Generations started", metrics.started.clone());
            registry.register("refused", "Generations refused, by cause", metrics.refused.clone());
            registry.register("failed", "Generations broken off, by cause", metrics.failed.clone());
            registry.register("retries", "Attempts on another route, by cause", metrics.retries.clone());
            registry.register("prompt_tokens", "Tokens of prompts", metrics.prompt_tokens.clone());
            registry.register("generated_tokens", "Tokens generated", metrics.generated_tokens.clone());
            registry.register(
                "time_to_first_token_seconds",
                "From the request to its first token",
                metrics.time_to_first_token.clone(),
            );
        });
        metrics
    }

    pub(crate) fn started(&self, prompt_tokens: usize) {
        self.started.inc();
        self.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    pub(crate) fn generated(&self) {
        self.generated_tokens.inc();
    }

    /// Tokens generated since the start.
    pub(crate) fn generated_tokens(&self) -> u64 {
        self.generated_tokens.get()
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.time_to_first_token.observe(after.as_secs_f64());
    }

    pub(crate) fn retried(&self, cause: RefusalCause) {
        self.retries.get_or_create(&Cause { cause: cause.as_str() }).inc();
    }

    /// A generation that did not begin.
    pub(crate) fn refused(&self, error: &GenerationError) {
        self.refused.get_or_create(&Cause { cause: error.cause() }).inc();
    }

    /// A generation that began and did not come to its end.
    pub(crate) fn failed(&self, error: &GenerationError) {
        self.failed.get_or_create(&Cause { cause: error.cause() }).inc();
    }
}
