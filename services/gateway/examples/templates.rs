//! Conversations as the gateway renders them by any chat template: what `tests/python/templates.py` compares.
//!
//! Reads a line `{"template", "begin", "end", "messages", "variables", "next"}` for each, and writes `{"text"}` or
//! `{"error"}`. Messages are in OpenAI's form, with a text as content.

use std::{error::Error, io};

use gateway::text::{Chat, ChatTemplate, Message, Next, TemplateError, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Asked {
    template: String,
    begin: String,
    end: String,
    messages: Vec<Said>,
    variables: Map<String, Value>,
    next: Goes,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
    name: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Call>,
    tool_call_id: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Goes {
    NewMessage,
    MoreOfTheLast,
    Anything,
}

impl From<Said> for Message {
    fn from(said: Said) -> Self {
        let Said { role, content, name, tool_calls, tool_call_id, reasoning_content } = said;
        let calls = tool_calls
            .into_iter()
            .map(|Call { id, function: Function { name, arguments } }| ToolCall { id, name, arguments });
        Self { role, content, name, tool_calls: calls.collect(), tool_call_id, reasoning_content }
    }
}

fn rendered(asked: Asked) -> Result<String, TemplateError> {
    let next = match asked.next {
        Goes::NewMessage => Next::NewMessage,
        Goes::MoreOfTheLast => Next::MoreOfTheLast,
        Goes::Anything => Next::Anything,
    };
    let messages = asked.messages.into_iter().map(Message::from).collect();
    let template = ChatTemplate::new(&asked.template, &asked.begin, &asked.end)?;
    template.render(&Chat { messages, variables: asked.variables, next })
}

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lines() {
        let answer = match rendered(serde_json::from_str(&line?)?) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
    }
    Ok(())
}
