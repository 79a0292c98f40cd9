//! What is asked: messages or a prompt, and options to what the core knows.

use serde_json::{Map, Value};
use swarm_types::{Grammar, SamplingParams};

use super::{answer::Form, results::Calls};
use crate::{
    chat::{ChatRequest, ToolCall, ToolChoice},
    clients::Principal,
    http::{
        conversation::{check_count, think},
        error::ApiError,
        fields::Fields,
        functions, grammar,
        ignored::Ignored,
        params,
    },
    text::{Chat, Message, Next},
};

/// Members of a message and of a call that are read, or that change nothing.
const OF_MESSAGES: [&str; 7] =
    ["role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"];
const OF_CALLS: [&str; 3] = ["id", "type", "function"];
const OF_CALLED: [&str; 3] = ["index", "name", "arguments"];

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
        let mut request = request(&mut fields, principal)?;
        refuse_unserved(&mut fields)?;
        let unload = fields.take_value("keep_alive").is_some_and(|time| time == 0 || time == "0");
        let wish = match raw {
            _ if empty => Wish::Load { unload },
            Some(prompt) => Wish::Raw { prompt, request },
            None => {
                request.chat.messages = messages;
                Wish::Chat(request)
            }
        };
        Ok((Self { wish, stream }, fields.finish()))
    }
}

/// What `options` say.
struct Options {
    sampling: SamplingParams,
    max_tokens: Option<u32>,
    stop: Vec<String>,
}

impl Options {
    fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut options = fields.take::<Map<String, Value>>("options")?.unwrap_or_default();
        // As there, it is as good as none.
        options.retain(|name, value| !(name == "seed" && *value == -1));
        let mut options = Fields::inside(options);
        let read = Self::read(&mut options).map_err(|error| error.within("options"))?;
        options.finish().0.into_iter().for_each(|name| fields.leave(format!("options.{name}")));
        Ok(read)
    }

    fn read(options: &mut Fields) -> Result<Self, ApiError> {
        for typical in ["typical_p", "tfs_z"] {
            options.refuse_unless(typical, |value| value.as_f64() == Some(1.0))?;
        }
        options.refuse_unless("mirostat", |value| value.as_f64() == Some(0.0))?;
        Ok(Self {
            sampling: params::sampling(options)?,
            max_tokens: max_tokens(options)?,
            stop: params::stop(options)?,
        })
    }
}

/// All but what it goes on with.
fn request(fields: &mut Fields, principal: &Principal) -> Result<ChatRequest, ApiError> {
    let Options { sampling, max_tokens, stop } = Options::take(fields)?;
    Ok(ChatRequest {
        principal: principal.clone(),
        // A last message of the model goes on.
        chat: Chat { messages: vec![], variables: variables(fields)?, next: Next::Natural },
        tools: functions::nested(fields)?,
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        grammar: format(fields)?,
        sampling,
        max_tokens,
        stop,
        stop_tokens: vec![],
        ignore_eos: false,
        shows_control: false,
        choices: 1,
    })
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
        Some(Value::String(effort)) => think(&mut variables, effort),
        Some(_) => return Err(ApiError::invalid("think", "must be true, false or a text")),
    }
    Ok(variables)
}

fn format(fields: &mut Fields) -> Result<Option<Grammar>, ApiError> {
    match fields.take_value("format") {
        None => Ok(None),
        Some(Value::String(kind)) if kind.is_empty() => Ok(None),
        Some(Value::String(kind)) if kind == "json" => Ok(Some(grammar::any_object())),
        Some(schema) => grammar::schema("format", schema).map(Some),
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
    let given: Vec<Value> = fields.take("messages")?.unwrap_or_default();
    check_count("messages", given.len())?;
    given.iter().for_each(|message| leave_unknown(fields, message));
    let mut calls = Calls::default();
    let read = |(place, message)| read_message(&format!("messages[{place}]"), message, &mut calls);
    given.iter().enumerate().map(read).collect()
}

/// Members that nobody knows.
fn leave_unknown(fields: &mut Fields, message: &Value) {
    fields.leave_others("messages[]", message, &OF_MESSAGES);
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        fields.leave_others("messages[].tool_calls[]", call, &OF_CALLS);
        fields.leave_others("messages[].tool_calls[].function", &call["function"], &OF_CALLED);
    }
}

fn read_message(place: &str, message: &Value, calls: &mut Calls) -> Result<Message, ApiError> {
    if !message.is_object() {
        return Err(ApiError::invalid(place, "must be an object"));
    }
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
