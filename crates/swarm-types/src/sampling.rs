//! How the next token is picked.

use std::collections::BTreeMap;

use crate::TokenId;

/// More biased tokens than this are refused.
pub const MAX_LOGIT_BIAS: usize = 1024;
/// More alternatives than this are refused, as by OpenAI's API.
pub const MAX_TOP_LOGPROBS: u32 = 20;

/// More tokens that end a text are refused.
pub const MAX_END_TOKENS: usize = 2048;

/// A parameter outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number outside its interval, or not finite.
    #[error("{field} must be {allowed}, got {got}")]
    Range {
        /// The parameter.
        field: &'static str,
        /// Its interval, for people.
        allowed: &'static str,
        /// What was given.
        got: f32,
    },
    /// Too many biases.
    #[error("logit_bias must have at most {MAX_LOGIT_BIAS} entries, got {0}")]
    TooManyBiases(usize),
    /// Too many tokens that end a text.
    #[error("end_tokens must be at most {MAX_END_TOKENS}, got {0}")]
    TooManyEndTokens(usize),
}

impl SamplingError {
    /// The parameter to blame.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Range { field, .. } => field,
            Self::TooManyBiases(_) => "logit_bias",
            Self::TooManyEndTokens(_) => "end_tokens",
        }
    }
}

/// How the last shard picks a token from its logits. Applied in the order of the fields.
#[derive(Clone, PartialEq, Debug)]
pub struct SamplingParams {
    /// Added to the token's logit, -100 to 100.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Divides positive and multiplies negative logits of every token seen, prompt included; 0.01 to 100, 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted for each earlier occurrence among the generated tokens, -2 to 2, 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once from each token generated before, -2 to 2, 0 is off.
    pub presence_penalty: f32,
    /// 0 to 2; 0 is greedy.
    pub temperature: f32,
    /// Keep this many of the likeliest; 0 is off.
    pub top_k: u32,
    /// Keep the smallest set with this much probability, in (0, 1]; 1 is off.
    pub top_p: f32,
    /// Drop what is less likely than this share of the likeliest, 0 to 1; 0 is off.
    pub min_p: f32,
    /// With the position, all the randomness there is.
    pub seed: u64,
    /// Report the chosen token's log-probability and this many of the likeliest.
    pub top_logprobs: Option<u32>,
    /// Before so many tokens are generated, none of `end_tokens` is picked.
    pub min_tokens: u32,
    /// The tokens that end a text, where `min_tokens` looks at them.
    pub end_tokens: Vec<TokenId>,
}

impl Default for SamplingParams {
    /// The model's own distribution, as OpenAI's API has it.
    fn default() -> Self {
        Self {
            logit_bias: BTreeMap::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            top_logprobs: None,
            min_tokens: 0,
            end_tokens: vec![],
        }
    }
}

impl SamplingParams {
    /// Always the likeliest token.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The same parameters, if every one is in its range.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn validated(self) -> Result<Self, SamplingError> {
        let check = |field, got: f32, ok: bool, allowed| match got.is_finite() && ok {
            true => Ok(()),
            false => Err(SamplingError::Range { field, allowed, got }),
        };
        let within = |low: f32, high: f32, value: f32| (low..=high).contains(&value);
        let (t, p, m, r) = (self.temperature, self.top_p, self.min_p, self.repetition_penalty);
        check("temperature", t, within(0.0, 2.0, t), "between 0 and 2")?;
        check("top_p", p, p > 0.0 && p <= 1.0, "above 0 and at most 1")?;
        check("min_p", m, within(0.0, 1.0, m), "between 0 and 1")?;
        check("repetition_penalty", r, within(0.01, 100.0, r), "between 0.01 and 100")?;
        for (field, penalty) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            check(field, penalty, within(-2.0, 2.0, penalty), "between -2 and 2")?;
        }
        if self.logit_bias.len() > MAX_LOGIT_BIAS {
            return Err(SamplingError::TooManyBiases(self.logit_bias.len()));
        }
        if self.end_tokens.len() > MAX_END_TOKENS {
            return Err(SamplingError::TooManyEndTokens(self.end_tokens.len()));
        }
        for bias in self.logit_bias.values() {
            check("logit_bias", *bias, within(-100.0, 100.0, *bias), "between -100 and 100")?;
        }
        if let Some(top) = self.top_logprobs {
            check("top_logprobs", top as f32, top <= MAX_TOP_LOGPROBS, "between 0 and 20")?;
        }
        Ok(self)
    }

    /// Whether sampling looks at the tokens before.
    #[must_use]
    pub fn uses_history(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let field = |params: SamplingParams| params.validated().expect_err("refused").field();
        let default = SamplingParams::default;
        assert!(default().validated().is_ok());
        assert_eq!(field(SamplingParams { temperature: f32::NAN, ..default() }), "temperature");
        assert_eq!(field(SamplingParams { temperature: 2.1, ..default() }), "temperature");
        assert_eq!(field(SamplingParams { top_p: 0.0, ..default() }), "top_p");
        assert_eq!(field(SamplingParams { min_p: -0.1, ..default() }), "min_p");
        for penalty in [0.0, 1e-40, 101.0] {
            let params = SamplingParams { repetition_penalty: penalty, ..default() };
            assert_eq!(field(params), "repetition_penalty");
        }
        assert_eq!(
            field(SamplingParams { presence_penalty: f32::INFINITY, ..default() }),
            "presence_penalty"
        );
        assert_eq!(field(SamplingParams { top_logprobs: Some(21), ..default() }), "top_logprobs");
        let biased = BTreeMap::from([(TokenId(1), 101.0)]);
        assert_eq!(field(SamplingParams { logit_bias: biased, ..default() }), "logit_bias");
        let ends = vec![TokenId(0); MAX_END_TOKENS + 1];
        assert_eq!(field(SamplingParams { end_tokens: ends, ..default() }), "end_tokens");
        let many = (0..=1024).map(|id| (TokenId(id), 1.0)).collect();
        assert_eq!(field(SamplingParams { logit_bias: many, ..default() }), "logit_bias");
    }
}
