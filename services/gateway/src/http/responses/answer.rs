//! The answer object and its items.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    chat::{ChatFinish, ChatMessage, MessagePart},
    http::blocks::Block,
};

/// What every object of one answer has.
#[derive(Clone, Debug)]
pub(super) struct Envelope(Map<String, Value>);

/// Why there is no more, where that is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State<'a> {
    InProgress,
    Completed,
    Incomplete,
    Failed {
        /// One of those that OpenAI's API has.
        code: &'a str,
        message: &'a str,
    },
}

impl Envelope {
    /// `echo` are the fields of the request that the answer tells again.
    pub(super) fn new(model: &str, echo: Map<String, Value>) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut fields = Map::new();
        fields.insert("id".into(), id("resp").into());
        fields.insert("object".into(), "response".into());
        fields.insert("created_at".into(), now.as_secs().into());
        fields.insert("model".into(), model.into());
        fields.extend(echo);
        Self(fields)
    }

    /// The answer as it is by now.
    pub(super) fn response(&self, state: State<'_>, output: Vec<Value>, usage: Option<Usage>) -> Value {
        let mut object = self.0.clone();
        let (status, details, error) = match state {
            State::InProgress => ("in_progress", Value::Null, Value::Null),
            State::Completed => ("completed", Value::Null, Value::Null),
            State::Incomplete => ("incomplete", json!({"reason": "max_output_tokens"}), Value::Null),
            State::Failed { code, message } => {
                ("failed", Value::Null, json!({"code": code, "message": message}))
            }
        };
        object.insert("status".into(), status.into());
        object.insert("incomplete_details".into(), details);
        object.insert("error".into(), error);
        object.insert("output".into(), output.into());
        object.insert("usage".into(), usage.map_or(Value::Null, Usage::json));
        object.into()
    }
}

/// One item of the output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) block: Block,
    /// Text, thinking, or a call's arguments.
    pub(super) text: String,
}

impl Item {
    pub(super) fn new(block: Block, text: String) -> Self {
        let prefix = match block {
            Block::Text => "msg",
            Block::Thinking => "rs",
            Block::Call { .. } => "fc",
        };
        Self { id: id(prefix), block, text }
    }

    /// `status` is `in_progress` at its beginning, and then it has no content.
    pub(super) fn json(&self, status: &str) -> Value {
        let content = match self.part() {
            Some(part) if status != "in_progress" => json!([part]),
            _ => json!([]),
        };
        match &self.block {
            Block::Text => json!({
                "id": self.id, "type": "message", "role": "assistant", "status": status, "content": content,
            }),
            Block::Thinking => json!({
                "id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content,
            }),
            Block::Call { id, name } => json!({
                "id": self.id, "type": "function_call", "status": status,
                "call_id": id, "name": name, "arguments": self.text,
            }),
        }
    }

    /// Its only part; a call has none.
    pub(super) fn part(&self) -> Option<Value> {
        match &self.block {
            Block::Text => Some(json!({
                "type": "output_text", "text": self.text, "annotations": [], "logprobs": [],
            })),
            Block::Thinking => Some(json!({"type": "reasoning_text", "text": self.text})),
            Block::Call { .. } => None,
        }
    }
}

/// Tokens that a request took and gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    input: u64,
    output: u64,
    reasoning: u64,
}

impl Usage {
    pub(super) fn of(prompt: u64, completion: u32, reasoning: u32) -> Self {
        Self { input: prompt, output: completion.into(), reasoning: reasoning.into() }
    }

    fn json(self) -> Value {
        json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        })
    }
}

/// A message that is whole.
pub(super) fn whole(message: ChatMessage, envelope: &Envelope, usage: Usage) -> Value {
    let parts = message.parts();
    let mut items = vec![];
    if !message.reasoning.is_empty() {
        items.push(Item::new(Block::Thinking, message.reasoning));
    }
    // An answer without anything has an empty message.
    if parts.is_empty() {
        items.push(Item::new(Block::Text, String::new()));
    }
    items.extend(parts.into_iter().map(|part| match part {
        MessagePart::Text(text) => Item::new(Block::Text, text),
        MessagePart::Call(call) => Item::new(Block::Call { id: call.id, name: call.name }, call.arguments),
    }));
    let cut = message.reason == ChatFinish::Length;
    let last = items.len().saturating_sub(1);
    let status = |place| if cut && place == last { "incomplete" } else { "completed" };
    let output = items.iter().enumerate().map(|(place, item)| item.json(status(place))).collect();
    let state = if cut { State::Incomplete } else { State::Completed };
    envelope.response(state, output, Some(usage))
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    #[test]
    fn a_message_that_is_cut_says_so_in_its_last_item() {
        let call = ToolCall { id: "call_1".into(), name: "f".into(), arguments: "{}".into() };
        let message = ChatMessage {
            content: "a".into(),
            reasoning: "b".into(),
            tool_calls: vec![call],
            call_places: vec![1],
            tokens: vec![],
            reason: ChatFinish::Length,
            stop: None,
            completion_tokens: 3,
            reasoning_tokens: 1,
        };
        let envelope = Envelope::new("m", Map::new());
        let answer = whole(message, &envelope, Usage::of(2, 3, 1));
        let told: Vec<_> = answer["output"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|item| (item["type"].as_str(), item["status"].as_str()))
            .collect();
        let expected =
            [("reasoning", "completed"), ("message", "completed"), ("function_call", "incomplete")];
        assert_eq!(told, expected.map(|(kind, status)| (Some(kind), Some(status))));
        assert_eq!(answer["output"][2]["call_id"], "call_1");
        assert_eq!(answer["status"], "incomplete");
        assert_eq!(answer["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(answer["usage"]["total_tokens"], 5);
    }

    #[test]
    fn text_behind_a_call_is_an_item_behind_it() {
        let call = ToolCall { id: "call_1".into(), name: "f".into(), arguments: "{}".into() };
        let message = ChatMessage {
            content: "ab".into(),
            reasoning: String::new(),
            tool_calls: vec![call],
            call_places: vec![1],
            tokens: vec![],
            reason: ChatFinish::ToolCalls,
            stop: None,
            completion_tokens: 3,
            reasoning_tokens: 0,
        };
        let answer = whole(message, &Envelope::new("m", Map::new()), Usage::of(2, 3, 0));
        let kinds = [0, 1, 2].map(|place| answer["output"][place]["type"].clone());
        assert_eq!(kinds, ["message", "function_call", "message"].map(Value::from));
        assert_eq!(answer["output"][2]["content"][0]["text"], "b");
    }
}
