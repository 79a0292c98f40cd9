//! Where one text stands in its grammar.

use std::fmt;

use llguidance::{Matcher as Library, toktrie::SimpleVob};
use swarm_types::TokenId;

use crate::error::GrammarError;

/// Where one text stands in its grammar.
pub struct Matcher {
    library: Library,
    taken: u32,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// The tokens that may come next.
pub struct Mask(SimpleVob);

impl Mask {
    /// Whether this one may.
    #[must_use]
    pub fn allows(&self, token: TokenId) -> bool {
        (token.0 as usize) < self.0.len() && self.0.is_allowed(token.0)
    }

    /// Whether none may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_zero()
    }
}

fn stuck(error: impl ToString) -> GrammarError {
    GrammarError::Stuck(error.to_string())
}

impl Matcher {
    pub(crate) fn new(library: Library) -> Self {
        Self { library, taken: 0 }
    }

    /// Tokens taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Whether a token may come next. An end token may where the text is complete.
    ///
    /// # Errors
    /// When the text cannot go on at all.
    pub fn allows(&mut self, token: TokenId) -> Result<bool, GrammarError> {
        if self.library.is_stopped() {
            return Ok(self.mask()?.allows(token));
        }
        self.library.validate_tokens(&[token.0]).map(|valid| valid == 1).map_err(stuck)
    }

    /// All tokens that may come next.
    ///
    /// # Errors
    /// When the text cannot go on at all.
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        self.library.compute_mask_or_eos().map(Mask).map_err(stuck)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When it may not come next.
    pub fn take(&mut self, token: TokenId) -> Result<(), GrammarError> {
        // Behind a complete text the library takes nothing any more.
        if !self.library.is_stopped() {
            self.library.consume_token(token.0).map_err(stuck)?;
        } else if !self.mask()?.allows(token) {
            return Err(GrammarError::Stuck(format!("token {token} comes behind the end")));
        }
        self.taken += 1;
        Ok(())
    }
}
