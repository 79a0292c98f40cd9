//! What the engine keeps for one sequence of tokens: its caches and what sampling has seen; and the checks of what is
//! sent to it.

use swarm_types::{SampledToken, SamplingParams, ShardRange, Step, StepOutput, TargetScore, TokenLogprob};

use crate::{
    EngineError,
    backend::{Backend, Cache, Input, Rows},
    hyper::HyperParameters,
    part::Part,
    sampler::{History, Logprobs, sample},
};

/// The key of a cache that [`Engine::open`](crate::Engine::open) set aside. Says nothing about whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot(pub(crate) u64);

/// How a slot is used.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotOptions {
    /// The shards it runs, of those the engine holds.
    pub shards: ShardRange,
    /// Positions below this are prompt.
    pub prompt_tokens: u32,
    /// Upper bound of its positions; the cache for them is set aside.
    pub max_positions: u32,
    /// Needed where its shards end with the last.
    pub sampling: Option<SamplingParams>,
}

/// What lies behind a slot.
#[derive(Debug)]
pub(crate) struct SlotState {
    pub options: SlotOptions,
    /// What it runs, of what the engine holds.
    pub part: Part,
    /// Of its layers.
    pub cache: Cache,
    /// Rows that it has passed.
    pub position: u32,
    pub history: History,
    /// Bytes of cache that are set aside for it.
    pub reserved: u64,
}

impl SlotState {
    /// Whether a step can be computed here and now.
    pub(crate) fn check(&self, step: &Step, hyper: &HyperParameters) -> Result<(), EngineError> {
        let rows = step.tokens.len();
        if rows == 0 {
            return Err(EngineError::invalid("tokens", "a step needs at least one"));
        }
        if step.position > self.position {
            let reason = format!("got {}, the session stands at {}", step.position, self.position);
            return Err(EngineError::invalid("position", reason));
        }
        if step.end() > self.options.max_positions {
            let most = self.options.max_positions;
            let reason = format!("the step ends at {}, the session at {most}", step.end());
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
        if step.samples as usize > rows {
            return Err(EngineError::invalid("samples", "at most one for each token"));
        }
        if step.samples > 0 && self.part.samples && self.options.sampling.is_none() {
            return Err(EngineError::invalid("samples", "the session has no sampling parameters"));
        }
        self.check_activations(&step.activations, rows * hyper.hidden)
    }

    fn check_activations(&self, activations: &[f32], numbers: usize) -> Result<(), EngineError> {
        let expected = if self.part.embeds { 0 } else { numbers };
        if activations.len() != expected {
            let reason = format!("{} numbers, expected {expected}", activations.len());
            return Err(EngineError::invalid("activations", reason));
        }
        match activations.iter().position(|value| !value.is_finite()) {
            Some(place) => Err(EngineError::invalid("activations", format!("number {place} is not finite"))),
            None => Ok(()),
        }
    }

    /// Goes back to a position at or below its own: what lies above is forgotten.
    pub(crate) fn truncate(&mut self, position: u32, backend: &dyn Backend) {
        debug_assert!(position <= self.position, "a slot goes back, never ahead");
        backend.truncate(&mut self.cache, position);
        self.history.truncate(position);
        self.position = position;
    }

    /// A step's rows as they enter the part.
    pub(crate) fn rows<'a>(&'a mut self, step: &'a Step) -> Rows<'a> {
        debug_assert_eq!(step.position, self.position);
        let input = match self.part.embeds {
            true => Input::Tokens(&step.tokens),
            false => Input::Activations(&step.activations),
        };
        Rows { position: step.position, count: step.rows(), input, cache: &mut self.cache }
    }

    /// Takes note of a step that was computed, outputs and all.
    pub(crate) fn advance(&mut self, step: &Step) {
        self.see(step, step.rows());
        self.position = step.end();
    }

    /// The first `rows` of the step's tokens are seen; only where a penalty looks at them.
    fn see(&mut self, step: &Step, rows: usize) {
        if self.options.sampling.as_ref().is_some_and(SamplingParams::uses_history) {
            let known = (self.history.len() - step.position) as usize;
            for token in step.tokens.get(known..rows).unwrap_or_default() {
                self.history.add(*token, self.history.len() >= self.options.prompt_tokens);
            }
        }
    }

    /// Rows of a step whose logits are needed, rising.
    pub(crate) fn rows_of_interest(step: &Step) -> Vec<usize> {
        (0..step.rows()).filter(|row| *row < step.targets.len() || step.samples_row(*row)).collect()
    }

    /// Adds what the logits of one row say to the step's output. Rows come in their order.
    pub(crate) fn read_logits(&mut self, step: &Step, row: usize, logits: &[f32], output: &mut StepOutput) {
        let wanted = self.options.sampling.as_ref().and_then(|params| params.top_logprobs);
        let top = |logprobs: &Logprobs<'_>| logprobs.top(wanted.unwrap_or(0) as usize);
        if let Some(target) = step.targets.get(row) {
            let logprobs = Logprobs::new(logits);
            let target = TokenLogprob { token: *target, logprob: logprobs.of(*target) };
            output.scores.push(TargetScore { target, top: top(&logprobs) });
        }
        if !step.samples_row(row) {
            return;
        }
        self.see(step, row + 1);
        let Some(params) = &self.options.sampling else { return };
        // For the place behind the row.
        let token = sample(logits, params, &self.history, step.position + row as u32 + 1);
        let logprobs = wanted.map(|_| Logprobs::new(logits));
        output.tokens.push(SampledToken {
            token,
            logprob: logprobs.as_ref().map(|logprobs| logprobs.of(token)),
            top: logprobs.as_ref().map(top).unwrap_or_default(),
        });
    }
}
