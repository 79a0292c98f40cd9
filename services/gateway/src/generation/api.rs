//! What the gateway's front sides (HTTP and gRPC) ask of a generation and get from it: tokens in, tokens out.
//!
//! Text, templates and stop strings are theirs; routes, hops and retries are the [`Generator`]'s.
//!
//! [`Generator`]: super::Generator

use std::{fmt::Display, pin::Pin, time::Duration};

use futures::{Stream, future::BoxFuture};
use swarm_types::{Grammar, HopTiming, NodeId, SamplingParams, TargetScore, TokenId, TokenLogprob};

use crate::clients::Principal;

/// What the client asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// The next message of a conversation.
    Chat,
    /// How a text goes on.
    TextCompletion,
    /// What a text is like, as numbers.
    Embeddings,
}

impl Operation {
    /// As OpenTelemetry's conventions for generative AI name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }

    /// The field that holds what is to be continued.
    #[must_use]
    pub fn input(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::TextCompletion => "prompt",
            Self::Embeddings => "input",
        }
    }
}

/// One generation, in tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct GenerationRequest {
    /// On whose account it runs.
    pub principal: Principal,
    /// For the trace only.
    pub operation: Operation,
    /// At least one token.
    pub prompt: Vec<TokenId>,
    /// How each token is picked; with its seed it decides the whole continuation.
    pub sampling: SamplingParams,
    /// What the continuation must be like.
    pub grammar: Option<Grammar>,
    /// At most this many tokens are generated. 0 only reads the prompt, for scores or an embedding.
    pub max_tokens: u32,
    /// Tokens that end the generation. Empty: it goes on to `max_tokens`.
    pub end_tokens: Vec<TokenId>,
    /// Score the prompt's own tokens and report this many of the likeliest at each place.
    pub score_prompt: Option<u32>,
    /// Sum up the hidden states of the prompt.
    pub pools: bool,
}

/// What happens in a generation, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum GenerationEvent {
    /// Scores of the next prompt tokens, from the prompt's second token on (the first has none before it). Together
    /// these events score each of them once. All come before the first token.
    PromptScores(Vec<TargetScore>),
    /// The sum `[hidden]` of the next positions' hidden states, behind the last layer and the final norm. Together
    /// these events have each position of the prompt once.
    Pooled(Vec<f64>),
    /// A token of the continuation.
    Token(GeneratedToken),
    /// Nothing comes after it.
    Finished(FinishReason),
}

/// A sampled token and how it came about.
#[derive(Clone, PartialEq, Debug)]
pub struct GeneratedToken {
    /// Which.
    pub token: TokenId,
    /// Its log-probability, when the sampling parameters ask for log-probabilities.
    pub logprob: Option<f32>,
    /// The likeliest at its place, likeliest first.
    pub top: Vec<TokenLogprob>,
    /// Where the step spent its time, one entry for each hop of the route, in order.
    pub hops: Vec<HopTiming>,
    /// From sending the step that asked for the token to having the token.
    pub round_trip: Duration,
}

/// Why a generation came to its end. A failed one ends with a [`GenerationError`] instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// One of the end tokens was sampled. It is not reported as a token.
    End,
    /// `max_tokens` were generated.
    Length,
}

impl FinishReason {
    /// As OpenAI's API names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "stop",
            Self::Length => "length",
        }
    }
}

/// The events of one generation. It ends after `Finished` or after the first error. Dropping it cancels the
/// generation and frees its session on every hop.
pub type GenerationStream = Pin<Box<dyn Stream<Item = Result<GenerationEvent, GenerationError>> + Send>>;

/// What a gateway waits for whose model comes from other nodes.
pub(crate) const NO_MODEL: &str = "the model's header is still on its way from the swarm";

/// Why a generation is refused or broken off.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerationError {
    /// The swarm cannot serve now.
    #[error("the swarm is not ready: {reason}")]
    NotReady {
        /// What is missing.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many generations already.
    #[error("the swarm is full, try again in {} s", retry_after.as_secs())]
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// Prompt and continuation do not fit.
    // Client libraries know it by OpenAI's beginning.
    #[error(
        "This model's maximum context length is {context_length} tokens. However, you requested {} tokens \
         ({prompt_tokens} in the {field}, {max_tokens} in the completion). Please reduce the length of the {field} or \
         completion.",
        u64::from(*prompt_tokens) + u64::from(*max_tokens)
    )]
    ContextLength {
        /// Where the prompt came from.
        field: &'static str,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens asked for.
        max_tokens: u32,
        /// Tokens that fit.
        context_length: u32,
    },
    /// A part of the request cannot be.
    #[error("{message}")]
    Invalid {
        /// Which part, as in [`GenerationRequest`].
        field: String,
        /// What is wrong with it; begins with the field.
        message: String,
    },
    /// A worker failed and no other could take its place in time.
    #[error("worker {worker} failed and the session could not be moved: {message}")]
    HopFailed {
        /// The worker that failed last.
        worker: NodeId,
        /// How.
        message: String,
    },
    /// Something took longer than its bound.
    #[error("gave up after {} s: {message}", waited.as_secs())]
    Timeout {
        /// The bound.
        waited: Duration,
        /// What was waited for.
        message: String,
    },
    /// An internal error.
    #[error("internal error: {message}")]
    Internal {
        /// For the operator.
        message: String,
    },
}

impl GenerationError {
    /// Every name that [`Self::cause`] gives.
    pub(crate) const CAUSES: [&str; 7] =
        ["not_ready", "full", "context_length", "invalid", "hop_failed", "timeout", "internal"];

    /// A part of the request that cannot be, and what is wrong with it.
    pub fn invalid(field: &str, what: impl Display) -> Self {
        Self::Invalid { field: field.into(), message: format!("{field}: {what}") }
    }

    /// The model is to come from other nodes, and its header is not here yet.
    #[must_use]
    pub fn no_model() -> Self {
        Self::NotReady { reason: NO_MODEL.into(), retry_after: Duration::from_secs(1) }
    }

    /// The cause by name: the label of the counters.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::Full { .. } => "full",
            Self::ContextLength { .. } => "context_length",
            Self::Invalid { .. } => "invalid",
            Self::HopFailed { .. } => "hop_failed",
            Self::Timeout { .. } => "timeout",
            Self::Internal { .. } => "internal",
        }
    }
}

/// Who turns a prompt into a continuation: the swarm, or a script in a test.
pub trait Generate: Send + Sync + 'static {
    /// Starts a generation. Refusals come from here, later failures from the stream.
    fn start(&self, request: GenerationRequest) -> BoxFuture<'_, Result<GenerationStream, GenerationError>>;
}
