//! What a conversation is made of, as the templates of models know it.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or `tool`: the result of a call.
    pub role: String,
    /// Plain text. Empty where there are calls alone: templates put it together with other texts, which fails with
    /// nothing at all.
    pub content: String,
    /// Who of several says it, or which function's result it is; templates may make use of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the assistant called. Templates ask whether it is there, so it is not when it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of which call this is the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What the assistant thought before it spoke. Templates show it or leave it out, as the model was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// A call of a function by the model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ToolCall {
    /// By which its result is told.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as templates want them: written out by the template itself, they must not be a text that is
    /// quoted once more. What is no object stays the text that it is.
    #[must_use]
    pub fn parsed_arguments(&self) -> Value {
        match serde_json::from_str::<Map<String, Value>>(&self.arguments) {
            Ok(arguments) => Value::Object(arguments),
            Err(_) if self.arguments.trim().is_empty() => json!({}),
            Err(_) => Value::String(self.arguments.clone()),
        }
    }
}

/// OpenAI's form, which templates are written for, but with the arguments parsed.
impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", "function")?;
        let function = json!({"name": self.name, "arguments": self.parsed_arguments()});
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_get_calls_in_openai_form_with_their_arguments_parsed() {
        let call =
            |arguments: &str| ToolCall { id: "c".into(), name: "f".into(), arguments: arguments.into() };
        let message = Message {
            role: "assistant".into(),
            tool_calls: vec![call("{\"b\": 1, \"a\": 2}"), call(""), call("oops")],
            ..Message::default()
        };
        let written = serde_json::to_value(&message).expect("JSON");
        let function = |place: usize| written["tool_calls"][place]["function"]["arguments"].clone();
        assert_eq!(function(0), json!({"b": 1, "a": 2}));
        assert_eq!(function(1), json!({}));
        assert_eq!(function(2), json!("oops"));
        assert_eq!(written["tool_calls"][0]["type"], "function");
        let plain = serde_json::to_value(Message::default()).expect("JSON");
        assert_eq!(plain, json!({"role": "", "content": ""}));
    }
}
