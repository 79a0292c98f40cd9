//! From text to tokens and back, by what the model's file says: tokenizer, chat template, end tokens.

mod detokenizer;
mod message;
mod model;
mod python;
mod sentence_piece;
mod stop;
mod template;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use message::{Message, ToolCall};
pub use model::{ModelFacts, ServedModel};
pub(crate) use python::spaced;
pub use stop::StopMatcher;
pub(crate) use template::TOOLS;
pub use template::{Chat, ChatTemplate, Next, TemplateError};
pub use tokenizer::Tokenizer;

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
    /// The chat template does not parse.
    #[error(transparent)]
    Template(#[from] TemplateError),
}
