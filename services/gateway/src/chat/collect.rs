//! Whole messages, for who does not want them piece by piece.

use futures::StreamExt;

use super::api::{ChatChunk, ChatEvent, ChatEvents, ChatFinish, Delta};
use crate::{completion::PlacedToken, generation::GenerationError, text::ToolCall};

/// A message that came to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatMessage {
    /// Text for the user; empty where there is none.
    pub content: String,
    /// What the model thought before.
    pub reasoning: String,
    /// In order. The last may be cut off where there were no more tokens.
    pub tool_calls: Vec<ToolCall>,
    /// All that were generated and are not part of a stop string.
    pub tokens: Vec<PlacedToken>,
    /// Why it ended.
    pub reason: ChatFinish,
    /// Tokens generated, all of them.
    pub completion_tokens: u32,
    /// Those of thinking among them.
    pub reasoning_tokens: u32,
}

impl ChatMessage {
    fn new() -> Self {
        Self {
            content: String::new(),
            reasoning: String::new(),
            tool_calls: vec![],
            tokens: vec![],
            reason: ChatFinish::Length,
            completion_tokens: 0,
            reasoning_tokens: 0,
        }
    }

    fn add(&mut self, ChatChunk { delta, tokens, path: _ }: ChatChunk) {
        self.tokens.extend(tokens);
        match delta {
            Delta::Nothing => {}
            Delta::Content(text) => self.content += &text,
            Delta::Reasoning(text) => self.reasoning += &text,
            Delta::ToolCall { index: _, id, name } => {
                self.tool_calls.push(ToolCall { id, name, arguments: String::new() });
            }
            Delta::Arguments { index, text } => {
                if let Some(call) = self.tool_calls.get_mut(index as usize) {
                    call.arguments += &text;
                }
            }
        }
    }
}

/// All choices, when the last has come to its end.
///
/// # Errors
/// The first that ends a choice.
pub async fn collect(mut events: ChatEvents, choices: usize) -> Result<Vec<ChatMessage>, GenerationError> {
    let mut messages = vec![ChatMessage::new(); choices];
    while let Some(event) = events.next().await {
        let (index, event) = event?;
        let message = &mut messages[index];
        match event {
            ChatEvent::Chunk(chunk) => message.add(chunk),
            ChatEvent::Finished { reason, completion_tokens, reasoning_tokens } => {
                message.reason = reason;
                message.completion_tokens = completion_tokens;
                message.reasoning_tokens = reasoning_tokens;
            }
        }
    }
    Ok(messages)
}
