//! What the engine keeps for one sequence of tokens: its caches and what sampling has seen; and the checks of what is
//! sent to it.

use grammar::Ready;
use swarm_types::{
    SampledToken, SamplingParams, ShardRange, Step, StepInput, StepOutput, TargetScore, TokenId, TokenLogprob,
};

use crate::{
    EngineError,
    backend::{Backend, Cache, Input, Rows},
    guide::Guide,
    hyper::HyperParameters,
    known::Known,
    part::Part,
    sampler::{History, Logprobs, Place, sample},
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
    /// What is generated is held to this grammar.
    pub grammar: Option<Ready>,
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
    /// Its tokens, where the last shard looks at them.
    pub known: Known,
    /// Of these, what penalties have counted; up to the slot's position, or less.
    pub history: History,
    /// Holds what is sampled to the session's grammar.
    pub guide: Option<Guide>,
    /// Bytes of cache that are set aside for it.
    pub reserved: u64,
}

impl SlotState {
    /// Whether a step can be computed here and now.
    pub(crate) fn check(&self, step: &Step, hyper: &HyperParameters) -> Result<(), EngineError> {
        let rows = step.rows();
        if rows == 0 {
            return Err(EngineError::invalid("rows", "a step needs at least one"));
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
        for (field, count) in [("scores", step.scores), ("samples", step.samples)] {
            if count as usize > rows {
                return Err(EngineError::invalid(field, "at most one for each row"));
            }
        }
        if self.part.samples {
            self.check_known(step)?;
        }
        match &step.input {
            StepInput::Tokens(tokens) if self.part.embeds => check_tokens(tokens, hyper),
            StepInput::Tokens(_) => Err(EngineError::invalid("tokens", "only the first hop takes them")),
            StepInput::Activations { .. } if self.part.embeds => {
                Err(EngineError::invalid("tokens", "the first hop takes tokens and no activations"))
            }
            StepInput::Activations { values, .. } => check_activations(values, rows * hyper.hidden),
        }
    }

    /// Whether what sampling and scores look at is there.
    fn check_known(&self, step: &Step) -> Result<(), EngineError> {
        let missing = |what: &str, position: usize| format!("the token at {position} was not {what}");
        let scored = step.position.saturating_add(step.scores);
        if step.scores > 0 && self.known.told_at(scored).is_none() {
            return Err(EngineError::invalid("scores", missing("told", scored as usize)));
        }
        if step.samples == 0 {
            return Ok(());
        }
        let Some(params) = &self.options.sampling else {
            return Err(EngineError::invalid("samples", "the session has no sampling parameters"));
        };
        // Each row that is sampled makes the token of the next one known.
        let first_sampled = step.rows() - step.samples as usize + step.position as usize;
        if (params.uses_history() || self.guide.is_some())
            && self.known.len_at(step.position) <= first_sampled
        {
            return Err(EngineError::invalid("samples", missing("told or sampled", first_sampled)));
        }
        Ok(())
    }
}

fn check_tokens(tokens: &[TokenId], hyper: &HyperParameters) -> Result<(), EngineError> {
    match tokens.iter().find(|token| token.0 as usize >= hyper.vocabulary) {
        Some(token) => {
            let reason = format!("{token} is not in the vocabulary of {}", hyper.vocabulary);
            Err(EngineError::invalid("tokens", reason))
        }
        None => Ok(()),
    }
}

fn check_activations(activations: &[f32], expected: usize) -> Result<(), EngineError> {
    if activations.len() != expected {
        let reason = format!("{} numbers, expected {expected}", activations.len());
        return Err(EngineError::invalid("activations", reason));
    }
    match activations.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(EngineError::invalid("activations", format!("number {place} is not finite"))),
        None => Ok(()),
    }
}

impl SlotState {
    /// These are the session's tokens from position 0 on.
    pub(crate) fn tell(&mut self, tokens: Vec<TokenId>, hyper: &HyperParameters) -> Result<(), EngineError> {
        let (told, most) = (tokens.len(), self.options.max_positions);
        if told > most as usize {
            let reason = format!("{told} were told, the session has {most} positions");
            return Err(EngineError::invalid("tokens", reason));
        }
        check_tokens(&tokens, hyper)?;
        self.known = Known::told(tokens);
        self.history = History::default();
        if let Some(guide) = &mut self.guide {
            guide.go_to(0);
        }
        Ok(())
    }

    /// Goes back to a position at or below its own: what lies above is forgotten.
    pub(crate) fn truncate(&mut self, position: u32, backend: &dyn Backend) {
        debug_assert!(position <= self.position, "a slot goes back, never ahead");
        backend.truncate(&mut self.cache, position);
        self.known.go_to(position);
        self.history.truncate(position);
        if let Some(guide) = &mut self.guide {
            guide.go_to(self.known.len());
        }
        self.position = position;
    }

    /// A step's rows as they enter the part.
    pub(crate) fn rows<'a>(&'a mut self, step: &'a Step) -> Rows<'a> {
        debug_assert_eq!(step.position, self.position);
        let input = match &step.input {
            StepInput::Tokens(tokens) => Input::Tokens(tokens),
            StepInput::Activations { values, .. } => Input::Activations(values),
        };
        Rows { position: step.position, count: step.rows(), input, cache: &mut self.cache }
    }

    /// Takes note of a step that was computed, outputs and all.
    pub(crate) fn advance(&mut self, step: &Step) {
        self.position = step.end();
    }

    /// Counts the tokens below this position, where a penalty looks at them.
    fn count_below(&mut self, position: u32) {
        while self.history.len() < position {
            let Some(token) = self.known.at(self.history.len()) else { return };
            self.history.add(token, self.history.len() >= self.options.prompt_tokens);
        }
    }

    /// Rows of a step whose logits are needed, rising.
    pub(crate) fn rows_of_interest(step: &Step) -> Vec<usize> {
        (0..step.rows()).filter(|row| *row < step.scores as usize || step.samples_row(*row)).collect()
    }

    /// Adds what the logits of one row say to the step's output. Rows come in their order.
    pub(crate) fn read_logits(
        &mut self,
        step: &Step,
        row: usize,
        logits: &[f32],
        output: &mut StepOutput,
    ) -> Result<(), EngineError> {
        // The place behind the row.
        let next = step.position + row as u32 + 1;
        let wanted = self.options.sampling.as_ref().and_then(|params| params.top_logprobs);
        let top = |logprobs: &Logprobs<'_>| logprobs.top(wanted.unwrap_or(0) as usize);
        if row < step.scores as usize
            && let Some(token) = self.known.told_at(next)
        {
            let logprobs = Logprobs::new(logits);
            let target = TokenLogprob { token, logprob: logprobs.of(token) };
            output.scores.push(TargetScore { target, top: top(&logprobs) });
        }
        if !step.samples_row(row) {
            return Ok(());
        }
        let Some(token) = self.sample(logits, next)? else { return Ok(()) };
        let logprobs = wanted.map(|_| Logprobs::new(logits));
        output.tokens.push(SampledToken {
            token,
            logprob: logprobs.as_ref().map(|logprobs| logprobs.of(token)),
            top: logprobs.as_ref().map(top).unwrap_or_default(),
        });
        Ok(())
    }

    /// The token for a position, by what was there before.
    fn sample(&mut self, logits: &[f32], position: u32) -> Result<Option<TokenId>, EngineError> {
        let counts = self.options.sampling.as_ref().is_some_and(SamplingParams::uses_history);
        if counts {
            self.count_below(position);
        }
        let Some(params) = &self.options.sampling else { return Ok(None) };
        let least = self.options.prompt_tokens.saturating_add(params.min_tokens);
        let place = Place { position, is_early: position < least };
        let token = match &mut self.guide {
            None => sample(logits, params, &self.history, place),
            Some(guide) => {
                guide.follow(&self.known, position)?;
                guide.pick(logits, params, &self.history, place)?
            }
        };
        if counts || self.guide.is_some() {
            self.known.sampled(position, token);
        }
        Ok(Some(token))
    }
}
