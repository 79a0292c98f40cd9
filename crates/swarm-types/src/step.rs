//! What flows through a route.

use std::time::Duration;

use crate::TokenId;

/// What a step is part of. It decides who goes first, never what comes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StepKind {
    /// A piece of what is known already: the prompt, or all tokens of a session that is rebuilt.
    #[default]
    Prefill,
    /// The newest token, and perhaps guesses of those behind it: somebody waits for what comes next.
    Decode,
}

impl StepKind {
    /// Its name in traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// What a step's rows are when they enter a hop. A hop learns no more of them than it needs: only the first embeds
/// tokens.
#[derive(Clone, PartialEq, Debug)]
pub enum StepInput {
    /// To the first hop: one token a row.
    Tokens(Vec<TokenId>),
    /// To the others.
    Activations {
        /// How many.
        rows: u32,
        /// f32 `[rows, hidden]`, row after row.
        values: Vec<f32>,
    },
}

impl StepInput {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Activations { rows, .. } => *rows as usize,
        }
    }
}

impl Default for StepInput {
    fn default() -> Self {
        Self::Tokens(vec![])
    }
}

impl From<Vec<TokenId>> for StepInput {
    fn from(tokens: Vec<TokenId>) -> Self {
        Self::Tokens(tokens)
    }
}

/// One pass of some rows through a hop.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Step {
    /// What it is part of.
    pub kind: StepKind,
    /// Position of the first row, from 0. At or below where the session stands: what lies above is dropped.
    pub position: u32,
    /// At least one row.
    pub input: StepInput,
    /// Sample a token from each of the last so many rows.
    pub samples: u32,
    /// Score, under each of the first so many rows, the token that follows it in the prompt.
    pub scores: u32,
    /// Sum up its rows' hidden states.
    pub pools: bool,
    /// The receiver had these rows before it was lost, or its cache was. It hands on only those that the hop below
    /// lacks as well, and nobody answers them: nothing is sampled, scored or pooled.
    pub rebuilds: bool,
    /// One entry for each hop passed so far.
    pub timings: Vec<HopTiming>,
}

impl Step {
    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.input.rows()
    }

    /// Whether a token is sampled from this row, counted from the first.
    #[must_use]
    pub fn samples_row(&self, row: usize) -> bool {
        row < self.rows() && self.rows() - row <= self.samples as usize
    }

    /// Position after the last row.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.position.saturating_add(u32::try_from(self.rows()).unwrap_or(u32::MAX))
    }
}

/// Where a step spent its time on one hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HopTiming {
    /// Waiting for the engine.
    pub queue: Duration,
    /// In the engine.
    pub compute: Duration,
    /// Rows of all sessions that the engine ran together with this step's.
    pub batch_rows: u32,
}

/// A token and the natural logarithm of its probability under the model, before bias, penalties and temperature.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TokenLogprob {
    /// Which.
    pub token: TokenId,
    /// At most 0.
    pub logprob: f32,
}

/// How likely the model held a token that was already there.
#[derive(Clone, PartialEq, Debug)]
pub struct TargetScore {
    /// The token asked about.
    pub target: TokenLogprob,
    /// The likeliest at its place, likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// A token that was picked, and what is said about it.
#[derive(Clone, PartialEq, Debug)]
pub struct SampledToken {
    /// Which.
    pub token: TokenId,
    /// Its log-probability, when the session asks for log-probabilities.
    pub logprob: Option<f32>,
    /// The likeliest at its place, likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// What the last hop says of a step.
#[derive(Clone, PartialEq, Debug)]
pub struct StepOutput {
    /// Position after the step's rows; the place of the last sampled token, if there is one.
    pub position: u32,
    /// One for each row that was to be sampled, in their order.
    pub tokens: Vec<SampledToken>,
    /// One for each row that was to be scored, in their order.
    pub scores: Vec<TargetScore>,
    /// Where the step pools: `[hidden]`, the sum of its rows behind the last layer and the final norm.
    pub pooled: Vec<f64>,
    /// One entry for each hop of the route.
    pub timings: Vec<HopTiming>,
}
