//! A conversation with tools, structured output and thinking: what every dialect of HTTP asks for, and what it tells of.

mod api;
mod stub;

pub use api::{
    ChatChunk, ChatEvent, ChatEvents, ChatFinish, ChatRequest, ChatStream, Delta, Tool, ToolChoice,
};
pub use stub::{ChatError, ChatMessage, Chatter, collect};

pub use crate::text::ToolCall;
