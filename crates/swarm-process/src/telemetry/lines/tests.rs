//! What is written for the same events in both forms.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{info, info_span, warn};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// What was written. Cheap to clone.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }
}

fn tell() {
    info!(banner = "[CONNECT] ✓\n[CONNECT]   Peer ID: aa", peer_id = "aa", "peer connected");
    info!(banner = "", shard = 3, state = "OFFLINE", "shard changed");
    warn!(shard = 3, "plain");
}

#[test]
fn people_read_the_lines_of_a_banner_and_all_of_other_events() {
    let written = Written::default();
    let (writer, colours) = (written.clone(), false);
    let subscriber = tracing_subscriber::registry().with(text(move || writer.clone(), colours));
    tracing::subscriber::with_default(subscriber, tell);
    let lines = written.lines();
    let behind_the_time: Vec<_> =
        lines.iter().filter_map(|line| line.split_once("Z ")).map(|(_, line)| line).collect();
    assert_eq!(
        behind_the_time,
        [" INFO [CONNECT] ✓", " INFO [CONNECT]   Peer ID: aa", " WARN plain shard=3"]
    );
}

#[test]
fn programs_read_one_object_an_event_with_its_fields() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::registry().with(json(move || writer.clone(), Shown::default()));
    tracing::subscriber::with_default(subscriber, tell);
    let objects = written.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    let fields: Vec<_> = objects.map(|object| object["fields"].clone()).collect();
    let expected = [
        serde_json::json!({"message": "peer connected", "peer_id": "aa"}),
        serde_json::json!({"message": "shard changed", "shard": 3, "state": "OFFLINE"}),
        serde_json::json!({"message": "plain", "shard": 3}),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn an_event_within_a_traced_span_has_the_traces_id() {
    let (written, shown) = (Written::default(), Shown::default());
    let writer = written.clone();
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let subscriber = tracing_subscriber::registry()
        .with(json(move || writer.clone(), shown.clone()))
        .with(tracing_opentelemetry::layer().with_tracer(tracer));
    tracing::subscriber::with_default(subscriber, || {
        show_traces_of_this(&shown);
        let outer = info_span!("outer").entered();
        info!("above");
        info_span!("inner").in_scope(|| info!("below"));
        let outer = outer.exit();
        info!(trace_id = crate::trace::id(&outer), "beside");
        info!("alone");
    });
    let objects = written.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    let ids: Vec<_> = objects.map(|object| [object["trace_id"].clone(), object["span_id"].clone()]).collect();
    assert_eq!(ids[0][0].as_str().map(str::len), Some(32), "{ids:?}");
    assert_eq!(ids[0][0], ids[1][0], "one trace");
    assert_ne!(ids[0][1], ids[1][1], "two spans");
    assert_eq!(ids[2], [ids[0][0].clone(), Value::Null], "it tells its trace itself");
    assert_eq!(ids[3], [Value::Null, Value::Null]);
}
