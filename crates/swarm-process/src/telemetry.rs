//! Logs on standard error, and traces by OTLP when an endpoint is set.

use std::{env, io::IsTerminal};

use clap::{Args, ValueEnum};
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Our own crates at info; of the libraries only what an operator must know.
const DEFAULT_LOG: &str = "info,libp2p=warn,libp2p_kad=error,libp2p_swarm=error,libp2p_quic=error,libp2p_rendezvous=error,h2=warn,hyper=warn,tonic=warn";
/// The exporter's own calls must not be traced: each export would cause the next.
const NOT_TRACED: &str = "info,h2=off,hyper=off,tonic=off,tower=off,opentelemetry=off,libp2p=off";

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

/// Keeps telemetry going; dropping it sends what is still waiting.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Starts logs and, when `OTEL_EXPORTER_OTLP_ENDPOINT` or its `_TRACES_` form is set, traces by OTLP over gRPC.
/// The other standard `OTEL_*` variables are honoured by the SDK. Call it inside the tokio runtime.
///
/// # Errors
/// When the filter or the exporter's variables are wrong.
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match config.log_format {
        LogFormat::Text => format.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => format.json().boxed(),
    };
    let traces = if exports_traces() { Some(tracer_provider(service)?) } else { None };
    let spans = traces.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
        layer.with_filter(EnvFilter::new(NOT_TRACED))
    });
    tracing_subscriber::registry()
        .with(logs.with_filter(EnvFilter::try_new(&config.log)?))
        .with(spans)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Telemetry { traces })
}

fn exports_traces() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
}

fn tracer_provider(service: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let resource = Resource::builder();
    let resource = match env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => resource,
        None => resource.with_service_name(service),
    };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}
