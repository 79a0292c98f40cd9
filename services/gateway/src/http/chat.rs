//! `POST /v1/chat/completions`.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use swarm_types::MAX_TOP_LOGPROBS;

use super::{
    Api,
    choices::{self, ChoiceEvent, ChoiceStream, Finished, Usage},
    error::ApiError,
    fields::Fields,
    ignored::Ignored,
    logprobs,
    params::{MaxTokens, Params, StreamUsage, is_empty},
    path_times,
    sse::{self, Envelope},
};
use crate::{
    clients::Principal,
    completion::{Completer, CompletionEvent, CompletionRequest, PlacedToken},
    generation::Operation,
    text::{Chat, ChatTemplate, Message, Next},
};

/// A conversation of more messages does not fit any context.
const MAX_MESSAGES: usize = 10_000;

/// What was asked.
struct ChatRequest {
    chat: Chat,
    params: Params,
    max_tokens: Option<u32>,
    /// Likeliest tokens to report at each place, when log-probabilities are wanted.
    logprobs: Option<u32>,
    /// Tell how long each token's way through the swarm took.
    path_times: bool,
}

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

pub(super) async fn complete(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let (asked, ignored) = ChatRequest::read(fields, &api)?;
    let noted = api.unknown_fields.note(ignored)?;
    let ChatRequest { chat, params, max_tokens, logprobs, path_times } = asked;
    principal.may_use(api.completer.model().names())?;
    let prompt = api.completer.encode_chat(chat).await?;
    let usage = Usage { prompt_tokens: prompt.len() as u64, completion_tokens: 0 };
    let request = |index| {
        let mut sampling = params.sampling_of(index);
        sampling.top_logprobs = logprobs;
        CompletionRequest {
            principal: principal.clone(),
            operation: Operation::Chat,
            prompt: prompt.clone(),
            sampling,
            grammar: None,
            max_tokens,
            stop: params.stop.clone(),
            stop_tokens: params.stop_tokens.clone(),
            ignore_eos: params.ignore_eos,
            score_prompt: None,
        }
    };
    let count = params.n as usize;
    let events = choices::start(&api.completer, (0..count).map(request).collect()).await?;
    let answer = Answer { completer: api.completer.clone(), logprobs, path_times };
    if params.stream {
        let envelope = Envelope::new("chatcmpl", "chat.completion.chunk", api.completer.model());
        return Ok(noted.tell(sse::respond(answer.stream(events, count, envelope, usage, params.usage))));
    }
    let envelope = Envelope::new("chatcmpl", "chat.completion", api.completer.model());
    let finished = choices::collect(events, count).await?;
    Ok(noted.tell(Json(answer.whole(finished, &envelope, usage)).into_response()))
}

impl ChatRequest {
    fn read(mut fields: Fields, api: &Api) -> Result<(Self, Ignored), ApiError> {
        let params = Params::take(&mut fields, api)?;
        let (messages, unknown) = messages(&mut fields)?;
        let request = Self {
            chat: Chat { messages, variables: variables(&mut fields)?, next: next(&mut fields)? },
            path_times: path_times(&mut fields, &params)?,
            max_tokens: max_tokens(params.limit)?,
            params,
            logprobs: top_logprobs(&mut fields)?,
        };
        refuse_unsupported(&mut fields)?;
        let mut ignored = fields.finish();
        ignored.0.extend(unknown);
        Ok((request, ignored))
    }
}

fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let is =
        |allowed: &'static [&str]| move |value: &Value| value.as_str().is_some_and(|v| allowed.contains(&v));
    for tools in ["tools", "functions"] {
        fields.refuse_unless(tools, is_empty)?;
    }
    for choice in ["tool_choice", "function_call"] {
        fields.refuse_unless(choice, is(&["none", "auto"]))?;
    }
    fields.refuse_unless("response_format", |value| *value == json!({"type": "text"}))?;
    fields.refuse_unless("modalities", |value| *value == json!(["text"]))?;
    for name in ["audio", "web_search_options", "moderation"] {
        fields.refuse_unless(name, |_| false)?;
    }
    Ok(())
}

fn max_tokens(limit: Option<MaxTokens>) -> Result<Option<u32>, ApiError> {
    match limit {
        Some(MaxTokens::Tokens(0)) => Err(ApiError::invalid("max_tokens", "must be at least 1")),
        Some(MaxTokens::Tokens(tokens)) => Ok(Some(tokens)),
        Some(MaxTokens::Room) | None => Ok(None),
    }
}

/// What the template is given besides: as it is, and how much the model is to think, which templates know by two names.
pub(super) fn variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let given = fields.take::<Map<String, Value>>("chat_template_kwargs")?.unwrap_or_default();
    if let Some(own) = given.keys().find(|name| ChatTemplate::owns(name)) {
        return Err(ApiError::invalid("chat_template_kwargs", format!("{own} is the server's own")));
    }
    let mut variables = Map::new();
    if let Some(effort) = fields.take::<String>("reasoning_effort")? {
        variables.insert("enable_thinking".into(), (effort != "none").into());
        variables.insert("reasoning_effort".into(), effort.into());
    }
    if let Some(thinks) = fields.take::<bool>("enable_thinking")? {
        variables.insert("enable_thinking".into(), thinks.into());
    }
    variables.extend(given);
    Ok(variables)
}

pub(super) fn next(fields: &mut Fields) -> Result<Next, ApiError> {
    let more: Option<bool> = fields.take("continue_final_message")?;
    let speaks: Option<bool> = fields.take("add_generation_prompt")?;
    match (more, speaks) {
        (Some(true), Some(true)) => {
            let message =
                "not together with add_generation_prompt: the last message goes on, or a new one begins";
            Err(ApiError::invalid("continue_final_message", message))
        }
        (Some(true), _) => Ok(Next::MoreOfTheLast),
        (Some(false), None) | (_, Some(true)) => Ok(Next::NewMessage),
        (None | Some(false), Some(false)) => Ok(Next::Anything),
        (None, None) => Ok(Next::Natural),
    }
}

fn path_times(fields: &mut Fields, params: &Params) -> Result<bool, ApiError> {
    match fields.take("path_times")?.unwrap_or(false) {
        true if !params.stream => Err(ApiError::invalid("path_times", "only together with stream: true")),
        wanted => Ok(wanted),
    }
}

fn top_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.take("logprobs")?.unwrap_or(false);
    let top = fields.take_count("top_logprobs")?;
    match (wanted, top) {
        (_, Some(top)) if top > MAX_TOP_LOGPROBS => {
            Err(ApiError::invalid("top_logprobs", format!("must be 0 to {MAX_TOP_LOGPROBS}, got {top}")))
        }
        (false, Some(1..)) => Err(ApiError::invalid("top_logprobs", "only together with logprobs: true")),
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, _) => Ok(None),
    }
}

/// The messages, and the names of what in them nobody knows.
pub(super) fn messages(fields: &mut Fields) -> Result<(Vec<Message>, Vec<String>), ApiError> {
    let given: Vec<Map<String, Value>> = fields
        .take("messages")?
        .ok_or_else(|| ApiError::invalid("messages", "missing: give at least one message"))?;
    if !(1..=MAX_MESSAGES).contains(&given.len()) {
        let count = given.len();
        return Err(ApiError::invalid(
            "messages",
            format!("must have 1 to {MAX_MESSAGES} messages, got {count}"),
        ));
    }
    let (mut messages, mut unknown) = (vec![], vec![]);
    for (place, message) in given.into_iter().enumerate() {
        messages.push(read_message(place, message, &mut unknown)?);
    }
    Ok((messages, unknown))
}

/// What clients send back of an answer, or say beside a text, and no template looks at.
const BESIDE_TEXT: [&str; 6] =
    ["id", "annotations", "refusal", "reasoning_content", "reasoning", "reasoning_details"];
/// What is part of what a message says.
const PARTS_OF_IT: [&str; 4] = ["tool_calls", "function_call", "tool_call_id", "audio"];

fn read_message(
    place: usize,
    mut message: Map<String, Value>,
    unknown: &mut Vec<String>,
) -> Result<Message, ApiError> {
    let wrong = |name: &str, what: String| ApiError::invalid(&format!("messages[{place}].{name}"), what);
    let role = message.remove("role").unwrap_or_default();
    let role = match role.as_str() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        _ => return Err(wrong("role", format!("must be system, developer, user or assistant, got {role}"))),
    };
    let content = message.remove("content").unwrap_or_default();
    let content = match Content::deserialize(content) {
        Ok(Content::Text(text)) => text,
        Ok(Content::Parts(parts)) => join(parts).map_err(|what| wrong("content", what))?,
        Err(_) => return Err(wrong("content", "must be a text, or a list of text parts".into())),
    };
    let name = match message.remove("name").unwrap_or_default() {
        Value::Null => None,
        Value::String(name) => Some(name),
        other => return Err(wrong("name", format!("must be a text, got {other}"))),
    };
    // What is empty says nothing.
    let said = message.into_iter().filter(|(_, value)| !value.is_null() && !is_empty(value));
    for (field, _) in said {
        if PARTS_OF_IT.contains(&field.as_str()) {
            return Err(wrong(&field, "not supported here, leave it out".into()));
        }
        if !BESIDE_TEXT.contains(&field.as_str()) {
            unknown.push(format!("messages[].{field}"));
        }
    }
    Ok(Message { role: role.into(), content, name, ..Message::default() })
}

fn join(parts: Vec<Part>) -> Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match (part.kind.as_str(), part.text) {
            ("text", Some(part)) => text += &part,
            (kind, _) => return Err(format!("parts must be texts, got {kind:?}")),
        }
    }
    Ok(text)
}

/// How the choices are told.
struct Answer {
    completer: Completer,
    logprobs: Option<u32>,
    path_times: bool,
}

impl Answer {
    fn whole(&self, choices: Vec<Finished>, envelope: &Envelope, mut usage: Usage) -> Value {
        let mut told = vec![];
        for (index, choice) in choices.into_iter().enumerate() {
            usage.completion_tokens += u64::from(choice.completion_tokens);
            told.push(json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": null},
                "logprobs": self.scores(&choice.tokens),
                "finish_reason": choice.reason.as_str(),
            }));
        }
        let mut answer = envelope.with_choices(told);
        answer["usage"] = usage.json();
        answer
    }

    fn stream(
        self,
        mut events: ChoiceStream,
        count: usize,
        envelope: Envelope,
        mut usage: Usage,
        told: StreamUsage,
    ) -> impl Stream<Item = Value> + Send {
        async_stream::stream! {
            let chunk = |index: usize, delta: Value, logprobs: Value, reason: Option<&str>, so_far: Usage| {
                let choice = json!({
                    "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason,
                });
                envelope.chunk(vec![choice], told, so_far)
            };
            for index in 0..count {
                let begins = json!({"role": "assistant", "content": ""});
                yield chunk(index, begins, Value::Null, None, usage);
            }
            while let Some(event) = events.next().await {
                match event {
                    Ok(ChoiceEvent { index, event: CompletionEvent::Chunk(text) }) => {
                        usage.completion_tokens += u64::from(text.path.is_some());
                        let scores = self.scores(&text.tokens);
                        let has_scores = self.logprobs.is_some() && !text.tokens.is_empty();
                        let path = text.path.filter(|_| self.path_times);
                        if has_scores || path.is_some() || !text.text.is_empty() {
                            let delta = json!({"content": text.text});
                            let mut chunk = chunk(index, delta, scores, None, usage);
                            if let Some(path) = path {
                                chunk["path_times"] = path_times::json(&[path]);
                            }
                            yield chunk;
                        }
                    }
                    Ok(ChoiceEvent { index, event: CompletionEvent::Finished { reason, .. } }) => {
                        yield chunk(index, json!({}), Value::Null, Some(reason.as_str()), usage);
                    }
                    Ok(ChoiceEvent { event: CompletionEvent::PromptScores(_), .. }) => {}
                    Err(error) => {
                        yield ApiError::from(error).body_json();
                        return;
                    }
                }
            }
            if told != StreamUsage::Nothing {
                yield envelope.last(usage);
            }
        }
    }

    fn scores(&self, tokens: &[PlacedToken]) -> Value {
        let tokenizer = self.completer.model().tokenizer();
        self.logprobs.map_or(Value::Null, |top| logprobs::chat(tokens, top as usize, tokenizer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: Value) -> Result<(Vec<Message>, Vec<String>), ApiError> {
        super::messages(&mut Fields::parse(json!({"messages": messages}).to_string().as_bytes())?)
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
        assert_eq!(unknown, ["messages[].odd"]);
    }

    #[test]
    fn messages_that_cannot_be_served_are_refused_by_place() {
        for (sent, param) in [
            (json!([]), "messages"),
            (json!("hi"), "messages"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "tool", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user", "content": "x"}, {"role": "user"}]), "messages[1].content"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content"),
            (json!([{"role": "user", "content": "x", "name": 1}]), "messages[0].name"),
            (json!([{"role": "assistant", "content": "x", "audio": {"id": "a"}}]), "messages[0].audio"),
            (json!([{"role": "assistant", "content": "x", "tool_calls": [{}]}]), "messages[0].tool_calls"),
        ] {
            let error = read(sent).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param);
        }
    }

    fn fields(body: Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).expect("an object")
    }

    #[test]
    fn how_a_chat_goes_on_is_taken_as_other_servers_have_it() {
        let next = |body: Value| super::next(&mut fields(body));
        assert_eq!(next(json!({})), Ok(Next::Natural));
        assert_eq!(next(json!({"continue_final_message": true})), Ok(Next::MoreOfTheLast));
        let more = json!({"continue_final_message": true, "add_generation_prompt": false});
        assert_eq!(next(more), Ok(Next::MoreOfTheLast));
        assert_eq!(next(json!({"continue_final_message": false})), Ok(Next::NewMessage));
        assert_eq!(next(json!({"add_generation_prompt": true})), Ok(Next::NewMessage));
        assert_eq!(next(json!({"add_generation_prompt": false})), Ok(Next::Anything));
        assert!(next(json!({"continue_final_message": true, "add_generation_prompt": true})).is_err());
    }

    #[test]
    fn templates_are_told_how_much_to_think_and_what_else_is_given() {
        let variables = |body: Value| super::variables(&mut fields(body)).map(Value::Object);
        assert_eq!(variables(json!({})), Ok(json!({})));
        let none = json!({"reasoning_effort": "none", "enable_thinking": false});
        assert_eq!(variables(json!({"reasoning_effort": "none"})), Ok(none));
        let given =
            json!({"chat_template_kwargs": {"enable_thinking": true, "x": [1]}, "reasoning_effort": "none"});
        let expected = json!({"enable_thinking": true, "x": [1], "reasoning_effort": "none"});
        assert_eq!(variables(given), Ok(expected));
        let own =
            variables(json!({"chat_template_kwargs": {"messages": []}})).expect_err("its own").body_json();
        assert_eq!(own["error"]["param"], "chat_template_kwargs");
    }
}
