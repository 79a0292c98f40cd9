//! What the handlers share.

use std::{sync::Arc, time::Duration};

use swarm_process::{
    bodies::Bodies,
    metrics::Registry,
    shares::{Shares, Terms},
};
use tokio::sync::Semaphore;

use super::metrics::HttpMetrics;
use crate::{
    completion::Completer,
    generation::{GenerationConfig, Generator},
};

/// Requests that are read, tokenized or refused while as many generations run and wait as may.
const SPARE_REQUESTS: usize = 64;
/// Live pages and others that watch the swarm. When one more comes, the one that has watched for longest has to come
/// again, which browsers do by themselves.
const WATCHERS: usize = 256;
/// So that those who come again at once do not keep the gateway busy with nothing else.
const WATCHES_FOR: Duration = Duration::from_secs(1);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(super) completer: Completer,
    pub(super) generator: Generator,
    pub(super) registry: Registry,
    pub(super) metrics: HttpMetrics,
    /// Requests at once whose body is there.
    pub(super) requests: Arc<Semaphore>,
    pub(super) bodies: Bodies,
    pub(super) watchers: Shares,
}

impl Api {
    /// Completes by `completer`; shows the swarm and the readiness of `generator` and the counters of `registry`.
    #[must_use]
    pub fn new(
        completer: Completer,
        generator: Generator,
        registry: Registry,
        config: &GenerationConfig,
    ) -> Self {
        let requests = config.max_generations as usize + config.max_queued as usize + SPARE_REQUESTS;
        let watchers = Terms { amount: WATCHERS, waiting: WATCHERS, spared: WATCHES_FOR, at_once: true };
        Self {
            completer,
            generator,
            metrics: HttpMetrics::new(&registry),
            registry,
            requests: Arc::new(Semaphore::new(requests)),
            bodies: Bodies::default(),
            watchers: Shares::new(watchers),
        }
    }
}
