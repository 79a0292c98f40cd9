//! What the handlers share.

use std::time::Duration;

use swarm_process::{
    bodies::Bodies,
    shares::{self, Terms},
};

use super::{config::ApiConfig, ignored::UnknownFields, metrics::HttpMetrics};
use crate::{
    chat::Chatter,
    clients::Shares,
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
    pub(super) chatter: Chatter,
    pub(super) generator: Generator,
    pub(super) unknown_fields: UnknownFields,
    /// Whatever model is asked for, the served one answers.
    pub(super) any_model: bool,
    /// Requests at once whose body is there.
    pub(super) requests: Shares,
    pub(super) bodies: Bodies,
    pub(super) watchers: shares::Shares,
}

impl Api {
    /// Completes by `completer`; shows the swarm and the readiness of `generator`.
    pub(super) fn new(
        completer: Completer,
        generator: Generator,
        metrics: HttpMetrics,
        config: &GenerationConfig,
        tolerance: &ApiConfig,
    ) -> Self {
        let requests = config.max_generations as usize + config.max_queued as usize + SPARE_REQUESTS;
        let watchers = Terms { amount: WATCHERS, waiting: WATCHERS, spared: WATCHES_FOR, at_once: true };
        Self {
            chatter: Chatter::new(completer.clone()).with_tool_format(tolerance.tool_format),
            completer,
            generator,
            unknown_fields: UnknownFields::new(tolerance.strict_fields, metrics),
            any_model: tolerance.allow_any_model,
            requests: Shares::new(requests),
            bodies: Bodies::default(),
            watchers: shares::Shares::new(watchers),
        }
    }

    /// Whether the model is to be had by this name.
    pub(super) fn serves(&self, name: &str) -> bool {
        self.any_model || self.completer.model().is_called(name)
    }
}
