//! From text to tokens and back, by what the model's file says: tokenizer, chat template, end tokens.

mod detokenizer;
mod message;
mod model;
mod options;
mod python;
mod shield;
mod stop;
mod template;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use message::{Message, ToolCall};
pub use model::{ModelFacts, ServedModel};
pub use options::{TextOptions, UserSpecialTokens};
pub(crate) use python::spaced;
pub use stop::StopMatcher;
pub(crate) use template::TOOLS;
pub use template::{Chat, ChatTemplate, Next, Rendered, TemplateError};
pub use tokenizer::{Reading, Tokenizer};

use gguf::GgufError;

/// A model file whose text cannot be handled.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The header lacks something or has it wrong.
    #[error(transparent)]
    Header(#[from] GgufError),
    /// A kind of tokenizer that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The metadata does not make a tokenizer.
    #[error("the tokenizer's metadata is damaged: {0}")]
    Damaged(String),
    /// The conversation cannot be rendered.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A text has more tokens than it may have.
    #[error("the text has {least} tokens or more")]
    TooLong {
        /// How many were counted.
        least: usize,
    },
}
