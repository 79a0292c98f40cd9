//! Conversations with tools, structured output and thinking: what every dialect of HTTP asks for and tells of.

mod api;
mod calls;
mod chatter;
mod collect;
mod forced;
mod format;
mod lark;
mod offered;
mod plan;
mod prompt;
mod reader;
mod thinking;
pub(crate) mod tools;

#[cfg(test)]
mod tests;

pub use api::{
    ChatChunk, ChatEvent, ChatEvents, ChatFinish, ChatRequest, ChatStream, Delta, Tool, ToolChoice,
};
pub use chatter::Chatter;
pub(crate) use collect::arguments_of;
pub use collect::{ChatMessage, MessagePart, collect};
pub use format::ToolFormat;

/// Why a chat does not begin.
pub use crate::completion::StartError as ChatError;

pub use crate::text::ToolCall;
