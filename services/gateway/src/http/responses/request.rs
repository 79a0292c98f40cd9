//! What is asked: input items to messages, and the rest to what the core knows.

use serde_json::{Map, Value, json};
use swarm_types::Grammar;

use super::known;
use crate::{
    chat::{ChatRequest, Tool, ToolCall, ToolChoice},
    clients::Principal,
    http::{
        conversation::{check_count, think},
        error::ApiError,
        fields::Fields,
        functions, grammar,
        ignored::Ignored,
        params,
        short::short,
    },
    text::{Chat, Message, Next},
};

/// What would need something that was kept.
const KEEPS_NOTHING: &str = "this server keeps nothing: send the whole conversation as input";
/// Fields that change nothing in what is answered here.
const IGNORED: [&str; 8] = [
    "store",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "service_tier",
    // It counts calls of tools that run on the server, and there are none.
    "max_tool_calls",
    "safety_identifier",
];

/// What the text must be like.
pub(super) const SCHEMA: &str = "text.format.schema";

/// What was asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: ChatRequest,
    pub(super) stream: bool,
    /// What the answer tells again.
    pub(super) echo: Map<String, Value>,
}

impl Asked {
    /// All fields but the model's name.
    pub(super) fn read(mut fields: Fields, principal: &Principal) -> Result<(Self, Ignored), ApiError> {
        refuse_kept(&mut fields)?;
        let mut echo = Echo::default();
        let stream = fields.take("stream")?.unwrap_or(false);
        let mut messages = vec![];
        if let Some(instructions) = echo.take::<String>(&mut fields, "instructions")? {
            messages.push(Message { role: "system".into(), content: instructions, ..Message::default() });
        }
        messages.extend(input(&mut fields)?);
        let (tools, tool_choice) = tools(&mut fields, &mut echo)?;
        let parallel_tool_calls = fields.take("parallel_tool_calls")?.unwrap_or(true);
        let sampling = params::sampling(&mut fields)?;
        let request = ChatRequest {
            principal: principal.clone(),
            chat: Chat { messages, variables: variables(&mut fields, &mut echo)?, next: Next::NewMessage },
            tools,
            tool_choice,
            parallel_tool_calls,
            grammar: format(&mut fields, &mut echo)?,
            max_tokens: max_tokens(&mut fields)?,
            sampling,
            stop: vec![],
            stop_tokens: vec![],
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            shows_control: false,
            choices: 1,
        };
        refuse_unserved(&mut fields)?;
        let metadata = fields.take::<Map<String, Value>>("metadata")?.unwrap_or_default();
        echo.tell("user", fields.take::<String>("user")?.into());
        echo.tell("metadata", metadata.into());
        echo.tell("parallel_tool_calls", parallel_tool_calls.into());
        echo.tell("temperature", shortest(request.sampling.temperature));
        echo.tell("top_p", shortest(request.sampling.top_p));
        echo.tell("max_output_tokens", request.max_tokens.into());
        IGNORED.iter().for_each(|name| fields.ignore(name));
        Ok((Self { request, stream, echo: echo.finish() }, fields.finish()))
    }
}

/// As it was written: 0.7 is 0.699999988 in 64 bits.
fn shortest(number: f32) -> Value {
    number.to_string().parse::<f64>().unwrap_or_default().into()
}

/// Fields of the request that the answer tells again.
#[derive(Default)]
struct Echo(Map<String, Value>);

impl Echo {
    fn take<T: serde::de::DeserializeOwned + Clone + Into<Value>>(
        &mut self,
        fields: &mut Fields,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let value = fields.take::<T>(name)?;
        self.tell(name, value.clone().map_or(Value::Null, Into::into));
        Ok(value)
    }

    fn tell(&mut self, name: &str, value: Value) {
        self.0.insert(name.into(), value);
    }

    /// With what is the same in all answers.
    fn finish(mut self) -> Map<String, Value> {
        for (name, value) in [
            ("store", false.into()),
            ("background", false.into()),
            ("previous_response_id", Value::Null),
            ("truncation", "disabled".into()),
            ("top_logprobs", 0.into()),
            ("service_tier", "default".into()),
        ] {
            self.tell(name, value);
        }
        self.0
    }
}

fn refuse_kept(fields: &mut Fields) -> Result<(), ApiError> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.take_value(name).is_some() {
            return Err(ApiError::unsupported(name, KEEPS_NOTHING));
        }
    }
    match fields.take::<bool>("background")? {
        Some(true) => Err(ApiError::unsupported("background", KEEPS_NOTHING)),
        _ => Ok(()),
    }
}

fn refuse_unserved(fields: &mut Fields) -> Result<(), ApiError> {
    fields.refuse_unless("truncation", |value| value == "disabled")?;
    fields.refuse_unless("top_logprobs", |value| value.as_f64() == Some(0.0))?;
    fields.refuse_unless("moderation", |_| false)?;
    // What can be included is of tools that run on the server, encrypted thinking, and log-probabilities. Only the
    // last would be missed.
    let asks_for_scores = |value: &Value| {
        let names = value.as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|name| name == "message.output_text.logprobs")
    };
    fields.refuse_unless("include", |value| value.is_array() && !asks_for_scores(value))
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    match fields.take_count("max_output_tokens")? {
        Some(0) => Err(ApiError::invalid("max_output_tokens", "must be at least 1")),
        limit => Ok(limit),
    }
}

/// How much the model is to think, which templates know by two names.
fn variables(fields: &mut Fields, echo: &mut Echo) -> Result<Map<String, Value>, ApiError> {
    let mut reasoning = Fields::inside(fields.take("reasoning")?.unwrap_or_default());
    let mut text = |name: &str| reasoning.take::<String>(name).map_err(|error| error.within("reasoning"));
    let (effort, summary) = (text("effort")?, text("summary")?);
    reasoning.finish().0.into_iter().for_each(|name| fields.leave(format!("reasoning.{name}")));
    echo.tell("reasoning", json!({"effort": effort, "summary": summary}));
    let mut variables = Map::new();
    if let Some(effort) = effort {
        think(&mut variables, effort);
    }
    Ok(variables)
}

fn format(fields: &mut Fields, echo: &mut Echo) -> Result<Option<Grammar>, ApiError> {
    let mut text = Fields::inside(fields.take("text")?.unwrap_or_default());
    let format = text.take_value("format");
    text.finish().0.into_iter().for_each(|name| fields.leave(format!("text.{name}")));
    let format = format.unwrap_or_else(|| json!({"type": "text"}));
    fields.leave_others("text.format", &format, &["type", "name", "description", "schema", "strict"]);
    let grammar = match format["type"].as_str() {
        Some("text") => None,
        Some("json_object") => Some(grammar::any_object()),
        Some("json_schema") => Some(grammar::schema(SCHEMA, format["schema"].clone())?),
        _ => {
            let what = "must be text, json_object or json_schema";
            return Err(ApiError::invalid("text.format.type", what));
        }
    };
    echo.tell("text", json!({"format": format}));
    Ok(grammar)
}

fn tools(fields: &mut Fields, echo: &mut Echo) -> Result<(Vec<Tool>, ToolChoice), ApiError> {
    let tools = functions::each(fields, ("tools", &known::TOOL), ".name", |mut tool| {
        match tool.text("type")?.as_deref() {
            Some("function") => functions::function(tool, "parameters"),
            kind => {
                let kind = kind.unwrap_or_default();
                let what = format!("only functions are served, got {:?}", short(kind));
                Err(ApiError::unsupported(&tool.path("type"), what))
            }
        }
    })?;
    let told = |tool: &Tool| {
        json!({
            "type": "function", "name": tool.name, "description": tool.description,
            "parameters": tool.parameters, "strict": tool.strict,
        })
    };
    echo.tell("tools", tools.iter().map(told).collect());
    let choice = fields.take_value("tool_choice").unwrap_or_else(|| "auto".into());
    fields.leave_others("tool_choice", &choice, &["type", "name"]);
    let name = choice["name"].as_str().filter(|_| choice["type"] == "function");
    let read = match (choice.as_str(), name) {
        (Some("none"), _) => ToolChoice::None,
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("required"), _) if tools.is_empty() => {
            return Err(ApiError::invalid("tool_choice", "there are no tools"));
        }
        (Some("required"), _) => ToolChoice::Required,
        (_, Some(name)) => {
            functions::check_choice(name, &tools)?;
            ToolChoice::Function(name.into())
        }
        _ => {
            let what = "must be none, auto, required or {\"type\": \"function\", \"name\": …}";
            return Err(ApiError::unsupported("tool_choice", what));
        }
    };
    echo.tell("tool_choice", choice);
    Ok((tools, read))
}

fn input(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let items = match fields.take_value("input") {
        Some(Value::String(content)) => {
            return Ok(vec![Message { role: "user".into(), content, ..Message::default() }]);
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(ApiError::invalid("input", "must be a text or a list of items")),
        None => return Err(ApiError::invalid("input", "missing: give a text or items")),
    };
    // No item becomes more than one message.
    check_count("input", items.len())?;
    items.iter().for_each(|item| known::leave_item(fields, item));
    let mut messages = vec![];
    for (place, item) in items.into_iter().enumerate() {
        let place = format!("input[{place}]");
        match item {
            Value::Object(item) => read_item(&place, &item, &mut messages)?,
            _ => return Err(ApiError::invalid(&place, "must be an object")),
        }
    }
    match messages.is_empty() {
        true => Err(ApiError::invalid("input", "must have at least one message")),
        false => Ok(messages),
    }
}

fn read_item(place: &str, item: &Map<String, Value>, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let wrong = |name: &str, what: &str| ApiError::invalid(&format!("{place}.{name}"), what);
    let text = |name: &str| match item.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(wrong(name, "must be a text")),
    };
    match item.get("type").map_or(Some("message"), Value::as_str) {
        Some("message") => {
            let role = match item.get("role").and_then(Value::as_str) {
                Some("system" | "developer") => "system",
                Some("user") => "user",
                Some("assistant") => "assistant",
                _ => return Err(wrong("role", "must be system, developer, user or assistant")),
            };
            let content = join(place, "content", item.get("content"))?;
            messages.push(Message { role: role.into(), content, ..Message::default() });
        }
        Some("function_call") => {
            let call = ToolCall { id: text("call_id")?, name: text("name")?, arguments: text("arguments")? };
            // What the model said and called in one turn is one message.
            match messages.last_mut().filter(|last| last.role == "assistant") {
                Some(last) => last.tool_calls.push(call),
                None => {
                    let (role, tool_calls) = ("assistant".into(), vec![call]);
                    messages.push(Message { role, tool_calls, ..Message::default() });
                }
            }
        }
        Some("function_call_output") => {
            let content = join(place, "output", item.get("output"))?;
            let (role, tool_call_id) = ("tool".into(), Some(text("call_id")?));
            messages.push(Message { role, content, tool_call_id, ..Message::default() });
        }
        // No template wants thinking of turns that are over.
        Some("reasoning") => {}
        Some("item_reference") => return Err(ApiError::unsupported(place, KEEPS_NOTHING)),
        kind => {
            let what = format!("{:?} is not served here", short(kind.unwrap_or_default()));
            return Err(ApiError::unsupported(&format!("{place}.type"), what));
        }
    }
    Ok(())
}

/// A text, or parts of which all are text.
fn join(place: &str, name: &str, content: Option<&Value>) -> Result<String, ApiError> {
    let field = format!("{place}.{name}");
    let parts = match content {
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        _ => return Err(ApiError::invalid(&field, "must be a text, or a list of text parts")),
    };
    let mut text = String::new();
    for (place, part) in parts.iter().enumerate() {
        let kind = part["type"].as_str().unwrap_or_default();
        let key = if kind == "refusal" { "refusal" } else { "text" };
        match (kind, part[key].as_str()) {
            ("input_text" | "output_text" | "text" | "refusal", Some(more)) => text += more,
            ("input_text" | "output_text" | "text" | "refusal", None) => {
                return Err(ApiError::invalid(&format!("{field}[{place}].{key}"), "must be a text"));
            }
            _ => {
                let what = format!("only text is served, got {:?}", short(kind));
                return Err(ApiError::unsupported(&format!("{field}[{place}].type"), what));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
