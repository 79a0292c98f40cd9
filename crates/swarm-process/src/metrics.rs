//! The process's counters, in the text forms that Prometheus reads.

mod process;
mod swarm;

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
use tokio::{sync::watch, time::Instant};

use crate::telemetry;

/// Media type of the OpenMetrics text form, as its specification gives it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older form, for whoever does not ask for the other: `curl`, `promtool`, many agents.
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From one writing to the next. Whoever asks more often than any scraper waits for the next, together with all others
/// that ask meanwhile, and does not keep the process busy with writing.
const WRITTEN_EVERY: Duration = Duration::from_millis(20);

/// What the names of our own counters begin with.
const PREFIX: &str = "llama_swarm";

/// All counters of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<registry::Registry>>);

impl Default for Registry {
    /// The same without a name.
    fn default() -> Self {
        Self::holding(registry::Registry::default())
    }
}

impl Registry {
    /// Of a node of the swarm of this name, which all series have as the label `cluster`. Holds what is counted of the
    /// process itself.
    #[must_use]
    pub fn of(cluster: &str) -> Self {
        let label = (Cow::Borrowed("cluster"), Cow::Owned(cluster.to_owned()));
        Self::holding(registry::Registry::with_labels([label].into_iter()))
    }

    fn holding(mut registry: registry::Registry) -> Self {
        process::show(&mut registry);
        let own = registry.sub_registry_with_prefix(PREFIX);
        process::show_build(own);
        telemetry::register(own);
        Self(Arc::new(Mutex::new(registry)))
    }

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
        let shown = Arc::new(tokio::sync::Mutex::new(None));
        let registry = self.clone();
        let answer = move |headers: HeaderMap| async move {
            let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
            let shown = Shown::now(&shown, &registry).await;
            match accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text")) {
                true => ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.open_metrics).into_response(),
                false => ([(header::CONTENT_TYPE, PLAIN_TEXT)], shown.plain).into_response(),
            }
        };
        Router::new().route("/metrics", get(answer))
    }
}

/// The counters as they stood at a time.
#[derive(Clone)]
struct Shown {
    at: Instant,
    open_metrics: Bytes,
    plain: Bytes,
}

impl Shown {
    /// As they stand after it was asked for: nobody is shown what was true before.
    async fn now(shown: &tokio::sync::Mutex<Option<Self>>, registry: &Registry) -> Self {
        let asked = Instant::now();
        let mut shown = shown.lock().await;
        match &*shown {
            Some(shown) if shown.at > asked => return shown.clone(),
            Some(shown) => tokio::time::sleep_until(shown.at + WRITTEN_EVERY).await,
            None => {}
        }
        let at = Instant::now();
        let metrics = registry.encode();
        shown.insert(Self { at, plain: plain(&metrics).into(), open_metrics: metrics.into() }).clone()
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

    #[tokio::test]
    async fn whoever_asks_sees_what_was_counted_before_and_many_at_once_share_one_writing() {
        let registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register(|registry| registry.register("asked", "Asked", counter.clone()));
        let shown = tokio::sync::Mutex::new(None);
        for asked in 1..=3 {
            counter.inc();
            let many = futures::future::join_all((0..50).map(|_| Shown::now(&shown, &registry))).await;
            let line = format!("llama_swarm_asked_total {asked}\n");
            assert!(many.iter().all(|shown| str::from_utf8(&shown.plain).unwrap().contains(&line)));
            assert!(
                many[2..].iter().all(|other| other.at == many[2].at),
                "one at once, one for those that waited"
            );
        }
    }
}
