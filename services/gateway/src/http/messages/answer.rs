//! The message that is the answer.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::chat::{self, ChatFinish, ChatMessage, MessagePart};

/// What a message has from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    id: String,
    model: String,
    input_tokens: u64,
}

impl Envelope {
    pub(super) fn new(model: &str, input_tokens: u64) -> Self {
        Self { id: format!("msg_{}", Uuid::new_v4().simple()), model: model.into(), input_tokens }
    }

    /// A message that goes on.
    pub(super) fn message(&self, content: Vec<Value>, output_tokens: u32) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": null, "stop_sequence": null,
            "usage": self.usage(output_tokens),
        })
    }

    pub(super) fn usage(&self, output_tokens: u32) -> Value {
        json!({
            "input_tokens": self.input_tokens, "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        })
    }

    /// A message that is whole.
    pub(super) fn whole(&self, message: ChatMessage) -> Value {
        let mut content = vec![];
        if !message.reasoning.is_empty() {
            // It is not signed: whoever sends it back is believed.
            content.push(json!({"type": "thinking", "thinking": message.reasoning, "signature": ""}));
        }
        for part in message.parts() {
            let call = match part {
                MessagePart::Text(text) => {
                    content.push(json!({"type": "text", "text": text}));
                    continue;
                }
                MessagePart::Call(call) => call,
            };
            content.push(match chat::arguments_of(&call) {
                Ok(input) => json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}),
                Err(text) => json!({"type": "text", "text": text}),
            });
        }
        let mut told = self.message(content, message.completion_tokens);
        let (reason, sequence) = stop(message.reason, message.stop.as_deref());
        (told["stop_reason"], told["stop_sequence"]) = (reason.into(), sequence.into());
        told
    }
}

/// Why a message ended, and the stop string where that is why.
pub(super) fn stop(reason: ChatFinish, sequence: Option<&str>) -> (&'static str, Option<&str>) {
    match (reason, sequence) {
        (ChatFinish::Stop, Some(_)) => ("stop_sequence", sequence),
        (ChatFinish::Stop, None) => ("end_turn", None),
        (ChatFinish::Length, _) => ("max_tokens", None),
        (ChatFinish::ToolCalls, _) => ("tool_use", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chat::ToolCall, http::openapi::misfits};

    #[test]
    fn a_whole_message_has_its_blocks_in_order() {
        let call = |arguments: &str| ToolCall {
            id: "toolu_1".into(),
            name: "f".into(),
            arguments: arguments.into(),
        };
        let message = ChatMessage {
            content: "ac".into(),
            reasoning: "b".into(),
            tool_calls: vec![call(r#"{"x":1}"#), call(r#"{"x"#)],
            call_places: vec![1, 2],
            tokens: vec![],
            reason: ChatFinish::Stop,
            stop: None,
            completion_tokens: 3,
            reasoning_tokens: 1,
        };
        let told = Envelope::new("m", 2).whole(message);
        let expected = json!([
            {"type": "thinking", "thinking": "b", "signature": ""},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
            {"type": "text", "text": "c"},
            {"type": "text", "text": "{\"name\": \"f\", \"arguments\": {\"x"},
        ]);
        assert_eq!(told["content"], expected);
        assert!(misfits("/v1/messages", Some("200"), &told).is_empty());
        assert_eq!((&told["stop_reason"], &told["usage"]["output_tokens"]), (&json!("end_turn"), &json!(3)));
    }

    #[test]
    fn the_stop_string_is_named_where_it_is_why_the_message_ended() {
        assert_eq!(stop(ChatFinish::Stop, Some("END")), ("stop_sequence", Some("END")));
        assert_eq!(stop(ChatFinish::Stop, None), ("end_turn", None));
        assert_eq!(stop(ChatFinish::Length, None), ("max_tokens", None));
        assert_eq!(stop(ChatFinish::ToolCalls, Some("END")), ("tool_use", None));
    }
}
