//! The way of finished spans out of the process: bounded, and counted, whatever the receiver does.

use std::{
    env,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchSpanProcessor, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT, Span, SpanData,
        SpanExporter, SpanProcessor,
    },
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::Mutex;

const INSTANCE: &str = "service.instance.id";

/// Of the whole process, as the subscriber is.
static COUNTS: LazyLock<Counts> = LazyLock::new(Counts::new);

/// What became of spans.
struct Counts {
    exported: Counter,
    dropped: Family<Cause, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

const EXPORT_FAILED: Cause = Cause { cause: "export_failed" };
const QUEUE_FULL: Cause = Cause { cause: "queue_full" };

impl Counts {
    fn new() -> Self {
        let counts = Self { exported: Counter::default(), dropped: Family::default() };
        for cause in [EXPORT_FAILED, QUEUE_FULL] {
            let _ = counts.dropped.get_or_create(&cause);
        }
        counts
    }
}

/// Shows what became of the process's spans.
pub(crate) fn register(registry: &mut Registry) {
    registry.register("spans_exported", "Spans that the OTLP receiver has taken", COUNTS.exported.clone());
    registry.register("spans_dropped", "Spans that were not sent, by cause", COUNTS.dropped.clone());
}

/// Spans between their end and the receiver's answer.
type Waiting = Arc<AtomicUsize>;

/// The node's id, once it has one.
pub(super) type Instance = Arc<OnceLock<String>>;

/// A processor that sends spans by `exporter` in batches, as the `OTEL_BSP_*` variables say.
pub(super) fn processor(
    exporter: opentelemetry_otlp::SpanExporter,
    instance: Instance,
) -> impl SpanProcessor + 'static {
    let waiting = Waiting::default();
    let exporter = Exporter {
        inner: Mutex::new(exporter),
        resource: None,
        instance,
        identified: AtomicBool::new(false),
        waiting: waiting.clone(),
        failing: AtomicBool::new(false),
    };
    let given = env::var(OTEL_BSP_MAX_QUEUE_SIZE).ok().and_then(|size| size.parse().ok());
    Bounded {
        inner: BatchSpanProcessor::builder(exporter).build(),
        waiting,
        limit: given.unwrap_or(OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT),
    }
}

/// Counts what the batch processor's queue would drop in silence.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    waiting: Waiting,
    limit: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.limit {
            return self.inner.on_end(span);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        COUNTS.dropped.get_or_create(&QUEUE_FULL).inc();
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Sends batches, one at a time. A receiver that is away costs its spans, a counter and one line in the log.
#[derive(Debug)]
struct Exporter {
    inner: Mutex<opentelemetry_otlp::SpanExporter>,
    resource: Option<Resource>,
    instance: Instance,
    /// `inner` knows the instance.
    identified: AtomicBool,
    waiting: Waiting,
    failing: AtomicBool,
}

impl Exporter {
    /// The node gets its id after telemetry starts and before it does anything worth a span.
    fn identify(&self, inner: &mut opentelemetry_otlp::SpanExporter) {
        let (Some(resource), Some(id)) = (&self.resource, self.instance.get()) else { return };
        // What `OTEL_RESOURCE_ATTRIBUTES` says goes first.
        if self.identified.swap(true, Ordering::Relaxed) || resource.get(&Key::new(INSTANCE)).is_some() {
            return;
        }
        let known = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let whole = Resource::builder_empty().with_attributes(known);
        inner.set_resource(&whole.with_attribute(KeyValue::new(INSTANCE, id.clone())).build());
    }

    fn tell(&self, sent: &OTelSdkResult, spans: usize) {
        match sent {
            Ok(()) => {
                COUNTS.exported.inc_by(spans as u64);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                COUNTS.dropped.get_or_create(&EXPORT_FAILED).inc_by(spans as u64);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces cannot be sent: dropped until the receiver is back");
                }
            }
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let mut inner = self.inner.lock().await;
        self.identify(&mut inner);
        let sent = inner.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        self.tell(&sent, spans);
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        // Nobody exports any more when this is called.
        self.inner.try_lock().map_or(Ok(()), |inner| inner.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = Some(resource.clone());
        self.inner.get_mut().set_resource(resource);
    }
}
