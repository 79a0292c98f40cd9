//! One session's state, and the checks of what is sent to it.

use std::ops::Range;

use swarm_types::{SamplingParams, ShardRange, Step, StepOutput, TargetScore, TokenLogprob};

use crate::{
    EngineError,
    hyper::HyperParameters,
    kv::LayerCache,
    sampler::{History, Logprobs, sample},
};

/// A session on this engine.
#[derive(Debug)]
pub(crate) struct Session {
    pub shards: ShardRange,
    /// Which of the engine's layers it runs, counted from the first that the engine holds.
    pub blocks: Range<usize>,
    /// It begins with the embedding.
    pub embeds: bool,
    /// It ends with the head.
    pub samples: bool,
    /// One for each of `blocks`.
    pub caches: Vec<LayerCache>,
    pub position: u32,
    pub prompt_tokens: u32,
    pub max_positions: u32,
    pub sampling: Option<SamplingParams>,
    pub history: History,
    /// Bytes of cache that are set aside for it.
    pub reserved: u64,
}

impl Session {
    /// Whether a step can be computed here and now.
    pub(crate) fn check(&self, step: &Step, hyper: &HyperParameters) -> Result<(), EngineError> {
        let rows = step.tokens.len();
        if rows == 0 {
            return Err(EngineError::invalid("tokens", "a step needs at least one"));
        }
        if step.position != self.position {
            let reason = format!("got {}, the session stands at {}", step.position, self.position);
            return Err(EngineError::invalid("position", reason));
        }
        if step.end() > self.max_positions {
            let reason = format!("the step ends at {}, the session at {}", step.end(), self.max_positions);
            return Err(EngineError::invalid("position", reason));
        }
        let mut ids = step.tokens.iter().chain(&step.targets);
        if let Some(token) = ids.find(|token| token.0 as usize >= hyper.vocabulary) {
            let reason = format!("{token} is not in the vocabulary of {}", hyper.vocabulary);
            return Err(EngineError::invalid("tokens", reason));
        }
        if step.targets.len() > rows {
            return Err(EngineError::invalid("targets", "at most one for each token"));
        }
        if step.sample && self.samples && self.sampling.is_none() {
            return Err(EngineError::invalid("sample", "the session has no sampling parameters"));
        }
        self.check_activations(&step.activations, rows * hyper.hidden)
    }

    fn check_activations(&self, activations: &[f32], numbers: usize) -> Result<(), EngineError> {
        let expected = if self.embeds { 0 } else { numbers };
        if activations.len() != expected {
            let reason = format!("{} numbers, expected {expected}", activations.len());
            return Err(EngineError::invalid("activations", reason));
        }
        match activations.iter().position(|value| !value.is_finite()) {
            Some(place) => Err(EngineError::invalid("activations", format!("number {place} is not finite"))),
            None => Ok(()),
        }
    }

    /// Takes note of a step that was computed, outputs and all.
    pub(crate) fn advance(&mut self, step: &Step) {
        self.history = self.history_after(step);
        self.position = step.end();
    }

    /// The history when the step's tokens are seen too; empty where no penalty looks at it.
    fn history_after(&self, step: &Step) -> History {
        let mut history = self.history.clone();
        if self.sampling.as_ref().is_some_and(SamplingParams::uses_history) {
            for (position, token) in (step.position..).zip(&step.tokens) {
                history.add(*token, position >= self.prompt_tokens);
            }
        }
        history
    }

    /// Undoes what a failed step left in the caches; nothing else of a session changes before it has succeeded.
    pub(crate) fn roll_back(&mut self, kv_width: usize) {
        let numbers = self.position as usize * kv_width;
        self.caches.iter_mut().for_each(|cache| cache.truncate(numbers));
    }

    /// Rows of a step whose logits are needed, rising.
    pub(crate) fn rows_of_interest(step: &Step) -> Vec<usize> {
        let last = step.tokens.len() - 1;
        let sampled = (step.sample && step.targets.len() <= last).then_some(last);
        (0..step.targets.len()).chain(sampled).collect()
    }

    /// Adds what the logits of one row say to the step's output.
    pub(crate) fn read_logits(&self, step: &Step, row: usize, logits: &[f32], output: &mut StepOutput) {
        let wanted = self.sampling.as_ref().and_then(|params| params.top_logprobs);
        let top = |logprobs: &Logprobs<'_>| logprobs.top(wanted.unwrap_or(0) as usize);
        if let Some(target) = step.targets.get(row) {
            let logprobs = Logprobs::new(logits);
            let target = TokenLogprob { token: *target, logprob: logprobs.of(*target) };
            output.scores.push(TargetScore { target, top: top(&logprobs) });
        }
        let Some(params) = self.sampling.as_ref().filter(|_| step.sample && row + 1 == step.tokens.len())
        else {
            return;
        };
        let token = sample(logits, params, &self.history_after(step), step.end());
        output.token = Some(token);
        if wanted.is_some() {
            let logprobs = Logprobs::new(logits);
            output.logprob = Some(logprobs.of(token));
            output.top = top(&logprobs);
        }
    }
}
