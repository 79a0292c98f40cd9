//! What is asked: blocks to messages, and the rest to what the core knows.

use serde_json::{Map, Value};
use swarm_types::Grammar;

use super::known;
use crate::{
    chat::{ChatRequest, Tool, ToolCall, ToolChoice},
    clients::Principal,
    http::{
        conversation::check_count, error::ApiError, fields::Fields, functions, grammar, ignored::Ignored,
        params, short::short,
    },
    text::{Chat, Message, Next},
};

/// Fields that change nothing in what is answered here.
const IGNORED: [&str; 5] = ["metadata", "service_tier", "cache_control", "inference_geo", "speed"];

/// What the text must be like.
pub(super) const SCHEMA: &str = "output_config.format.schema";

/// What becomes of the conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Answer,
    /// Its tokens are counted, so nobody says how many more there may be.
    Count,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: ChatRequest,
    pub(super) stream: bool,
}

impl Asked {
    /// All fields but the model's name.
    pub(super) fn read(
        mut fields: Fields,
        principal: &Principal,
        purpose: Purpose,
    ) -> Result<(Self, Ignored), ApiError> {
        let max_tokens = match (fields.take_count("max_tokens")?, purpose) {
            (None, Purpose::Answer) => {
                return Err(ApiError::invalid("max_tokens", "missing: it is required"));
            }
            (Some(0), _) => return Err(ApiError::invalid("max_tokens", "must be at least 1")),
            (limit, _) => limit,
        };
        let stream = fields.take("stream")?.unwrap_or(false);
        let mut messages = system(&mut fields)?;
        messages.extend(conversation(&mut fields)?);
        let (tools, tool_choice, parallel_tool_calls) = tools(&mut fields)?;
        let (grammar, variables) = output(&mut fields)?;
        let request = ChatRequest {
            principal: principal.clone(),
            // A last message of the model goes on.
            chat: Chat { messages, variables, next: Next::Natural },
            tools,
            tool_choice,
            parallel_tool_calls,
            grammar,
            sampling: params::sampling(&mut fields)?,
            max_tokens,
            stop: stops(&mut fields)?,
            stop_tokens: vec![],
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            shows_control: false,
            choices: 1,
        };
        fields.refuse_unless("mcp_servers", params::is_empty)?;
        fields.refuse_unless("container", |_| false)?;
        IGNORED.iter().for_each(|name| fields.ignore(name));
        Ok((Self { request, stream }, fields.finish()))
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let mut stops: Vec<String> = fields.take("stop_sequences")?.unwrap_or_default();
    // An empty one is none, as for other servers.
    stops.retain(|stop| !stop.is_empty());
    Ok(stops)
}

/// How the text must be, and how much the model is to think.
fn output(fields: &mut Fields) -> Result<(Option<Grammar>, Map<String, Value>), ApiError> {
    let mut variables = Map::new();
    let mut config = known::take(fields, "output_config", &["effort", "format"])?;
    match config.remove("effort").unwrap_or_default() {
        Value::Null => {}
        Value::String(effort) => drop(variables.insert("reasoning_effort".into(), effort.into())),
        _ => return Err(ApiError::invalid("output_config.effort", "must be a text")),
    }
    let thinking = known::take(fields, "thinking", &["type", "budget_tokens"])?;
    match thinking.get("type").map(Value::as_str) {
        None => {}
        Some(Some("enabled" | "adaptive")) => drop(variables.insert("enable_thinking".into(), true.into())),
        Some(Some("disabled")) => drop(variables.insert("enable_thinking".into(), false.into())),
        Some(_) => {
            return Err(ApiError::invalid("thinking.type", "must be enabled, adaptive or disabled"));
        }
    }
    let format = config.remove("format").unwrap_or_default();
    fields.leave_others("output_config.format", &format, &["type", "schema"]);
    let grammar = match format["type"].as_str() {
        None if format.is_null() => None,
        Some("json_schema") => Some(grammar::schema(SCHEMA, format["schema"].clone())?),
        _ => return Err(ApiError::invalid("output_config.format.type", "must be json_schema")),
    };
    Ok((grammar, variables))
}

/// The functions, whether they must be called, and whether several may be at once.
fn tools(fields: &mut Fields) -> Result<(Vec<Tool>, ToolChoice, bool), ApiError> {
    let tools = functions::each(fields, ("tools", &known::TOOL), ".name", |mut tool| {
        match tool.text("type")?.as_deref() {
            None | Some("custom") => functions::function(tool, "input_schema"),
            Some(kind) => {
                let what = format!("only tools with a schema of their own are served, got {:?}", short(kind));
                Err(ApiError::unsupported(&tool.path("type"), what))
            }
        }
    })?;
    let choice = known::take(fields, "tool_choice", &["type", "name", "disable_parallel_tool_use"])?;
    let wrong = |name: &str, what: &str| ApiError::invalid(&format!("tool_choice.{name}"), what);
    let alone = match choice.get("disable_parallel_tool_use") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(alone)) => *alone,
        Some(_) => return Err(wrong("disable_parallel_tool_use", "must be true or false")),
    };
    let read = match choice.get("type").map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("any") if tools.is_empty() => return Err(wrong("type", "there are no tools")),
        Some("any") => ToolChoice::Required,
        Some("tool") => {
            let name = choice.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| wrong("name", "must be a text"))?;
            functions::check_choice(name, &tools)?;
            ToolChoice::Function(name.into())
        }
        Some(_) => return Err(wrong("type", "must be auto, any, tool or none")),
    };
    Ok((tools, read, !alone))
}

fn system(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let Some(system) = fields.take_value("system") else { return Ok(vec![]) };
    known::leave_blocks(fields, "system", &system);
    let content = texts("system", &system)?;
    let message = Message { role: "system".into(), content, ..Message::default() };
    Ok(if message.content.is_empty() { vec![] } else { vec![message] })
}

/// A text, or blocks that are all text, one below the other.
fn texts(field: &str, content: &Value) -> Result<String, ApiError> {
    let blocks = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(blocks) => blocks,
        _ => return Err(ApiError::invalid(field, "must be a text, or a list of text blocks")),
    };
    let mut lines = vec![];
    for (place, block) in blocks.iter().enumerate() {
        let place = format!("{field}[{place}]");
        match block["type"].as_str() {
            Some("text") => lines.push(text(&place, block, "text")?),
            kind => return Err(not_served(&place, kind)),
        }
    }
    Ok(lines.join("\n"))
}

fn text(place: &str, block: &Value, name: &str) -> Result<String, ApiError> {
    let text = block[name].as_str().map(str::to_owned);
    text.ok_or_else(|| ApiError::invalid(&format!("{place}.{name}"), "must be a text"))
}

fn not_served(place: &str, kind: Option<&str>) -> ApiError {
    let what = format!("{:?} is not served here", short(kind.unwrap_or_default()));
    ApiError::unsupported(&format!("{place}.type"), what)
}

fn conversation(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let given: Vec<Value> = fields
        .take("messages")?
        .ok_or_else(|| ApiError::invalid("messages", "missing: give at least one message"))?;
    if given.is_empty() {
        return Err(ApiError::invalid("messages", "must have at least one message"));
    }
    check_count("messages", given.len())?;
    given.iter().for_each(|message| known::leave_message(fields, message));
    let mut messages = vec![];
    for (place, message) in given.iter().enumerate() {
        let place = format!("messages[{place}]");
        if !message.is_object() {
            return Err(ApiError::invalid(&place, "must be an object"));
        }
        let content = message.get("content").unwrap_or(&Value::Null);
        let field = format!("{place}.content");
        match message.get("role").and_then(Value::as_str) {
            Some("user") => user(&field, content, &mut messages)?,
            Some("assistant") => messages.push(assistant(&field, content)?),
            Some("system") => {
                let (role, content) = ("system".into(), texts(&field, content)?);
                messages.push(Message { role, content, ..Message::default() });
            }
            _ => {
                let what = "must be user, assistant or system";
                return Err(ApiError::invalid(&format!("{place}.role"), what));
            }
        }
    }
    // Results are messages of their own.
    check_count("messages", messages.len())?;
    Ok(messages)
}

/// What the user says, and the results of calls, each a message of its own, in order.
fn user(field: &str, content: &Value, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let said = |lines: &mut Vec<String>| {
        let content = std::mem::take(lines).join("\n");
        Message { role: "user".into(), content, ..Message::default() }
    };
    let Value::Array(blocks) = content else {
        messages.push(said(&mut vec![texts(field, content)?]));
        return Ok(());
    };
    let mut lines = vec![];
    for (place, block) in blocks.iter().enumerate() {
        let place = format!("{field}[{place}]");
        match block["type"].as_str() {
            Some("text") => lines.push(text(&place, block, "text")?),
            Some("tool_result") => {
                if !lines.is_empty() {
                    messages.push(said(&mut lines));
                }
                let content = match &block["content"] {
                    Value::Null => String::new(),
                    content => texts(&format!("{place}.content"), content)?,
                };
                let (role, tool_call_id) = ("tool".into(), Some(text(&place, block, "tool_use_id")?));
                messages.push(Message { role, content, tool_call_id, ..Message::default() });
            }
            kind => return Err(not_served(&place, kind)),
        }
    }
    if !lines.is_empty() || blocks.is_empty() {
        messages.push(said(&mut lines));
    }
    Ok(())
}

fn assistant(field: &str, content: &Value) -> Result<Message, ApiError> {
    let mut message = Message { role: "assistant".into(), ..Message::default() };
    let Value::Array(blocks) = content else {
        return Ok(Message { content: texts(field, content)?, ..message });
    };
    let (mut lines, mut thoughts) = (vec![], vec![]);
    for (place, block) in blocks.iter().enumerate() {
        let place = format!("{field}[{place}]");
        match block["type"].as_str() {
            Some("text") => lines.push(text(&place, block, "text")?),
            Some("thinking") => thoughts.push(text(&place, block, "thinking")?),
            // Only who made it can read it.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let input = &block["input"];
                if !input.is_object() {
                    return Err(ApiError::invalid(&format!("{place}.input"), "must be an object"));
                }
                let (id, name) = (text(&place, block, "id")?, text(&place, block, "name")?);
                message.tool_calls.push(ToolCall { id, name, arguments: input.to_string() });
            }
            kind => return Err(not_served(&place, kind)),
        }
    }
    message.content = lines.join("\n");
    message.reasoning_content = (!thoughts.is_empty()).then(|| thoughts.join("\n"));
    Ok(message)
}

#[cfg(test)]
mod tests;
