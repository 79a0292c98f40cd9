//! `shard.proto`: what goes up and down a route.

use bytes::Bytes;
use swarm_types::{
    Attempt, Hop, ModelDigest, NodeId, PROTOCOL_VERSION, Precision, SampledToken, SamplingParams, SessionId,
    ShardRange, Step, StepInput, StepKind, StepOutput, TargetScore, TokenId,
};

use crate::{
    Refusal, RefusalCause, WireError,
    model::{convert, logprob, try_convert},
    parse, wire,
};

/// A step with more rows is refused: prompts go down in chunks far smaller than this.
const MAX_STEP_ROWS: usize = 4096;
/// A route has at most as many hops as a model has shards.
const MAX_HOPS: usize = swarm_types::MAX_SHARDS as usize;

/// The first message of `Forward`.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
    /// The model it needs.
    pub model_digest: ModelDigest,
    /// In which precision.
    pub precision: Precision,
    /// How the model is cut.
    pub total_shards: u32,
    /// The receiver's own place in the route.
    pub hop: Hop,
    /// The hops below the receiver, next first.
    pub below: Vec<Hop>,
    /// Positions below this are prompt.
    pub prompt_tokens: u32,
    /// Upper bound of the session's positions.
    pub max_positions: u32,
}

/// What flows down a route.
#[derive(Clone, PartialEq, Debug)]
pub enum ToHop {
    /// First message.
    Open(Box<OpenSession>),
    /// What comes between.
    Step(Step),
    /// Last message: nobody will come back for the session.
    End,
}

/// What comes up a route.
#[derive(Clone, PartialEq, Debug)]
pub enum FromBelow {
    /// The hop and all below have the session; so many positions are computed on all of them.
    Opened(u32),
    /// Last message: a hop cannot go on.
    Failed(HopFailure),
}

/// A hop that cannot go on, as it is told up the route.
#[derive(Clone, PartialEq, Debug)]
pub struct HopFailure {
    /// Which hop failed.
    pub worker: NodeId,
    /// Why.
    pub refusal: Refusal,
}

/// The gateway's wish for a session's tokens, and what the last hop has to know of it.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectSession {
    /// Which generation.
    pub session: SessionId,
    /// Number of its current route.
    pub attempt: Attempt,
    /// How tokens are picked.
    pub sampling: SamplingParams,
    /// The session's tokens so far, from position 0; empty where neither sampling nor scores look at them.
    pub tokens: Vec<TokenId>,
}

/// What the last hop sends to the gateway.
#[derive(Clone, PartialEq, Debug)]
pub enum FromHop {
    /// The last hop will pass on what it gets of this session. With what it answered last in an older attempt.
    Accepted(Option<StepOutput>),
    /// A step has passed the last shard.
    Output(StepOutput),
}

impl TryFrom<wire::ForwardRequest> for ToHop {
    type Error = Refusal;

    fn try_from(request: wire::ForwardRequest) -> Result<Self, Refusal> {
        match request.message {
            Some(wire::forward_request::Message::Open(open)) => Ok(Self::Open(Box::new(open.try_into()?))),
            Some(wire::forward_request::Message::Step(step)) => Ok(Self::Step(step.try_into()?)),
            Some(wire::forward_request::Message::End(_)) => Ok(Self::End),
            None => Err(WireError::new("message", "must be open, step or end").into()),
        }
    }
}

impl From<ToHop> for wire::ForwardRequest {
    fn from(message: ToHop) -> Self {
        Self {
            message: Some(match message {
                ToHop::Open(open) => wire::forward_request::Message::Open((*open).into()),
                ToHop::Step(step) => wire::forward_request::Message::Step(step.into()),
                ToHop::End => wire::forward_request::Message::End(wire::EndSession {}),
            }),
        }
    }
}

impl TryFrom<wire::ForwardResponse> for FromBelow {
    type Error = WireError;

    fn try_from(response: wire::ForwardResponse) -> Result<Self, WireError> {
        match response.message {
            Some(wire::forward_response::Message::Failed(failed)) => Ok(Self::Failed(failed.try_into()?)),
            Some(wire::forward_response::Message::Opened(opened)) => Ok(Self::Opened(opened.positions)),
            None => Err(WireError::new("message", "must be opened or failed")),
        }
    }
}

impl From<FromBelow> for wire::ForwardResponse {
    fn from(message: FromBelow) -> Self {
        Self {
            message: Some(match message {
                FromBelow::Opened(positions) => {
                    wire::forward_response::Message::Opened(wire::Opened { positions })
                }
                FromBelow::Failed(failure) => wire::forward_response::Message::Failed(failure.into()),
            }),
        }
    }
}

fn check_version(version: u32) -> Result<(), Refusal> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    let what = format!("this node speaks {PROTOCOL_VERSION}, the caller {version}");
    Err(Refusal::of_field(RefusalCause::ProtocolVersion, "protocol_version", what))
}

impl TryFrom<wire::OpenSession> for OpenSession {
    type Error = Refusal;

    fn try_from(wire: wire::OpenSession) -> Result<Self, Refusal> {
        check_version(wire.protocol_version)?;
        if wire.hops.len() > MAX_HOPS {
            return Err(WireError::new("hops", format!("at most {MAX_HOPS}")).into());
        }
        let mut hops = wire.hops.into_iter().map(Hop::try_from);
        let hop = hops.next().ok_or_else(|| WireError::new("hops", "must name the receiver"))??;
        let below = hops.collect::<Result<Vec<_>, _>>()?;
        let all = std::iter::once(&hop).chain(&below);
        let gap = all.clone().zip(all.skip(1)).any(|(a, b)| a.shards.end() != b.shards.start());
        let end = below.last().unwrap_or(&hop).shards.end();
        if gap || end != wire.total_shards {
            return Err(WireError::new("hops", "must cover the shards to the last without gap").into());
        }
        if wire.max_positions == 0 || wire.prompt_tokens > wire.max_positions {
            return Err(WireError::new("max_positions", "must be at least prompt_tokens and 1").into());
        }
        Ok(Self {
            session: parse("session_id", &wire.session_id)?,
            attempt: attempt(wire.attempt)?,
            model_digest: parse("model_digest", &wire.model_digest)?,
            precision: parse("precision", &wire.precision)?,
            total_shards: wire.total_shards,
            hop,
            below,
            prompt_tokens: wire.prompt_tokens,
            max_positions: wire.max_positions,
        })
    }
}

impl From<OpenSession> for wire::OpenSession {
    fn from(open: OpenSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: open.session.to_string(),
            attempt: open.attempt.0,
            model_digest: open.model_digest.to_string(),
            precision: open.precision.to_string(),
            total_shards: open.total_shards,
            hops: std::iter::once(open.hop).chain(open.below).map(Into::into).collect(),
            prompt_tokens: open.prompt_tokens,
            max_positions: open.max_positions,
        }
    }
}

fn attempt(number: u32) -> Result<Attempt, WireError> {
    if number == 0 { Err(WireError::new("attempt", "must be at least 1")) } else { Ok(Attempt(number)) }
}

impl TryFrom<wire::Hop> for Hop {
    type Error = WireError;

    fn try_from(wire: wire::Hop) -> Result<Self, WireError> {
        let shards = ShardRange::new(wire.first_shard, wire.end_shard);
        Ok(Self {
            worker: parse("hops.worker", &wire.worker)?,
            shards: shards.map_err(|error| WireError::new("hops", error))?,
        })
    }
}

impl From<Hop> for wire::Hop {
    fn from(hop: Hop) -> Self {
        Self { worker: hop.worker.to_string(), first_shard: hop.shards.start(), end_shard: hop.shards.end() }
    }
}

impl TryFrom<wire::Step> for Step {
    type Error = WireError;

    fn try_from(wire: wire::Step) -> Result<Self, WireError> {
        let kind = match wire.kind() {
            wire::StepKind::Prefill => StepKind::Prefill,
            wire::StepKind::Decode => StepKind::Decode,
            wire::StepKind::Unspecified => return Err(WireError::new("kind", "must be prefill or decode")),
        };
        let input = step_input(wire.tokens, wire.rows, &wire.activations)?;
        let rows = input.rows();
        for (field, count) in [("scores", wire.scores), ("samples", wire.samples)] {
            if count as usize > rows {
                return Err(WireError::new(
                    field,
                    format!("at most one for each of {rows} rows, got {count}"),
                ));
            }
        }
        if wire.timings.len() > MAX_HOPS {
            return Err(WireError::new("timings", "more than there can be hops"));
        }
        let (position, samples, scores) = (wire.position, wire.samples, wire.scores);
        Ok(Self { kind, position, input, samples, scores, timings: convert(wire.timings) })
    }
}

/// A step's rows, which are tokens or activations. How many numbers a row has is the engine's business.
fn step_input(tokens: Vec<u32>, rows: u32, activations: &[u8]) -> Result<StepInput, WireError> {
    let number_of_rows = |field, count: usize| match count {
        1..=MAX_STEP_ROWS => Ok(()),
        _ => Err(WireError::new(field, format!("must be 1 to {MAX_STEP_ROWS}, got {count}"))),
    };
    if rows == 0 && activations.is_empty() {
        number_of_rows("tokens", tokens.len())?;
        return Ok(StepInput::Tokens(tokens.into_iter().map(TokenId).collect()));
    }
    if !tokens.is_empty() {
        return Err(WireError::new("tokens", "a step that carries activations has none"));
    }
    number_of_rows("rows", rows as usize)?;
    let values = activations_from_bytes(activations)?;
    if values.is_empty() || !values.len().is_multiple_of(rows as usize) {
        let what = format!("{} numbers do not make {rows} rows", values.len());
        return Err(WireError::new("activations", what));
    }
    Ok(StepInput::Activations { rows, values })
}

impl From<Step> for wire::Step {
    fn from(step: Step) -> Self {
        let kind = match step.kind {
            StepKind::Prefill => wire::StepKind::Prefill,
            StepKind::Decode => wire::StepKind::Decode,
        };
        let (tokens, rows, activations) = match step.input {
            StepInput::Tokens(tokens) => (ids(tokens), 0, Bytes::new()),
            StepInput::Activations { rows, values } => (vec![], rows, activations_to_bytes(&values)),
        };
        Self {
            position: step.position,
            tokens,
            rows,
            activations,
            timings: convert(step.timings),
            kind: kind.into(),
            samples: step.samples,
            scores: step.scores,
        }
    }
}

fn ids(tokens: Vec<TokenId>) -> Vec<u32> {
    tokens.into_iter().map(|token| token.0).collect()
}

/// Activations as little-endian f32 bytes.
#[must_use]
pub fn activations_to_bytes(values: &[f32]) -> Bytes {
    // Into bytes that are there already, so that it is one copy and no question of room for each number.
    let mut bytes = vec![0; size_of_val(values)];
    for (number, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *number = value.to_le_bytes();
    }
    bytes.into()
}

/// Activations from little-endian f32 bytes. Whether they are finite and how many there must be is the engine's
/// business.
///
/// # Errors
/// When the bytes do not make whole numbers.
pub fn activations_from_bytes(bytes: &[u8]) -> Result<Vec<f32>, WireError> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(WireError::new(
            "activations",
            format!("{} bytes are not whole f32 numbers", bytes.len()),
        ));
    }
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

impl TryFrom<wire::HopFailed> for HopFailure {
    type Error = WireError;

    fn try_from(wire: wire::HopFailed) -> Result<Self, WireError> {
        let code = tonic::Code::from_i32(wire.code);
        let cause = RefusalCause::named(&wire.cause).unwrap_or_else(|| RefusalCause::from_code(code));
        let field = Some(wire.field).filter(|field| !field.is_empty());
        let refusal = Refusal { cause, field, message: wire.message };
        Ok(Self { worker: parse("failed.worker", &wire.worker)?, refusal })
    }
}

impl From<HopFailure> for wire::HopFailed {
    fn from(failure: HopFailure) -> Self {
        Self {
            worker: failure.worker.to_string(),
            code: failure.refusal.cause.code().into(),
            cause: failure.refusal.cause.to_string(),
            message: failure.refusal.message,
            field: failure.refusal.field.unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::CollectRequest> for CollectSession {
    type Error = Refusal;

    fn try_from(wire: wire::CollectRequest) -> Result<Self, Refusal> {
        check_version(wire.protocol_version)?;
        let sampling = wire.sampling.ok_or_else(|| WireError::new("sampling", "is missing"))?;
        Ok(Self {
            session: parse("session_id", &wire.session_id)?,
            attempt: attempt(wire.attempt)?,
            sampling: sampling.try_into()?,
            tokens: wire.tokens.into_iter().map(TokenId).collect(),
        })
    }
}

impl From<CollectSession> for wire::CollectRequest {
    fn from(collect: CollectSession) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            session_id: collect.session.to_string(),
            attempt: collect.attempt.0,
            sampling: Some(collect.sampling.into()),
            tokens: ids(collect.tokens),
        }
    }
}

impl FromHop {
    /// As it is sent on a session's `Collect` stream.
    #[must_use]
    pub fn into_wire(self, attempt: Attempt) -> wire::CollectResponse {
        use wire::collect_response::Message;
        let message = match self {
            Self::Accepted(last) => Message::Accepted(wire::Accepted { last: last.map(Into::into) }),
            Self::Output(output) => Message::Output(output.into()),
        };
        wire::CollectResponse { attempt: attempt.0, message: Some(message) }
    }
}

impl TryFrom<wire::CollectResponse> for (Attempt, FromHop) {
    type Error = WireError;

    fn try_from(wire: wire::CollectResponse) -> Result<Self, WireError> {
        use wire::collect_response::Message;
        let message = match wire.message.ok_or_else(|| WireError::new("message", "is missing"))? {
            Message::Accepted(accepted) => {
                FromHop::Accepted(accepted.last.map(StepOutput::try_from).transpose()?)
            }
            Message::Output(output) => FromHop::Output(output.try_into()?),
        };
        Ok((attempt(wire.attempt)?, message))
    }
}

impl From<StepOutput> for wire::Output {
    fn from(output: StepOutput) -> Self {
        Self {
            position: output.position,
            tokens: convert(output.tokens),
            scores: convert(output.scores),
            timings: convert(output.timings),
        }
    }
}

impl TryFrom<wire::Output> for StepOutput {
    type Error = WireError;

    fn try_from(wire: wire::Output) -> Result<Self, WireError> {
        Ok(Self {
            position: wire.position,
            tokens: try_convert(wire.tokens)?,
            scores: try_convert(wire.scores)?,
            timings: convert(wire.timings),
        })
    }
}

impl From<SampledToken> for wire::SampledToken {
    fn from(sampled: SampledToken) -> Self {
        Self { token: sampled.token.0, logprob: sampled.logprob, top: convert(sampled.top) }
    }
}

impl TryFrom<wire::SampledToken> for SampledToken {
    type Error = WireError;

    fn try_from(wire: wire::SampledToken) -> Result<Self, WireError> {
        Ok(Self {
            token: TokenId(wire.token),
            logprob: wire.logprob.map(logprob).transpose()?,
            top: try_convert(wire.top)?,
        })
    }
}

impl TryFrom<wire::TargetScore> for TargetScore {
    type Error = WireError;

    fn try_from(wire: wire::TargetScore) -> Result<Self, WireError> {
        let target = wire.target.ok_or_else(|| WireError::new("scores.target", "is missing"))?;
        Ok(Self { target: target.try_into()?, top: try_convert(wire.top)? })
    }
}

impl From<TargetScore> for wire::TargetScore {
    fn from(score: TargetScore) -> Self {
        Self { target: Some(score.target.into()), top: convert(score.top) }
    }
}

#[cfg(test)]
mod tests;
