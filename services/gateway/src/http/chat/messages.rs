//! The messages of a conversation, as OpenAI's clients send them.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    http::{
        conversation::check_count, error::ApiError, fields::Fields, members::Members, params::is_empty,
        short::short,
    },
    text::{Message, ToolCall},
};

/// What clients send back of an answer, or say beside a text, and no template looks at.
const BESIDE_TEXT: [&str; 4] = ["id", "annotations", "refusal", "reasoning_details"];
/// What is part of what a message says.
const PARTS_OF_IT: [&str; 4] = ["tool_calls", "function_call", "tool_call_id", "audio"];

/// Either a plain text or a list of parts, of which only texts are served.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// The messages, and the names of what in them nobody knows.
pub(in crate::http) fn take(fields: &mut Fields) -> Result<(Vec<Message>, Vec<String>), ApiError> {
    let given: Vec<Map<String, Value>> = fields
        .take("messages")?
        .ok_or_else(|| ApiError::invalid("messages", "missing: give at least one message"))?;
    if given.is_empty() {
        return Err(ApiError::invalid("messages", "must have at least one message"));
    }
    check_count("messages", given.len())?;
    let (mut messages, mut unknown) = (vec![], vec![]);
    for (place, message) in given.into_iter().enumerate() {
        let message = Members::of(format!("messages[{place}]"), Value::Object(message))?;
        messages.push(read(message, &mut unknown)?);
    }
    Ok((messages, unknown))
}

fn read(mut given: Members, unknown: &mut Vec<String>) -> Result<Message, ApiError> {
    let role = role(&mut given)?;
    let mut message = Message { role: role.into(), ..Message::default() };
    if role == "assistant" {
        message.tool_calls = calls(&mut given)?;
        let thought = given.value("reasoning_content").or(given.value("reasoning"));
        message.reasoning_content = thought.and_then(|thought| thought.as_str().map(str::to_owned));
    }
    if role == "tool" {
        message.tool_call_id = given.text("tool_call_id")?;
    }
    message.content = content(&mut given, !message.tool_calls.is_empty())?;
    message.name = given.text("name")?;
    // What is empty says nothing.
    let said = given.clone().rest().into_iter().filter(|(_, value)| !value.is_null() && !is_empty(value));
    for (field, _) in said {
        if PARTS_OF_IT.contains(&field.as_str()) {
            return Err(given.wrong(&field, "not supported here, leave it out"));
        }
        if !BESIDE_TEXT.contains(&field.as_str()) {
            unknown.push(format!("messages[].{field}"));
        }
    }
    Ok(message)
}

fn role(given: &mut Members) -> Result<&'static str, ApiError> {
    let role = given.value("role").unwrap_or_default();
    match role.as_str() {
        Some("system" | "developer") => Ok("system"),
        Some("user") => Ok("user"),
        Some("assistant") => Ok("assistant"),
        Some("tool" | "function") => Ok("tool"),
        _ => {
            let what = format!("must be system, developer, user, assistant or tool, got {}", short(&role));
            Err(given.wrong("role", what))
        }
    }
}

/// A message that calls functions needs no text.
fn content(given: &mut Members, calls: bool) -> Result<String, ApiError> {
    let content = match given.value("content") {
        None if calls => return Ok(String::new()),
        content => content.unwrap_or_default(),
    };
    match Content::deserialize(content) {
        Ok(Content::Text(text)) => Ok(text),
        Ok(Content::Parts(parts)) => join(parts).map_err(|what| given.wrong("content", what)),
        Err(_) => Err(given.wrong("content", "must be a text, or a list of text parts")),
    }
}

/// What the assistant called, also in the form of before there were tools.
fn calls(given: &mut Members) -> Result<Vec<ToolCall>, ApiError> {
    let mut calls = vec![];
    for mut call in given.objects("tool_calls")? {
        let id = call.text("id")?.unwrap_or_default();
        if let Some(kind) = call.text("type")?.filter(|kind| kind != "function") {
            return Err(call.wrong("type", format!("must be function, got {:?}", short(kind))));
        }
        calls.push(called(id, call.object("function")?)?);
    }
    match given.value("function_call") {
        None => {}
        Some(call) => calls.push(called(String::new(), Members::of(given.path("function_call"), call)?)?),
    }
    Ok(calls)
}

fn called(id: String, mut function: Members) -> Result<ToolCall, ApiError> {
    let name = function.needed_text("name")?;
    Ok(ToolCall { id, name, arguments: function.needed_text("arguments")? })
}

fn join(parts: Vec<Part>) -> Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match (part.kind.as_str(), part.text) {
            ("text", Some(part)) => text += &part,
            (kind, _) => return Err(format!("parts must be texts, got {:?}", short(kind))),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: Value) -> Result<(Vec<Message>, Vec<String>), ApiError> {
        take(&mut Fields::parse(json!({"messages": messages}).to_string().as_bytes())?)
    }

    #[test]
    fn messages_are_taken_in_all_the_forms_that_clients_send() {
        let sent = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": [{"a": 1}],
             "id": "msg_1", "reasoning_content": "hm", "audio": null, "odd": 1, "even": null},
        ]);
        let (read, unknown) = read(sent).expect("taken");
        let pairs: Vec<_> = read.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(pairs, [("system", "be brief"), ("user", "ab"), ("assistant", "c")]);
        assert_eq!(read[1].name.as_deref(), Some("Ann"));
        assert_eq!(read[2].reasoning_content.as_deref(), Some("hm"));
        assert_eq!(unknown, ["messages[].odd"]);
    }

    #[test]
    fn calls_and_what_came_of_them_are_part_of_the_conversation() {
        let function = json!({"name": "f", "arguments": "{}"});
        let call = json!({"id": "c1", "type": "function", "function": function});
        let (read, unknown) = read(json!([
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "1", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "function_call": function},
            {"role": "function", "content": [{"type": "text", "text": "2"}], "name": "f"},
        ]))
        .expect("taken");
        let call = |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: "{}".into() };
        assert_eq!((&read[0].tool_calls, read[0].content.as_str()), (&vec![call("c1")], ""));
        assert_eq!((read[1].role.as_str(), read[1].tool_call_id.as_deref()), ("tool", Some("c1")));
        assert_eq!(read[2].tool_calls, [call("")]);
        assert_eq!((read[3].role.as_str(), read[3].content.as_str()), ("tool", "2"));
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn messages_that_cannot_be_served_are_refused_by_place() {
        let called = |call: Value| json!([{"role": "assistant", "content": "x", "tool_calls": [call]}]);
        for (sent, param) in [
            (json!([]), "messages"),
            (json!("hi"), "messages"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user", "content": "x"}, {"role": "user"}]), "messages[1].content"),
            (json!([{"role": "assistant", "content": null}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content"),
            (json!([{"role": "user", "content": "x", "name": 1}]), "messages[0].name"),
            (json!([{"role": "assistant", "content": "x", "audio": {"id": "a"}}]), "messages[0].audio"),
            (json!([{"role": "user", "content": "x", "tool_calls": [{}]}]), "messages[0].tool_calls"),
            (called(json!({})), "messages[0].tool_calls[0].function"),
            (called(json!({"type": "custom"})), "messages[0].tool_calls[0].type"),
            (called(json!({"function": {}})), "messages[0].tool_calls[0].function.name"),
            (
                called(json!({"function": {"name": "f", "arguments": {}}})),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            let error = read(sent).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param);
        }
    }
}
