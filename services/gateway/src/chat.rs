//! A conversation with tools, structured output and thinking: what every dialect of HTTP asks for, and what it tells of.

mod api;

pub use api::{
    ChatChunk, ChatEvent, ChatEvents, ChatFinish, ChatRequest, ChatStream, Delta, Tool, ToolChoice,
};
