//! What is counted by client.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use swarm_process::metrics::Registry;

/// Counters by the names of clients. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClientMetrics {
    requests: Family<Name, Counter>,
    prompt_tokens: Family<Name, Counter>,
    generated_tokens: Family<Name, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Name {
    client: String,
}

/// What one client has used.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    pub(super) requests: Counter,
    pub(super) prompt_tokens: Counter,
    pub(super) generated_tokens: Counter,
}

impl ClientMetrics {
    /// No client yet; shown with the others of the process.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            let gateway = registry.sub_registry_with_prefix("gateway");
            let mut show = |name: &str, help: &str, family: &Family<Name, Counter>| {
                gateway.register(name, help, family.clone());
            };
            show("client_requests", "Completions asked for, by the name of the key", &metrics.requests);
            show("client_prompt_tokens", "Tokens of prompts, by the name of the key", &metrics.prompt_tokens);
            show(
                "client_generated_tokens",
                "Tokens generated, by the name of the key",
                &metrics.generated_tokens,
            );
        });
        metrics
    }

    /// A client's counters, from now on shown, also at zero.
    pub(super) fn of(&self, client: &str) -> Used {
        let counter =
            |family: &Family<Name, Counter>| family.get_or_create(&Name { client: client.into() }).clone();
        Used {
            requests: counter(&self.requests),
            prompt_tokens: counter(&self.prompt_tokens),
            generated_tokens: counter(&self.generated_tokens),
        }
    }
}
