//! What a generated text must be like.

use std::sync::Arc;

/// A longer grammar is refused.
pub const MAX_GRAMMAR_BYTES: usize = 64 << 10;

/// What a generated text must be like, as text: whoever samples makes masks over tokens of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Grammar {
    /// A JSON document that this JSON Schema, itself JSON, takes.
    JsonSchema(Arc<str>),
    /// A text that this regular expression matches as a whole.
    Regex(Arc<str>),
    /// A text of this language, in the syntax of Lark.
    Lark(Arc<str>),
}

/// A grammar that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {MAX_GRAMMAR_BYTES} bytes, got {0}")]
pub struct GrammarTooLong(pub usize);

impl Grammar {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) => text,
        }
    }

    /// The same, if it is not too long.
    ///
    /// # Errors
    /// When it is.
    pub fn validated(self) -> Result<Self, GrammarTooLong> {
        match self.text().len() {
            ..=MAX_GRAMMAR_BYTES => Ok(self),
            bytes => Err(GrammarTooLong(bytes)),
        }
    }
}
