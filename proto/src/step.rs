//! `shard.proto`: steps and what comes out of them.

use bytes::Bytes;
use swarm_types::{SampledToken, Step, StepInput, StepKind, StepOutput, TargetScore, TokenId};

use crate::{
    WireError,
    model::{convert, ids, logprob, try_convert},
    wire,
};

/// A step with more rows is refused: prompts go down in chunks far smaller than this.
pub(crate) const MAX_STEP_ROWS: usize = 4096;
/// A route has at most as many hops as a model has shards.
pub(crate) const MAX_HOPS: usize = swarm_types::MAX_SHARDS as usize;

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
        if wire.rebuilds && (wire.samples > 0 || wire.scores > 0 || wire.pools) {
            return Err(WireError::new("rebuilds", "nothing is told of rows that are computed again"));
        }
        if wire.timings.len() > MAX_HOPS {
            return Err(WireError::new("timings", "more than there can be hops"));
        }
        let (position, samples, scores) = (wire.position, wire.samples, wire.scores);
        let (pools, rebuilds, timings) = (wire.pools, wire.rebuilds, convert(wire.timings));
        Ok(Self { kind, position, input, samples, scores, pools, rebuilds, timings })
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
            pools: step.pools,
            rebuilds: step.rebuilds,
        }
    }
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

impl From<StepOutput> for wire::Output {
    fn from(output: StepOutput) -> Self {
        Self {
            position: output.position,
            tokens: convert(output.tokens),
            scores: convert(output.scores),
            pooled: output.pooled,
            timings: convert(output.timings),
        }
    }
}

impl TryFrom<wire::Output> for StepOutput {
    type Error = WireError;

    fn try_from(wire: wire::Output) -> Result<Self, WireError> {
        if let Some(place) = wire.pooled.iter().position(|number| !number.is_finite()) {
            return Err(WireError::new("pooled", format!("number {place} is not finite")));
        }
        Ok(Self {
            position: wire.position,
            pooled: wire.pooled,
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
