//! What a generation's span tells of it: attributes by OpenTelemetry's conventions for generative AI, and where its
//! time went, in spans of its own for the prompt and for the tokens after it.

use std::time::Duration;

use swarm_process::trace::{self, milliseconds};
use swarm_types::{Attempt, Route, SessionId, StepKind};
use tracing::{Span, field::Empty, info_span};

// The layer that makes traces takes numbers without a sign for texts, so all here have one.
use super::{
    FinishReason, GeneratedToken, GenerationError, GenerationRequest, gen_ai::PROVIDER,
    metrics::GenerationMetrics,
};
use crate::record::{CANCELLED, FAILED, Record};

/// The span of a generation that was asked for, of a request with this record. Sessions on hops are its children,
/// retries its events.
pub(super) fn span(model: &str, request: &GenerationRequest, record: Option<&Record>) -> Span {
    let is_seeded = record.is_some_and(Record::is_seeded);
    let operation = request.operation.as_str();
    let sampling = &request.sampling;
    let used = |penalty: f32| (penalty != 0.0).then(|| decimal(penalty));
    info_span!(
        "generation",
        otel.name = %format_args!("{operation} {model}"),
        otel.status_code = Empty,
        otel.status_description = Empty,
        error.type = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = PROVIDER,
        gen_ai.request.model = model,
        gen_ai.request.max_tokens = i64::from(request.max_tokens),
        gen_ai.request.temperature = decimal(sampling.temperature),
        gen_ai.request.top_p = decimal(sampling.top_p),
        gen_ai.request.top_k = (sampling.top_k > 0).then_some(i64::from(sampling.top_k)),
        gen_ai.request.frequency_penalty = used(sampling.frequency_penalty),
        gen_ai.request.presence_penalty = used(sampling.presence_penalty),
        // Of 64 bits: the protocol of traces knows numbers with a sign only.
        gen_ai.request.seed = is_seeded.then_some(sampling.seed as i64),
        gen_ai.response.model = model,
        gen_ai.usage.input_tokens = request.prompt.len() as i64,
        gen_ai.usage.output_tokens = Empty,
        llama_swarm.session = Empty,
        llama_swarm.attempts = Empty,
        llama_swarm.waited_ms = Empty,
        llama_swarm.first_token_ms = Empty,
    )
}

/// The number as it was written, without the digits that widening would add.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

/// Marks a span as failed.
pub(super) fn failed(span: &Span, error: &GenerationError) {
    span.record("otel.status_code", "ERROR")
        .record("otel.status_description", tracing::field::display(error))
        .record("error.type", error.cause());
}

/// Follows a generation; tells it all when dropped, however the generation ends.
#[derive(Debug)]
pub(super) struct Account {
    span: Span,
    /// Of the request that it belongs to.
    record: Option<Record>,
    metrics: GenerationMetrics,
    end: End,
    attempts: u32,
    tokens: u32,
    phase: Option<Phase>,
}

#[derive(Debug)]
enum End {
    /// Nobody has told one: whoever reads it wants no more.
    Dropped,
    /// Told as this.
    Told(&'static str),
    /// It did not begin.
    Refused,
}

/// The prompt's way through the hops, or the tokens after it, of one attempt.
#[derive(Debug)]
struct Phase {
    span: Span,
    kind: StepKind,
    tokens: u32,
    compute: Duration,
    queue: Duration,
    /// What no hop accounts for.
    network: Duration,
}

impl Account {
    /// Of a generation whose turn came so long after it was asked for.
    pub(super) fn new(
        span: Span,
        record: Option<Record>,
        metrics: GenerationMetrics,
        session: &SessionId,
        waited: Duration,
    ) -> Self {
        span.record("llama_swarm.session", tracing::field::display(session))
            .record("llama_swarm.waited_ms", milliseconds(waited));
        Self { span, record, metrics, end: End::Dropped, attempts: 0, tokens: 0, phase: None }
    }

    /// An attempt begins.
    pub(super) fn begins(&mut self, attempt: Attempt, route: &Route) {
        self.attempts = attempt.0;
        if let Some(record) = &self.record {
            record.attempts(attempt, route);
        }
        let phase = Phase::new(&self.span, StepKind::Prefill, attempt);
        phase.span.record("llama_swarm.hops", route.hops().len() as i64);
        self.phase = Some(phase);
    }

    /// So many tokens are its prompt: all that its hops do not have yet.
    pub(super) fn prefills(&mut self, tokens: usize) {
        if let Some(phase) = self.phase.as_ref().filter(|phase| phase.kind == StepKind::Prefill) {
            phase.span.record("llama_swarm.rows", tokens as i64);
        }
    }

    /// The attempt broke.
    pub(super) fn broke(&mut self) {
        self.phase = None;
    }

    /// A token came, `since` after the generation was asked for.
    pub(super) fn token(&mut self, token: &GeneratedToken, since: Duration) {
        self.tokens += 1;
        if let Some(record) = &self.record {
            record.token();
        }
        if self.tokens == 1 {
            self.span.record("llama_swarm.first_token_ms", milliseconds(since));
        }
        match &mut self.phase {
            Some(phase) if phase.kind == StepKind::Decode => phase.decoded(token),
            _ => self.phase = Some(Phase::new(&self.span, StepKind::Decode, Attempt(self.attempts))),
        }
    }

    /// The end that the client is told.
    pub(super) fn ended(&mut self, end: &Result<FinishReason, GenerationError>) {
        self.phase = None;
        let (reason, cause) = match end {
            Ok(reason) => (reason.as_str(), None),
            Err(error) => {
                failed(&self.span, error);
                (FAILED, Some(error.cause()))
            }
        };
        self.end = End::Told(reason);
        if let Some(record) = &self.record {
            record.finished(reason, cause);
        }
    }

    /// It ends before it began; whoever asked for it is told why.
    pub(super) fn refused(&mut self) {
        self.end = End::Refused;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let reason = match self.end {
            End::Told(reason) => Some(reason),
            End::Dropped => Some(self.record.as_ref().map_or(CANCELLED, Record::end_of_dropped)),
            End::Refused => None,
        };
        if let Some(reason) = reason {
            self.metrics.finished(reason);
            trace::record_list(&self.span, "gen_ai.response.finish_reasons", &[reason]);
        }
        self.span
            .record("gen_ai.usage.output_tokens", i64::from(self.tokens))
            .record("llama_swarm.attempts", i64::from(self.attempts));
    }
}

impl Phase {
    fn new(generation: &Span, kind: StepKind, attempt: Attempt) -> Self {
        let span = info_span!(
            parent: generation,
            "phase",
            otel.name = kind.as_str(),
            llama_swarm.attempt = i64::from(attempt.0),
            llama_swarm.hops = Empty,
            llama_swarm.rows = Empty,
            llama_swarm.tokens = Empty,
            llama_swarm.compute_ms = Empty,
            llama_swarm.queue_ms = Empty,
            llama_swarm.network_ms = Empty,
        );
        let (compute, queue, network) = Default::default();
        Self { span, kind, tokens: 0, compute, queue, network }
    }

    fn decoded(&mut self, token: &GeneratedToken) {
        let (compute, queue) =
            token.hops.iter().fold((Duration::ZERO, Duration::ZERO), |(compute, queue), hop| {
                (compute + hop.compute, queue + hop.queue)
            });
        self.tokens += 1;
        self.compute += compute;
        self.queue += queue;
        self.network += token.round_trip.saturating_sub(compute + queue);
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if self.kind == StepKind::Decode {
            self.span
                .record("llama_swarm.tokens", i64::from(self.tokens))
                .record("llama_swarm.compute_ms", milliseconds(self.compute))
                .record("llama_swarm.queue_ms", milliseconds(self.queue))
                .record("llama_swarm.network_ms", milliseconds(self.network));
        }
    }
}
