//! What is asked: messages or a prompt, and options to what the core knows.

use std::collections::VecDeque;

use serde_json::{Map, Value};
use swarm_types::Grammar;

use super::answer::Form;
use crate::{
    chat::{ChatRequest, ToolCall, ToolChoice},
    clients::Principal,
    http::{error::ApiError, fields::Fields, functions, ignored::Ignored, params},
    text::{Chat, Message, Next},
};

/// A conversation of more messages does not fit any context.
const MAX_MESSAGES: usize = 10_000;

/// What was asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) stream: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Wish {
    /// There is nothing to go on with: only the model is to be there, or not any more.
    Load {
        unload: bool,
    },
    Chat(ChatRequest),
    /// A prompt without the template; the request has no messages.
    Raw {
        prompt: String,
        request: ChatRequest,
    },
}

impl Asked {
    /// All fields but the model's name.
    pub(super) fn read(
        mut fields: Fields,
        principal: &Principal,
        form: Form,
    ) -> Result<(Self, Ignored), ApiError> {
        let stream = fields.take("stream")?.unwrap_or(true);
        let (messages, raw) = match form {
            Form::Chat => (conversation(&mut fields)?, None),
            Form::Generate => prompt(&mut fields)?,
        };
        let empty = messages.is_empty() && raw.is_none();
        let (mut request, unknown) = request(&mut fields, principal)?;
        refuse_unserved(&mut fields)?;
        let unload = fields.take_value("keep_alive").is_some_and(|time| time == 0 || time == "0");
        let mut ignored = fields.finish();
        ignored.0.extend(unknown);
        let wish = match raw {
            _ if empty => Wish::Load { unload },
            Some(prompt) => Wish::Raw { prompt, request },
            None => {
                request.chat.messages = messages;
                Wish::Chat(request)
            }
        };
        Ok((Self { wish, stream }, ignored))
    }
}

/// All but what it goes on with, and the names of options that nobody knows.
fn request(fields: &mut Fields, principal: &Principal) -> Result<(ChatRequest, Vec<String>), ApiError> {
    let mut options = fields.take::<Map<String, Value>>("options")?.unwrap_or_default();
    // As there, it is as good as none.
    options.retain(|name, value| !(name == "seed" && *value == -1));
    let mut options = Fields::inside(options);
    for typical in ["typical_p", "tfs_z"] {
        options.refuse_unless(typical, |value| value.as_f64() == Some(1.0))?;
    }
    options.refuse_unless("mirostat", |value| value.as_f64() == Some(0.0))?;
    let request = ChatRequest {
        principal: principal.clone(),
        // A last message of the model goes on.
        chat: Chat { messages: vec![], variables: variables(fields)?, next: Next::Natural },
        tools: functions::nested(fields)?,
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        grammar: format(fields)?,
        sampling: params::sampling(&mut options)?,
        max_tokens: max_tokens(&mut options)?,
        stop: params::stop(&mut options)?,
        stop_tokens: vec![],
        ignore_eos: false,
        shows_control: false,
        choices: 1,
    };
    let unknown = options.finish().0.into_iter().map(|name| format!("options.{name}"));
    Ok((request, unknown.collect()))
}

/// -1 is no limit, and so is -2, which is what the context holds.
fn max_tokens(options: &mut Fields) -> Result<Option<u32>, ApiError> {
    match options.take_whole("num_predict")? {
        None | Some(-1 | -2) => Ok(None),
        Some(tokens @ 1..) => Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX))),
        Some(tokens) => {
            let what = format!("must be at least 1, or -1 for no limit, got {tokens}");
            Err(ApiError::invalid("num_predict", what))
        }
    }
}

fn refuse_unserved(fields: &mut Fields) -> Result<(), ApiError> {
    fields.refuse_unless("template", |value| value == "")?;
    fields.refuse_unless("suffix", |value| value == "")?;
    for name in ["images", "context"] {
        fields.refuse_unless(name, params::is_empty)?;
    }
    fields.refuse_unless("logprobs", |value| *value == false)?;
    fields.refuse_unless("top_logprobs", |value| value.as_f64() == Some(0.0))
}

/// Whether the model is to think, and how much, which templates know by two names.
fn variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut variables = Map::new();
    match fields.take_value("think") {
        None => {}
        Some(Value::Bool(thinks)) => drop(variables.insert("enable_thinking".into(), thinks.into())),
        Some(Value::String(effort)) => {
            variables.insert("enable_thinking".into(), (effort != "none").into());
            variables.insert("reasoning_effort".into(), effort.into());
        }
        Some(_) => return Err(ApiError::invalid("think", "must be true, false or a text")),
    }
    Ok(variables)
}

fn format(fields: &mut Fields) -> Result<Option<Grammar>, ApiError> {
    match fields.take_value("format") {
        None => Ok(None),
        Some(Value::String(kind)) if kind.is_empty() => Ok(None),
        Some(Value::String(kind)) if kind == "json" => Ok(Some(functions::any_object())),
        Some(schema) if schema.is_object() => functions::schema("format", &schema).map(Some),
        Some(_) => Err(ApiError::invalid("format", "must be \"json\" or a JSON Schema")),
    }
}

/// A prompt as messages, or as it is where no template is wanted.
fn prompt(fields: &mut Fields) -> Result<(Vec<Message>, Option<String>), ApiError> {
    let prompt = fields.take::<String>("prompt")?.unwrap_or_default();
    let system = fields.take::<String>("system")?.unwrap_or_default();
    let raw = fields.take::<bool>("raw")?.unwrap_or(false);
    if raw && !system.is_empty() {
        return Err(ApiError::unsupported("system", "not together with raw: put it into the prompt"));
    }
    if prompt.is_empty() {
        return Ok((vec![], None));
    }
    if raw {
        return Ok((vec![], Some(prompt)));
    }
    let message = |role: &str, content| Message { role: role.into(), content, ..Message::default() };
    let system = Some(system).filter(|text| !text.is_empty()).map(|text| message("system", text));
    Ok((system.into_iter().chain([message("user", prompt)]).collect(), None))
}

fn conversation(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let given: Vec<Map<String, Value>> = fields.take("messages")?.unwrap_or_default();
    if given.len() > MAX_MESSAGES {
        let what = format!("must have at most {MAX_MESSAGES} messages, got {}", given.len());
        return Err(ApiError::invalid("messages", what));
    }
    let mut calls = Calls::default();
    let read = |(place, message)| read_message(&format!("messages[{place}]"), message, &mut calls);
    given.iter().enumerate().map(read).collect()
}

/// Calls that have no result yet. Results name them by function, if at all.
#[derive(Default)]
struct Calls {
    waiting: VecDeque<(String, String)>,
    made: usize,
}

impl Calls {
    /// Its id, or one that it gets.
    fn begin(&mut self, id: Option<&str>, name: &str) -> String {
        self.made += 1;
        let id = id.map_or_else(|| format!("call_{}", self.made), str::to_owned);
        self.waiting.push_back((id.clone(), name.to_owned()));
        id
    }

    /// The id of the call that a result is of: the first of that function, or else the first of all.
    fn end(&mut self, id: Option<&str>, name: Option<&str>) -> Option<String> {
        let is = |(waiting, function): &(String, String)| match (id, name) {
            (Some(id), _) => waiting == id,
            (None, Some(name)) => function == name,
            (None, None) => true,
        };
        let place = self.waiting.iter().position(is);
        let ended = self.waiting.remove(place.unwrap_or(0)).map(|(id, _)| id);
        id.map(str::to_owned).or(ended)
    }
}

fn read_message(place: &str, message: &Map<String, Value>, calls: &mut Calls) -> Result<Message, ApiError> {
    let wrong = |name: &str, what: &str| ApiError::invalid(&format!("{place}.{name}"), what);
    let text = |name: &str| match message.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(name, "must be a text")),
    };
    if message.get("images").is_some_and(|images| !images.is_null() && !params::is_empty(images)) {
        return Err(ApiError::unsupported(&format!("{place}.images"), "not supported here, leave it out"));
    }
    let role = match text("role")? {
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => return Err(wrong("role", "must be system, user, assistant or tool")),
    };
    let mut read = Message {
        role: role.into(),
        content: text("content")?.unwrap_or_default().into(),
        ..Message::default()
    };
    read.reasoning_content = text("thinking")?.filter(|text| !text.is_empty()).map(str::to_owned);
    if role == "tool" {
        let name = text("tool_name")?;
        read.tool_call_id = calls.end(text("tool_call_id")?, name);
        read.name = name.map(str::to_owned);
    }
    match message.get("tool_calls").unwrap_or(&Value::Null) {
        Value::Null => {}
        Value::Array(given) => {
            for (index, call) in given.iter().enumerate() {
                let place = format!("{place}.tool_calls[{index}].function");
                let name = call["function"]["name"].as_str();
                let name =
                    name.ok_or_else(|| ApiError::invalid(&format!("{place}.name"), "must be a text"))?;
                let arguments = &call["function"]["arguments"];
                if !arguments.is_object() {
                    return Err(ApiError::invalid(&format!("{place}.arguments"), "must be an object"));
                }
                let id = calls.begin(call["id"].as_str(), name);
                read.tool_calls.push(ToolCall { id, name: name.into(), arguments: arguments.to_string() });
            }
        }
        _ => return Err(wrong("tool_calls", "must be a list")),
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
