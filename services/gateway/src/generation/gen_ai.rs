//! What is measured of generations by OpenTelemetry's conventions for generative AI, under the names that Prometheus
//! has for them. The gateway's own counters are in `metrics.rs`.
//!
//! Names, labels and buckets: <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/>.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{GenerationError, GenerationRequest, Operation};

/// `gen_ai.provider.name`, in traces and metrics alike.
pub(super) const PROVIDER: &str = "llama-swarm";

/// Upper bounds as the conventions advise them: of a request's duration in seconds,
const DURATION: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// of the seconds to the first token,
const FIRST_TOKEN: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// of the seconds for each token after it,
const OUTPUT_TOKEN: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// and of tokens: 4 to the power of 0 to 13.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Histograms whose buckets are known before their labels.
type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Histograms of generations. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct GenAiMetrics {
    /// The one that is served, under the name that is shown: what clients write would be labels without a bound.
    model: Arc<str>,
    duration: Histograms<Ended>,
    first_token: Histograms<Asked>,
    output_token: Histograms<Asked>,
    tokens: Histograms<Used>,
}

/// What all have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Asked {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Ended {
    #[prometheus(flatten)]
    asked: Asked,
    /// Empty where nothing failed, which to Prometheus is as if it were not there.
    error_type: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Used {
    #[prometheus(flatten)]
    asked: Asked,
    gen_ai_token_type: &'static str,
}

impl GenAiMetrics {
    /// Of a gateway that serves this model. Those of generations that do not fail are there from the start.
    pub(super) fn new(model: &str) -> Self {
        let metrics = Self {
            model: model.into(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION)),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN)),
            output_token: Family::new_with_constructor(|| Histogram::new(OUTPUT_TOKEN)),
            tokens: Family::new_with_constructor(|| Histogram::new(TOKENS)),
        };
        let asked = metrics.asked(Operation::Chat);
        let _ = metrics.duration.get_or_create(&Ended { asked: asked.clone(), error_type: None });
        let _ = metrics.first_token.get_or_create(&asked);
        let _ = metrics.output_token.get_or_create(&asked);
        for gen_ai_token_type in ["input", "output"] {
            let _ = metrics.tokens.get_or_create(&Used { asked: asked.clone(), gen_ai_token_type });
        }
        metrics
    }

    /// In a registry that puts nothing before their names.
    pub(super) fn show(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "gen_ai_server_request_duration",
            "From the request to its last token or its failure",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_to_first_token",
            "From the request to its first token, of generations that did not fail",
            Unit::Seconds,
            self.first_token.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_per_output_token",
            "Mean time of a generation's tokens after the first, of generations that did not fail",
            Unit::Seconds,
            self.output_token.clone(),
        );
        registry.register("gen_ai_client_token_usage", "Tokens of one request, by type", self.tokens.clone());
    }

    /// A generation that did not begin.
    pub(super) fn refused(&self, operation: Operation, error: &GenerationError, after: Duration) {
        self.took(operation, Some(error.cause()), after);
    }

    /// A generation that begins, and was asked for at `since`.
    pub(super) fn begun(&self, request: &GenerationRequest, since: Instant) -> Measured {
        Measured {
            metrics: self.clone(),
            operation: request.operation,
            since,
            first_token: None,
            input_tokens: request.prompt.len(),
            output_tokens: 0,
            outcome: Outcome::Fine,
        }
    }

    fn asked(&self, operation: Operation) -> Asked {
        Asked {
            gen_ai_operation_name: operation.as_str(),
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: self.model.clone(),
        }
    }

    fn took(&self, operation: Operation, error_type: Option<&'static str>, after: Duration) {
        let ended = Ended { asked: self.asked(operation), error_type };
        self.duration.get_or_create(&ended).observe(after.as_secs_f64());
    }
}

/// Follows a generation; counts it when dropped, however it ends.
#[derive(Debug)]
pub(super) struct Measured {
    metrics: GenAiMetrics,
    operation: Operation,
    since: Instant,
    /// From the request to it.
    first_token: Option<Duration>,
    input_tokens: usize,
    output_tokens: u32,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// It came to its end, or nobody wants more of it: a stop string was there, or the client left.
    Fine,
    Failed(&'static str),
    /// Whoever asked is told a refusal, and that is counted there.
    Refused,
}

impl Measured {
    /// A token came.
    pub(super) fn token(&mut self) {
        self.output_tokens += 1;
        self.first_token.get_or_insert_with(|| self.since.elapsed());
    }

    pub(super) fn failed(mut self, error: &GenerationError) {
        self.outcome = Outcome::Failed(error.cause());
    }

    pub(super) fn refused(mut self) {
        self.outcome = Outcome::Refused;
    }

    fn spoke(&self, after: Duration) {
        let Some(first_token) = self.first_token else { return };
        let asked = self.metrics.asked(self.operation);
        self.metrics.first_token.get_or_create(&asked).observe(first_token.as_secs_f64());
        if self.output_tokens > 1 {
            let later = after.saturating_sub(first_token).as_secs_f64() / f64::from(self.output_tokens - 1);
            self.metrics.output_token.get_or_create(&asked).observe(later);
        }
    }

    fn used(&self) {
        let count = |gen_ai_token_type, tokens| {
            let used = Used { asked: self.metrics.asked(self.operation), gen_ai_token_type };
            self.metrics.tokens.get_or_create(&used).observe(tokens);
        };
        count("input", self.input_tokens as f64);
        count("output", f64::from(self.output_tokens));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let after = self.since.elapsed();
        let error_type = match self.outcome {
            Outcome::Fine => None,
            Outcome::Failed(cause) => Some(cause),
            Outcome::Refused => return,
        };
        self.metrics.took(self.operation, error_type, after);
        self.used();
        if error_type.is_none() {
            self.spoke(after);
        }
    }
}
