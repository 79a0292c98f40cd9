//! Logs on standard error, and traces by OTLP when an endpoint is set.

mod export;
mod lines;

use std::{env, io::IsTerminal, time::Duration};

use clap::{Args, ValueEnum};
use opentelemetry::{KeyValue, global, trace::TracerProvider};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use swarm_types::NodeId;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Our own crates at info; of the libraries only what an operator must know. What h2 warns of are its clients, which
/// could fill the log with it.
const DEFAULT_LOG: &str = "info,libp2p=warn,libp2p_kad=error,libp2p_swarm=error,libp2p_quic=error,libp2p_rendezvous=error,h2=error,hyper=warn,tonic=warn";
/// Our own crates only: spans of libraries belong to no request, and those of the exporter's own calls would each cause
/// the next. Steps are told at debug, so a trace does not grow with its tokens. A request's line in the log tells
/// what its spans tell.
const TRACED: &str = "off,gateway=info,gateway::record=off,shard_worker=info,shard_client=info,rendezvous=info,llama_swarm=info,model_files=info";
/// Shorter than services have to end in.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// How a process tells what it does.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryConfig {
    /// What to log, in the syntax of tracing's EnvFilter, for example `info,swarm_net=debug`.
    #[arg(long, env = "RUST_LOG", default_value = DEFAULT_LOG, hide_default_value = true)]
    pub log: String,

    /// Form of the log lines on standard error.
    #[arg(long, env = "LLAMA_SWARM_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Telemetry that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("--log is not a valid filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be made from the `OTEL_*` variables.
    #[error("the OTLP exporter cannot start, check OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber is set already.
    #[error("telemetry was started twice")]
    Twice,
}

pub(crate) use export::register;

/// Keeps telemetry going; dropping it sends what is still waiting.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    instance: export::Instance,
}

impl Telemetry {
    /// Says which node this process is: spans tell it as `service.instance.id`. Only the first id counts.
    pub fn identify(&self, node: &NodeId) {
        self.instance.get_or_init(|| node.to_string());
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let ended = self.traces.take().map(|traces| traces.shutdown_with_timeout(LAST_EXPORT));
        if let Some(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Starts logs and, when `OTEL_EXPORTER_OTLP_ENDPOINT` or its `_TRACES_` form is set, traces by OTLP over gRPC.
/// `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none` turns them off; the other standard variables
/// (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`, …) are honoured as well. Call it inside the tokio
/// runtime.
///
/// # Errors
/// When the filter or the exporter's variables are wrong.
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let shown = lines::Shown::default();
    let logs = match config.log_format {
        LogFormat::Text => lines::text(crate::terminal::stderr, shows_colours()).boxed(),
        LogFormat::Json => lines::json(crate::terminal::stderr, shown.clone()).boxed(),
    };
    let instance = export::Instance::default();
    let traces = match exports_traces() {
        true => Some(tracer_provider(service, instance.clone())?),
        false => None,
    };
    let spans = traces.as_ref().map(|provider| {
        // Where in the code, on which thread and how often polled is nothing an operator asks of a request.
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_tracer(provider.tracer(service));
        layer.with_filter(EnvFilter::new(TRACED))
    });
    tracing_subscriber::registry()
        .with(logs.with_filter(EnvFilter::try_new(&config.log)?))
        .with(spans)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    lines::show_traces_of_this(&shown);
    Ok(Telemetry { traces, instance })
}

/// Whether standard error is a terminal that understands colours, and nobody has asked for none (<https://no-color.org>);
/// the console of Windows does once it is told to.
fn shows_colours() -> bool {
    std::io::stderr().is_terminal()
        && !anstyle_query::no_color()
        && anstyle_query::windows::enable_ansi_colors().unwrap_or(true)
}

fn exports_traces() -> bool {
    let value = |name| env::var(name).unwrap_or_default();
    let disabled = value("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true");
    let none = value("OTEL_TRACES_EXPORTER").eq_ignore_ascii_case("none");
    let endpoints = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    !disabled && !none && endpoints.into_iter().any(|name| !value(name).is_empty())
}

fn tracer_provider(
    service: &'static str,
    instance: export::Instance,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let processor = export::processor(exporter, instance);
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource(service)).build())
}

/// What the variables say goes before what we say.
fn resource(service: &'static str) -> Resource {
    let ours =
        [KeyValue::new("service.name", service), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = Resource::builder_empty()
        .with_attributes(ours)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}
