//! What a conversation is made of, as the templates of models know it.

use serde_json::{Map, Value, json};

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// `system`, `user`, `assistant`, or `tool`: the result of a call.
    pub role: String,
    /// Plain text. Empty where there are calls alone: templates put it together with other texts, which fails with
    /// nothing at all.
    pub content: String,
    /// Who of several says it, or which function's result it is; templates may make use of it.
    pub name: Option<String>,
    /// What the assistant called. Templates ask whether it is there, so it is not when it is empty.
    pub tool_calls: Vec<ToolCall>,
    /// Of which call this is the result.
    pub tool_call_id: Option<String>,
    /// What the assistant thought before it spoke. Templates show it or leave it out, as the model was trained.
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

/// What some templates want otherwise of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    /// What a message says is a list of parts.
    pub(super) parts: bool,
    /// Arguments of calls are a text.
    pub(super) arguments_as_text: bool,
}

impl Message {
    /// As templates know it.
    pub(super) fn json(&self, form: Form) -> Value {
        let content = match form.parts {
            true => json!([{"type": "text", "text": self.content}]),
            false => self.content.as_str().into(),
        };
        let mut message = json!({"role": self.role, "content": content});
        if let Some(name) = &self.name {
            message["name"] = name.as_str().into();
        }
        if !self.tool_calls.is_empty() {
            message["tool_calls"] = self.tool_calls.iter().map(|call| call.json(form)).collect();
        }
        if let Some(id) = &self.tool_call_id {
            message["tool_call_id"] = id.as_str().into();
        }
        if let Some(thought) = &self.reasoning_content {
            message["reasoning_content"] = thought.as_str().into();
            // By the name that gpt-oss has for it.
            message["thinking"] = thought.as_str().into();
        }
        message
    }
}

impl ToolCall {
    /// OpenAI's form, but with the arguments parsed where nothing else is wanted.
    fn json(&self, form: Form) -> Value {
        let arguments = match form.arguments_as_text {
            true => self.arguments.as_str().into(),
            false => self.parsed_arguments(),
        };
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}})
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
        let written = message.json(Form::default());
        let function = |place: usize| written["tool_calls"][place]["function"]["arguments"].clone();
        assert_eq!(function(0), json!({"b": 1, "a": 2}));
        assert_eq!(function(1), json!({}));
        assert_eq!(function(2), json!("oops"));
        assert_eq!(written["tool_calls"][0]["type"], "function");
        assert_eq!(Message::default().json(Form::default()), json!({"role": "", "content": ""}));
    }

    #[test]
    fn templates_get_what_they_want_otherwise() {
        let calls = vec![ToolCall { id: "c".into(), name: "f".into(), arguments: "{ }".into() }];
        let thought = Some("hm".to_owned());
        let message = Message {
            content: "x".into(),
            tool_calls: calls,
            reasoning_content: thought,
            ..Message::default()
        };
        let written = message.json(Form { parts: true, arguments_as_text: true });
        assert_eq!(written["content"], json!([{"type": "text", "text": "x"}]));
        assert_eq!(written["tool_calls"][0]["function"]["arguments"], "{ }");
        assert_eq!((&written["thinking"], &written["reasoning_content"]), (&json!("hm"), &json!("hm")));
    }
}
