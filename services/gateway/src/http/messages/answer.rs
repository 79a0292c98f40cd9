//! The message that is the answer.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::chat::{ChatFinish, ChatMessage};

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

    pub(super) fn message(
        &self,
        content: Vec<Value>,
        stop_reason: Option<&str>,
        output_tokens: u32,
    ) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null,
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
        if !message.content.is_empty() {
            content.push(json!({"type": "text", "text": message.content}));
        }
        for call in message.tool_calls {
            // One that a limit has cut is no JSON.
            let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
        }
        self.message(content, Some(stop_reason(message.reason)), message.completion_tokens)
    }
}

/// Which stop string was found is not known here, so none is named.
pub(super) fn stop_reason(reason: ChatFinish) -> &'static str {
    match reason {
        ChatFinish::Stop => "end_turn",
        ChatFinish::Length => "max_tokens",
        ChatFinish::ToolCalls => "tool_use",
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
            content: "a".into(),
            reasoning: "b".into(),
            tool_calls: vec![call(r#"{"x":1}"#), call(r#"{"x"#)],
            tokens: vec![],
            reason: ChatFinish::ToolCalls,
            completion_tokens: 3,
            reasoning_tokens: 1,
        };
        let told = Envelope::new("m", 2).whole(message);
        let expected = json!([
            {"type": "thinking", "thinking": "b", "signature": ""},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        ]);
        assert_eq!(told["content"], expected);
        assert!(misfits("/v1/messages", Some("200"), &told).is_empty());
        assert_eq!((&told["stop_reason"], &told["usage"]["output_tokens"]), (&json!("tool_use"), &json!(3)));
    }
}
