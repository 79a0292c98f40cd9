//! What can be wrong with a grammar.

/// A grammar that cannot be used, or a text that has left it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is not valid, too large, or takes too much effort.
    #[error("{0}")]
    Invalid(String),
    /// It is not the grammar's fault: a file cannot be read, or the process has no room.
    #[error("internal error: {0}")]
    Internal(String),
    /// The model's tokens are of no use for grammars.
    #[error("the model's tokens cannot be arranged for grammars: {0}")]
    Vocabulary(String),
    /// The text has become too much effort, or a token was taken that the grammar does not allow.
    #[error("the text cannot go on by its grammar: {0}")]
    Stuck(String),
}
