//! The tokens of a slot's positions, as far as the last shard has to know them.
//!
//! Steps bring it activations only. What was there before it began is told once, and what follows it has sampled
//! itself.

use swarm_types::TokenId;

/// A session's tokens from position 0 on.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tokens: Vec<TokenId>,
    /// So many of them were told. These stay whatever is sampled.
    told: usize,
}

impl Known {
    /// Exactly these are known.
    pub(crate) fn told(tokens: Vec<TokenId>) -> Self {
        Self { told: tokens.len(), tokens }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// The token at a position.
    pub(crate) fn at(&self, position: u32) -> Option<TokenId> {
        self.tokens.get(position as usize).copied()
    }

    /// The token at a position, if it was told and not sampled here.
    pub(crate) fn told_at(&self, position: u32) -> Option<TokenId> {
        self.at(position).filter(|_| (position as usize) < self.told)
    }

    /// How many will be known when a step begins at this position: what was sampled for the places above it does not
    /// count any more.
    pub(crate) fn len_at(&self, position: u32) -> usize {
        self.tokens.len().min(self.told.max((position as usize).saturating_add(1)))
    }

    /// A step begins at this position, or is undone.
    pub(crate) fn go_to(&mut self, position: u32) {
        self.tokens.truncate(self.len_at(position));
    }

    /// A token was sampled for a position.
    pub(crate) fn sampled(&mut self, position: u32, token: TokenId) {
        if self.tokens.len() == position as usize {
            self.tokens.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(known: &Known) -> Vec<u32> {
        known.tokens.iter().map(|token| token.0).collect()
    }

    #[test]
    fn what_was_told_stays_and_what_was_sampled_goes_when_the_slot_goes_back() {
        let mut known = Known::told(vec![TokenId(5), TokenId(6)]);
        known.sampled(1, TokenId(9));
        for (position, token) in [(2, 7), (3, 8), (4, 9)] {
            known.sampled(position, TokenId(token));
        }
        assert_eq!(ids(&known), [5, 6, 7, 8, 9]);
        // Of three that were guessed the first was right: the next step begins with what was sampled behind it.
        known.go_to(3);
        assert_eq!(ids(&known), [5, 6, 7, 8]);
        known.sampled(4, TokenId(1));
        assert_eq!((ids(&known), known.len_at(2)), (vec![5, 6, 7, 8, 1], 3));
        known.go_to(0);
        assert_eq!((ids(&known), known.told_at(1), known.told_at(2)), (vec![5, 6], Some(TokenId(6)), None));
    }

    #[test]
    fn a_gap_is_never_filled_by_what_comes_behind_it() {
        let mut known = Known::default();
        known.sampled(3, TokenId(9));
        assert_eq!((known.at(0), known.at(3)), (None, None));
    }
}
