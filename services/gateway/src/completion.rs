//! Between text and tokens: what the front sides (HTTP, gRPC) ask for, and the text they get.

mod assembler;
pub(crate) mod choices;
mod completer;
mod embedder;

pub use assembler::{PlacedToken, TextChunk, TokenPath};
pub use choices::StartError;
pub(crate) use completer::GRAMMAR;
pub use completer::{Completer, CompletionEvent, CompletionRequest, CompletionStream};
