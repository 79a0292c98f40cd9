//! The process's counters, in Prometheus' text form.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use prometheus_client::{encoding::text, registry};

/// Media type of the OpenMetrics text form, as its specification gives it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All counters of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<registry::Registry>>);

impl Default for Registry {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(registry::Registry::with_prefix("llama_swarm"))))
    }
}

impl Registry {
    /// Lets a component add its counters.
    pub fn register(&self, add: impl FnOnce(&mut registry::Registry)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The counters as they are now.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut out, &registry).expect("writing to a String cannot fail");
        out
    }

    /// `GET /metrics`.
    pub fn routes(&self) -> Router {
        let registry = self.clone();
        let answer = move || async move {
            ([(header::CONTENT_TYPE, OPEN_METRICS)], registry.encode()).into_response()
        };
        Router::new().route("/metrics", get(answer))
    }
}
