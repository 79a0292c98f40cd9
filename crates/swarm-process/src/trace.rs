//! One trace over many processes: W3C trace context in gRPC metadata.

use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tonic::metadata::{KeyRef, MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        let ascii = |key| match key {
            KeyRef::Ascii(key) => Some(key.as_str()),
            KeyRef::Binary(_) => None,
        };
        self.0.keys().filter_map(ascii).collect()
    }
}

/// Adds the current span's context to the metadata of a call that is about to be made.
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Outgoing(metadata));
    });
}

/// Makes `span` a child of the caller's span. Call it before the span is first entered.
pub fn follow(metadata: &MetadataMap, span: &Span) {
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&Incoming(metadata)));
    if let Err(error) = span.set_parent(context) {
        tracing::trace!(%error, "no tracer to follow the caller's trace");
    }
}
