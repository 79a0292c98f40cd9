//! `POST /v1/chat/completions`.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Api,
    choices::{self, ChoiceEvent, ChoiceStream, Finished, Usage},
    error::ApiError,
    fields::Fields,
    logprobs,
    params::{Params, is_empty},
    path_times,
    sse::{self, Envelope},
};
use crate::{
    clients::Principal,
    completion::{Completer, CompletionEvent, CompletionRequest, PlacedToken},
    generation::Operation,
    text::Message,
};

/// A conversation of more messages does not fit any context.
const MAX_MESSAGES: usize = 10_000;

/// What was asked.
struct ChatRequest {
    messages: Vec<Message>,
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
    let ChatRequest { messages, params, max_tokens, logprobs, path_times } =
        ChatRequest::read(fields, &api.completer)?;
    principal.may_use(api.completer.model().id())?;
    let prompt = api.completer.encode_chat(messages).await?;
    let usage = Usage { prompt_tokens: prompt.len() as u64, completion_tokens: 0 };
    let request = |index| {
        let mut sampling = params.sampling_of(index);
        sampling.top_logprobs = logprobs;
        CompletionRequest {
            principal: principal.clone(),
            operation: Operation::Chat,
            prompt: prompt.clone(),
            sampling,
            max_tokens,
            stop: params.stop.clone(),
            ignore_eos: params.ignore_eos,
            score_prompt: None,
        }
    };
    let count = params.n as usize;
    let events = choices::start(&api.completer, (0..count).map(request).collect()).await?;
    let answer = Answer { completer: api.completer.clone(), logprobs, path_times };
    if params.stream {
        let envelope = Envelope::new("chatcmpl", "chat.completion.chunk", api.completer.model());
        let include_usage = params.include_usage;
        return Ok(sse::respond(answer.stream(events, count, envelope, usage, include_usage)));
    }
    let envelope = Envelope::new("chatcmpl", "chat.completion", api.completer.model());
    let finished = choices::collect(events, count).await?;
    Ok(Json(answer.whole(finished, &envelope, usage)).into_response())
}

impl ChatRequest {
    fn read(mut fields: Fields, completer: &Completer) -> Result<Self, ApiError> {
        let params = Params::take(&mut fields, completer.model())?;
        let request = Self {
            messages: messages(&mut fields)?,
            path_times: path_times(&mut fields, &params)?,
            params,
            max_tokens: max_tokens(&mut fields)?,
            logprobs: top_logprobs(&mut fields)?,
        };
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        Ok(request)
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
    for name in ["audio", "prediction", "web_search_options", "reasoning_effort", "verbosity", "moderation"] {
        fields.refuse_unless(name, |_| false)?;
    }
    Ok(())
}

/// The newer name counts where both are given alike.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let old: Option<u32> = fields.take("max_tokens")?;
    let new: Option<u32> = fields.take("max_completion_tokens")?;
    match (old, new) {
        (Some(0), _) => Err(ApiError::invalid("max_tokens", "must be at least 1")),
        (_, Some(0)) => Err(ApiError::invalid("max_completion_tokens", "must be at least 1")),
        (Some(old), Some(new)) if old != new => {
            Err(ApiError::invalid("max_tokens", "differs from max_completion_tokens: give one of them"))
        }
        (old, new) => Ok(new.or(old)),
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
    let top: Option<u32> = fields.take("top_logprobs")?;
    match (wanted, top) {
        (_, Some(top)) if top > swarm_types::MAX_TOP_LOGPROBS => {
            let most = swarm_types::MAX_TOP_LOGPROBS;
            Err(ApiError::invalid("top_logprobs", format!("must be 0 to {most}, got {top}")))
        }
        (false, Some(1..)) => Err(ApiError::invalid("top_logprobs", "only together with logprobs: true")),
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, _) => Ok(None),
    }
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
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
    given.into_iter().enumerate().map(|(place, message)| read_message(place, message)).collect()
}

fn read_message(place: usize, mut message: Map<String, Value>) -> Result<Message, ApiError> {
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
    // Clients send back what an answer held; what was empty there says nothing.
    match message.into_iter().find(|(_, value)| !value.is_null() && !is_empty(value)) {
        Some((name, _)) => Err(wrong(&name, "not supported here, leave it out".into())),
        None => Ok(Message { role: role.into(), content }),
    }
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
        include_usage: bool,
    ) -> impl Stream<Item = Value> + Send {
        async_stream::stream! {
            let chunk = |index: usize, delta: Value, logprobs: Value, reason: Option<&str>| {
                let choice = json!({
                    "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason,
                });
                envelope.chunk(vec![choice], include_usage)
            };
            for index in 0..count {
                yield chunk(index, json!({"role": "assistant", "content": ""}), Value::Null, None);
            }
            while let Some(event) = events.next().await {
                match event {
                    Ok(ChoiceEvent { index, event: CompletionEvent::Chunk(text) }) => {
                        let scores = self.scores(&text.tokens);
                        let has_scores = self.logprobs.is_some() && !text.tokens.is_empty();
                        let path = text.path.filter(|_| self.path_times);
                        if has_scores || path.is_some() || !text.text.is_empty() {
                            let mut chunk = chunk(index, json!({"content": text.text}), scores, None);
                            if let Some(path) = path {
                                chunk["path_times"] = path_times::json(&[path]);
                            }
                            yield chunk;
                        }
                    }
                    Ok(ChoiceEvent { index, event: CompletionEvent::Finished { reason, completion_tokens } }) => {
                        usage.completion_tokens += u64::from(completion_tokens);
                        yield chunk(index, json!({}), Value::Null, Some(reason.as_str()));
                    }
                    Ok(ChoiceEvent { event: CompletionEvent::PromptScores(_), .. }) => {}
                    Err(error) => {
                        yield ApiError::from(error).body_json();
                        return;
                    }
                }
            }
            if include_usage {
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

    fn read(messages: Value) -> Result<Vec<Message>, ApiError> {
        super::messages(&mut Fields::parse(json!({"messages": messages}).to_string().as_bytes())?)
    }

    #[test]
    fn messages_are_taken_in_all_the_forms_that_clients_send() {
        let sent = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": []},
        ]);
        let read = read(sent).expect("taken");
        let pairs: Vec<_> = read.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(pairs, [("system", "be brief"), ("user", "ab"), ("assistant", "c")]);
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
            (json!([{"role": "user", "content": "x", "name": "Ann"}]), "messages[0].name"),
        ] {
            let error = read(sent).expect_err(param).body_json();
            assert_eq!(error["error"]["param"], param);
        }
    }
}
