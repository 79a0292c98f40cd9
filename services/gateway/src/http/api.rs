//! What the handlers share.

use swarm_process::metrics::Registry;

use super::metrics::HttpMetrics;
use crate::{
    clients::Shares,
    completion::Completer,
    generation::{GenerationConfig, Generator},
};

/// Requests that are read, tokenized or refused while as many generations run and wait as may.
const SPARE_REQUESTS: usize = 64;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(super) completer: Completer,
    pub(super) generator: Generator,
    pub(super) metrics: HttpMetrics,
    /// Requests at once: each may hold a body in memory.
    pub(super) requests: Shares,
    /// For the trace only.
    pub(super) scheme: &'static str,
}

impl Api {
    /// Completes by `completer`; shows the swarm and the readiness of `generator`. Counts in `registry`.
    #[must_use]
    pub fn new(
        completer: Completer,
        generator: Generator,
        registry: &Registry,
        config: &GenerationConfig,
    ) -> Self {
        let requests = config.max_generations as usize + config.max_queued as usize + SPARE_REQUESTS;
        let metrics = HttpMetrics::new(registry);
        Self { completer, generator, metrics, requests: Shares::new(requests), scheme: "http" }
    }

    /// The same over `http` or `https`.
    pub(crate) fn over(self, scheme: &'static str) -> Self {
        Self { scheme, ..self }
    }
}
