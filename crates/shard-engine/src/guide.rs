//! Keeps a session's tokens to its grammar.

use grammar::{GrammarError, Mask, Matcher, Ready};
use swarm_types::{SamplingParams, TokenId};

use crate::{
    EngineError,
    known::Known,
    sampler::{History, Place, sample, sample_among},
};

/// Where a session's text stands in its grammar.
#[derive(Debug)]
pub(crate) struct Guide {
    ready: Ready,
    /// The text begins here.
    begin: u32,
    matcher: Matcher,
}

impl Guide {
    /// For a text whose first token is at the position `begin`.
    pub(crate) fn new(ready: &Ready, begin: u32) -> Self {
        Self { ready: ready.clone(), begin, matcher: ready.matcher() }
    }

    /// Tokens from this place of the session on have not been taken, or are to be taken again.
    pub(crate) fn go_to(&mut self, position: u32) {
        if self.begin + self.matcher.taken() > position {
            self.matcher = self.ready.matcher();
        }
    }

    /// Takes the tokens below a position that it has not taken.
    pub(crate) fn follow(&mut self, known: &Known, position: u32) -> Result<(), EngineError> {
        while self.begin + self.matcher.taken() < position {
            let next = self.begin + self.matcher.taken();
            let Some(token) = known.at(next) else {
                return Err(EngineError::Grammar(format!("the token at {next} is not known")));
            };
            self.matcher.take(token).map_err(failed)?;
        }
        Ok(())
    }

    /// Picks the token for a place, where the text stands. What the model likes is mostly what the grammar allows,
    /// so that is tried first and a mask made only where it is not; the second draw has randomness of its own, so that
    /// each token comes as often as if the mask had been there from the beginning.
    pub(crate) fn pick(
        &mut self,
        logits: &[f32],
        params: &SamplingParams,
        history: &History,
        place: Place,
    ) -> Result<TokenId, EngineError> {
        let liked = sample(logits, params, history, place);
        if self.matcher.allows(liked).map_err(failed)? {
            return Ok(liked);
        }
        let mask = self.matcher.mask().map_err(failed)?;
        let allowed = |token| Mask::allows(&mask, token);
        sample_among(logits, params, history, place, &allowed)
            .ok_or_else(|| EngineError::Grammar("no token is allowed".into()))
    }
}

fn failed(error: GrammarError) -> EngineError {
    EngineError::Grammar(error.to_string())
}
