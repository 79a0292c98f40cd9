//! The process's counters, in the text forms that Prometheus reads.

mod swarm;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text, registry};
use swarm_types::SwarmStatus;
use tokio::sync::watch;

use crate::telemetry;

/// Media type of the OpenMetrics text form, as its specification gives it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older form, for whoever does not ask for the other: `curl`, `promtool`, many agents.
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whoever asks more often than any scraper gets the same again, and does not keep the process busy with writing it.
const SHOWN_FOR: Duration = Duration::from_millis(20);

/// What the names of our own counters begin with.
const PREFIX: &str = "llama_swarm";

/// All counters of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<registry::Registry>>);

impl Default for Registry {
    /// Holds what telemetry counts.
    fn default() -> Self {
        let mut registry = registry::Registry::default();
        telemetry::register(registry.sub_registry_with_prefix(PREFIX));
        Self(Arc::new(Mutex::new(registry)))
    }
}

impl Registry {
    /// Lets a component add its counters.
    pub fn register(&self, add: impl FnOnce(&mut registry::Registry)) {
        self.register_by_convention(|registry| add(registry.sub_registry_with_prefix(PREFIX)));
    }

    /// Lets a component add counters whose whole names a convention gives.
    pub fn register_by_convention(&self, add: impl FnOnce(&mut registry::Registry)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Shows the swarm as this node sees it at the moment of each scrape.
    pub fn show_swarm(&self, status: watch::Receiver<Arc<SwarmStatus>>) {
        self.register(|registry| registry.register_collector(Box::new(swarm::SwarmGauges::new(status))));
    }

    /// The counters as they are now, in the OpenMetrics form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut out, &registry).expect("writing to a String cannot fail");
        out
    }

    /// `GET /metrics`.
    pub fn routes(&self) -> Router {
        let shown = Arc::new(Mutex::new(Shown::of(self)));
        let registry = self.clone();
        let answer = move |headers: HeaderMap| async move {
            let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
            let shown = Shown::now(&shown, &registry);
            match accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text")) {
                true => ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.open_metrics).into_response(),
                false => ([(header::CONTENT_TYPE, PLAIN_TEXT)], shown.plain).into_response(),
            }
        };
        Router::new().route("/metrics", get(answer))
    }
}

/// The counters as they were a moment ago.
#[derive(Clone)]
struct Shown {
    at: Instant,
    open_metrics: Bytes,
    plain: Bytes,
}

impl Shown {
    fn of(registry: &Registry) -> Self {
        let metrics = registry.encode();
        Self { at: Instant::now(), plain: plain(&metrics).into(), open_metrics: metrics.into() }
    }

    fn now(shown: &Mutex<Self>, registry: &Registry) -> Self {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.at.elapsed() > SHOWN_FOR {
            *shown = Self::of(registry);
        }
        shown.clone()
    }
}

/// The same in the older form, where a counter's family has the name of its samples, with `_total`, and units and the
/// end are not told.
fn plain(open_metrics: &str) -> String {
    let counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let (mut plain, mut counters) = (String::with_capacity(open_metrics.len()), vec![]);
    counters.extend(open_metrics.lines().filter_map(counter));
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(what), Some(name), Some(text))
                if counters.iter().any(|counter| counter == name) =>
            {
                plain += &format!("# {what} {name}_total {text}");
            }
            _ => plain += line,
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_as_their_samples() {
        let open = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{code=\"200\"} 1\n\
                    # HELP a_time_seconds Time.\n# TYPE a_time_seconds gauge\n# UNIT a_time_seconds seconds\n\
                    a_time_seconds 0.5\n# EOF\n";
        let old = "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\n\
                   a_requests_total{code=\"200\"} 1\n# HELP a_time_seconds Time.\n# TYPE a_time_seconds gauge\n\
                   a_time_seconds 0.5\n";
        assert_eq!(plain(open), old);
    }
}
