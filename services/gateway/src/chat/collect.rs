//! Whole messages, for who does not want them piece by piece.

use futures::StreamExt;
use serde_json::{Map, Value};

use super::api::{ChatChunk, ChatEvent, ChatEvents, ChatFinish, Delta};
use crate::{completion::PlacedToken, generation::GenerationError, text::ToolCall};

/// A message that came to its end.
#[derive(Clone, PartialEq, Debug)]
pub struct ChatMessage {
    /// Text for the user; empty where there is none.
    pub content: String,
    /// What the model thought before.
    pub reasoning: String,
    /// In order. Their arguments may be cut off where there were no more tokens, or no JSON where the model wrote none.
    pub tool_calls: Vec<ToolCall>,
    /// Bytes of the text that came before each call.
    pub call_places: Vec<usize>,
    /// All that were generated and are not part of a stop string.
    pub tokens: Vec<PlacedToken>,
    /// Why it ended.
    pub reason: ChatFinish,
    /// The stop string that it ended at.
    pub stop: Option<String>,
    /// Tokens generated, all of them.
    pub completion_tokens: u32,
    /// Those of thinking among them.
    pub reasoning_tokens: u32,
}

/// What a message says or calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessagePart {
    /// Not empty.
    Text(String),
    /// With the arguments as the model wrote them.
    Call(ToolCall),
}

impl ChatMessage {
    /// Text and calls in the order in which they came. A call without a place came behind all text.
    #[must_use]
    pub fn parts(&self) -> Vec<MessagePart> {
        let mut parts = vec![];
        let mut rest = self.content.as_str();
        let mut told = 0;
        let places = self.call_places.iter().copied().chain(std::iter::repeat(self.content.len()));
        for (call, place) in self.tool_calls.iter().zip(places) {
            let (before, behind) = rest.split_at_checked(place.saturating_sub(told)).unwrap_or((rest, ""));
            if !before.is_empty() {
                parts.push(MessagePart::Text(before.into()));
            }
            parts.push(MessagePart::Call(call.clone()));
            (told, rest) = (told + before.len(), behind);
        }
        if !rest.is_empty() {
            parts.push(MessagePart::Text(rest.into()));
        }
        parts
    }

    fn new() -> Self {
        Self {
            content: String::new(),
            reasoning: String::new(),
            tool_calls: vec![],
            call_places: vec![],
            tokens: vec![],
            reason: ChatFinish::Length,
            stop: None,
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
                self.call_places.push(self.content.len());
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

/// The arguments of a call, for who has them as an object.
///
/// # Errors
/// The call as text, as far as it came: its arguments are no object, and who carried it out with others would do what
/// the model did not ask for.
pub(crate) fn arguments_of(call: &ToolCall) -> Result<Map<String, Value>, String> {
    let ToolCall { name, arguments, .. } = call;
    serde_json::from_str(arguments)
        .map_err(|_| format!("{{\"name\": {}, \"arguments\": {arguments}", Value::from(name.as_str())))
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
            ChatEvent::Finished { reason, completion_tokens, reasoning_tokens, stop } => {
                message.reason = reason;
                message.stop = stop;
                message.completion_tokens = completion_tokens;
                message.reasoning_tokens = reasoning_tokens;
            }
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn parts_come_in_the_order_in_which_they_were_told() {
        let call = |index, id: &str| Delta::ToolCall { index, id: id.into(), name: "f".into() };
        let deltas = [
            Delta::Content("é".into()),
            call(0, "a"),
            Delta::Arguments { index: 0, text: "{}".into() },
            call(1, "b"),
            Delta::Content("then".into()),
        ];
        let chunk = |delta| Ok((0, ChatEvent::Chunk(ChatChunk { delta, ..ChatChunk::default() })));
        let events = stream::iter(deltas.map(chunk)).boxed();
        let message = collect(events, 1).await.expect("no error").pop().expect("a message");
        let call = |id: &str, arguments: &str| {
            let (id, name, arguments) = (id.into(), "f".into(), arguments.into());
            MessagePart::Call(ToolCall { id, name, arguments })
        };
        let text = |text: &str| MessagePart::Text(text.into());
        assert_eq!(message.parts(), [text("é"), call("a", "{}"), call("b", ""), text("then")]);
        assert!(ChatMessage::new().parts().is_empty());
    }

    #[test]
    fn arguments_are_an_object_or_the_call_is_text() {
        let arguments = |arguments: &str| {
            arguments_of(&ToolCall { id: "c".into(), name: "f".into(), arguments: arguments.into() })
        };
        assert!(arguments("{\"a\": 1}").is_ok_and(|object| object["a"] == 1));
        for wrong in ["", "[1]", "{\"a", "{\"a\": x}"] {
            assert_eq!(arguments(wrong), Err(format!("{{\"name\": \"f\", \"arguments\": {wrong}")));
        }
    }
}
