//! Which tokens may come next, by a grammar: JSON Schema, regular expression or Lark.
//!
//! A [`Vocabulary`] is a model's tokens as bytes; it makes a grammar [`Ready`], and each session has a [`Matcher`] of
//! its own from that. What a matcher says is a function of the grammar, the vocabulary and the tokens taken alone, so
//! one that is built again from the tokens goes on as the first would have. The work is the library llguidance's; here
//! are its bounds. A grammar comes from outside: size, depth and the effort for it are limited.

mod checks;
mod effort;
mod error;
mod grammars;
mod matcher;
mod vocabulary;

pub use checks::on_one_line;
pub use error::GrammarError;
pub use grammars::Grammars;
pub use matcher::{Mask, Matcher};
pub use vocabulary::{Ready, Vocabulary};
