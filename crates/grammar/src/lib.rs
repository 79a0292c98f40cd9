//! Which tokens may come next, by a grammar: JSON Schema, regular expression or Lark.
//!
//! A [`Vocabulary`] is a model's tokens as bytes; it makes a grammar [`Ready`], and each session has a [`Matcher`] of its
//! own from that. What a matcher says is a function of the grammar, the vocabulary and the tokens taken alone, so one
//! that is built anew from the tokens goes on as the first would have. The work is the library llguidance's; here are
//! its bounds. A grammar comes from outside: size, depth and the effort for it are limited.

mod checks;
mod grammars;
mod matcher;
mod vocabulary;

pub use grammars::Grammars;
pub use matcher::{Mask, Matcher};
pub use vocabulary::{Ready, Vocabulary};

/// A grammar that cannot be used, or a text that has left it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is not valid, too large, or takes too much effort.
    #[error("{0}")]
    Invalid(String),
    /// The model's tokens are of no use for grammars, or the process cannot read them.
    #[error("the model's tokens cannot be arranged for grammars: {0}")]
    Vocabulary(String),
    /// The text has become too much effort, or a token was taken that the grammar does not allow.
    #[error("the text cannot go on by its grammar: {0}")]
    Stuck(String),
}
