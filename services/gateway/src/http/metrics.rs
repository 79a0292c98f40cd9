//! What is counted of HTTP requests.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use swarm_process::metrics::Registry;

/// Counters of HTTP requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct HttpMetrics {
    requests: Family<Answered, Counter>,
    ignored: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Answered {
    route: String,
    code: u16,
}

impl HttpMetrics {
    /// Counters at zero, shown with the others of the process.
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            registry.register(
                "http_requests",
                "HTTP requests by route and status; a stream counts when it begins",
                metrics.requests.clone(),
            );
            registry.register(
                "http_ignored_fields",
                "Fields of requests that are not known here and were ignored",
                metrics.ignored.clone(),
            );
        });
        metrics
    }

    /// `route` is a pattern, not what the client wrote, so that labels stay few.
    pub(super) fn answered(&self, route: &str, code: u16) {
        self.requests.get_or_create(&Answered { route: route.into(), code }).inc();
    }

    /// So many fields of a request were not known.
    pub(super) fn ignored(&self, fields: u64) {
        self.ignored.inc_by(fields);
    }
}
