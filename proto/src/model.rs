//! `model.proto`: sampling, log-probabilities, timings.

use std::time::Duration;

use swarm_types::{Grammar, HopTiming, SamplingParams, TokenId, TokenLogprob};

use crate::{WireError, wire};

impl TryFrom<wire::SamplingParams> for SamplingParams {
    type Error = WireError;

    fn try_from(wire: wire::SamplingParams) -> Result<Self, WireError> {
        let default = Self::default();
        Self {
            logit_bias: wire.logit_bias.into_iter().map(|(id, bias)| (TokenId(id), bias)).collect(),
            repetition_penalty: wire.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: wire.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: wire.presence_penalty.unwrap_or(default.presence_penalty),
            temperature: wire.temperature.unwrap_or(default.temperature),
            top_k: wire.top_k.unwrap_or(default.top_k),
            top_p: wire.top_p.unwrap_or(default.top_p),
            min_p: wire.min_p.unwrap_or(default.min_p),
            seed: wire.seed,
            top_logprobs: wire.top_logprobs,
            min_tokens: wire.min_tokens.unwrap_or(default.min_tokens),
            end_tokens: wire.end_tokens.into_iter().map(TokenId).collect(),
        }
        .validated()
        .map_err(|error| WireError::new("sampling", error))
    }
}

impl From<SamplingParams> for wire::SamplingParams {
    fn from(params: SamplingParams) -> Self {
        Self {
            temperature: Some(params.temperature),
            top_k: Some(params.top_k),
            top_p: Some(params.top_p),
            min_p: Some(params.min_p),
            repetition_penalty: Some(params.repetition_penalty),
            frequency_penalty: Some(params.frequency_penalty),
            presence_penalty: Some(params.presence_penalty),
            logit_bias: params.logit_bias.into_iter().map(|(id, bias)| (id.0, bias)).collect(),
            seed: params.seed,
            top_logprobs: params.top_logprobs,
            min_tokens: Some(params.min_tokens).filter(|tokens| *tokens > 0),
            end_tokens: ids(params.end_tokens),
        }
    }
}

impl TryFrom<wire::Grammar> for Grammar {
    type Error = WireError;

    fn try_from(wire: wire::Grammar) -> Result<Self, WireError> {
        use wire::grammar::Kind;
        let grammar = match wire.kind {
            Some(Kind::JsonSchema(text)) => Self::JsonSchema(text.into()),
            Some(Kind::Regex(text)) => Self::Regex(text.into()),
            Some(Kind::Lark(text)) => Self::Lark(text.into()),
            None => return Err(WireError::new("grammar", "must be json_schema, regex or lark")),
        };
        grammar.validated().map_err(|error| WireError::new("grammar", error))
    }
}

impl From<Grammar> for wire::Grammar {
    fn from(grammar: Grammar) -> Self {
        use wire::grammar::Kind;
        let kind = match grammar {
            Grammar::JsonSchema(text) => Kind::JsonSchema(text.to_string()),
            Grammar::Regex(text) => Kind::Regex(text.to_string()),
            Grammar::Lark(text) => Kind::Lark(text.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

/// How far above 0 rounding may leave the logarithm of a probability near 1.
const ROUNDING: f32 = 1e-3;

/// A log-probability, if it is one.
pub(crate) fn logprob(number: f32) -> Result<f32, WireError> {
    if number <= ROUNDING {
        Ok(number.min(0.0))
    } else {
        Err(WireError::new("logprob", format!("must be at most 0, got {number}")))
    }
}

impl TryFrom<wire::TokenLogprob> for TokenLogprob {
    type Error = WireError;

    fn try_from(wire: wire::TokenLogprob) -> Result<Self, WireError> {
        Ok(Self { token: TokenId(wire.token), logprob: logprob(wire.logprob)? })
    }
}

impl From<TokenLogprob> for wire::TokenLogprob {
    fn from(ours: TokenLogprob) -> Self {
        Self { token: ours.token.0, logprob: ours.logprob }
    }
}

impl From<wire::HopTiming> for HopTiming {
    fn from(wire: wire::HopTiming) -> Self {
        Self {
            queue: Duration::from_micros(wire.queue_us.into()),
            compute: Duration::from_micros(wire.compute_us.into()),
            batch_rows: wire.batch_rows,
        }
    }
}

impl From<HopTiming> for wire::HopTiming {
    fn from(timing: HopTiming) -> Self {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            queue_us: micros(timing.queue),
            compute_us: micros(timing.compute),
            batch_rows: timing.batch_rows,
        }
    }
}

/// Tokens as numbers.
pub(crate) fn ids(tokens: Vec<TokenId>) -> Vec<u32> {
    tokens.into_iter().map(|token| token.0).collect()
}

/// All of a list, converted.
pub(crate) fn convert<A: Into<B>, B>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(Into::into).collect()
}

/// All of a list, checked and converted.
pub(crate) fn try_convert<A: TryInto<B>, B>(list: Vec<A>) -> Result<Vec<B>, A::Error> {
    list.into_iter().map(TryInto::try_into).collect()
}
