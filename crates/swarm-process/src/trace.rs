//! One trace over many processes: W3C trace context in gRPC metadata and HTTP headers.
//!
//! Nothing here costs anything while traces are off.

use std::time::Duration;

use opentelemetry::{
    Array, Context, StringValue, Value, global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt,
};
use tonic::metadata::{KeyRef, MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

tokio::task_local! {
    /// The context that calls of this task carry instead of their own span's.
    static PASSED_ON: Context;
}

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

/// Adds the current span's context to the metadata of a call that is about to be made; in work that runs under
/// [`Caller::pass_on`], the caller's.
pub fn inject(metadata: &mut MetadataMap) {
    let context = PASSED_ON.try_with(Context::clone).unwrap_or_else(|_| Span::current().context());
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Outgoing(metadata));
    });
}

/// Makes `span` a child of the caller's span. Call it before the span is first entered.
pub fn follow(metadata: &MetadataMap, span: &Span) {
    Caller::of(metadata).follow(span);
}

/// A caller's place in its trace; none when it is in no trace.
#[derive(Clone, Debug)]
pub struct Caller(Context);

impl Caller {
    /// What the metadata of a call tell.
    #[must_use]
    pub fn of(metadata: &MetadataMap) -> Self {
        Self(global::get_text_map_propagator(|propagator| propagator.extract(&Incoming(metadata))))
    }

    /// Makes `span` a child of the caller's span. Call it before the span is first entered.
    pub fn follow(&self, span: &Span) {
        if let Err(error) = span.set_parent(self.0.clone()) {
            tracing::trace!(%error, "no tracer to follow the caller's trace");
        }
    }

    /// Does work whose calls carry the caller's context unchanged, so that spans along a chain of calls become
    /// siblings under the span that began it, also past a process that sends no traces. Without a caller in a trace,
    /// calls carry the current span's context as usual.
    pub async fn pass_on<T>(self, work: impl Future<Output = T>) -> T {
        if self.0.span().span_context().is_valid() { PASSED_ON.scope(self.0, work).await } else { work.await }
    }
}

/// The id of the trace that a span is in, as 32 hexadecimal digits; none when it is in no trace.
#[must_use]
pub fn id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// Adds an attribute that is a list, which fields of spans cannot be.
pub fn record_list(span: &Span, key: &'static str, values: &[&'static str]) {
    let values = values.iter().map(|value| StringValue::from(*value)).collect();
    span.set_attribute(key, Value::Array(Array::String(values)));
}

/// A time as spans tell it.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    use super::*;

    #[tokio::test]
    async fn a_callers_context_is_passed_on_unchanged_also_where_no_traces_are_sent() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut incoming = MetadataMap::new();
        incoming.insert("traceparent", parent.parse().expect("ascii"));
        incoming.insert("tracestate", "vendor=1".parse().expect("ascii"));
        let outgoing = Caller::of(&incoming).pass_on(async {
            let mut outgoing = MetadataMap::new();
            inject(&mut outgoing);
            outgoing
        });
        let outgoing = outgoing.await;
        assert_eq!(outgoing.get("traceparent").expect("passed on"), parent);
        assert_eq!(outgoing.get("tracestate").expect("passed on"), "vendor=1");
    }

    #[tokio::test]
    async fn what_is_no_trace_context_is_not_passed_on() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        for wrong in ["", "00-0-0-01", "00-00000000000000000000000000000000-0000000000000000-01"] {
            let mut incoming = MetadataMap::new();
            incoming.insert("traceparent", wrong.parse().expect("ascii"));
            let passed = Caller::of(&incoming).pass_on(async { PASSED_ON.try_with(|_| ()).is_ok() }).await;
            assert!(!passed, "{wrong:?}");
        }
    }
}
