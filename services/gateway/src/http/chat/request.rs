//! What is asked of `POST /v1/chat/completions`.

use serde_json::{Map, Value, json};
use swarm_types::MAX_TOP_LOGPROBS;

use super::{messages, tools::Calling};
use crate::{
    chat::ChatRequest,
    clients::Principal,
    http::{
        api::Api,
        conversation,
        error::ApiError,
        fields::Fields,
        grammar,
        ignored::Ignored,
        params::{MaxTokens, Params, StreamUsage},
    },
    text::{Chat, ChatTemplate, Next},
};

/// What is asked, and how the answer is told.
pub(super) struct Asked {
    pub(super) chat: ChatRequest,
    pub(super) stream: bool,
    pub(super) usage: StreamUsage,
    /// Likeliest tokens to report at each place, when log-probabilities are wanted.
    pub(super) logprobs: Option<u32>,
    /// Tell how long each token's way through the swarm took.
    pub(super) path_times: bool,
    /// Says what the text must be like.
    pub(super) grammar_field: &'static str,
}

impl Asked {
    pub(super) fn read(
        mut fields: Fields,
        principal: Principal,
        api: &Api,
    ) -> Result<(Self, Ignored), ApiError> {
        let params = Params::take(&mut fields, api)?;
        let (messages, unknown) = messages::take(&mut fields)?;
        let path_times = path_times(&mut fields, &params)?;
        let logprobs = top_logprobs(&mut fields)?;
        let calling = Calling::take(&mut fields)?;
        let held = grammar::take(&mut fields)?;
        let chat = ChatRequest {
            principal,
            chat: Chat { messages, variables: variables(&mut fields)?, next: next(&mut fields)? },
            tools: calling.tools,
            tool_choice: calling.choice,
            parallel_tool_calls: calling.parallel,
            grammar: held.grammar,
            sampling: params.sampling,
            max_tokens: max_tokens(params.limit)?,
            stop: params.stop,
            stop_tokens: params.stop_tokens,
            ignore_eos: params.ignore_eos,
            shows_control: params.shows_control,
            choices: params.n,
        };
        let mut asked = Self {
            chat,
            stream: params.stream,
            usage: params.usage,
            logprobs,
            path_times,
            grammar_field: held.field,
        };
        asked.chat.sampling.top_logprobs = logprobs;
        refuse_unsupported(&mut fields)?;
        let mut ignored = fields.finish();
        ignored.0.extend(unknown);
        Ok((asked, ignored))
    }
}

fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
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
pub(in crate::http) fn variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let given = fields.take::<Map<String, Value>>("chat_template_kwargs")?.unwrap_or_default();
    if let Some(own) = given.keys().find(|name| ChatTemplate::owns(name)) {
        return Err(ApiError::invalid("chat_template_kwargs", format!("{own} is the server's own")));
    }
    let mut variables = Map::new();
    if let Some(effort) = fields.take::<String>("reasoning_effort")? {
        conversation::think(&mut variables, effort);
    }
    if let Some(thinks) = fields.take::<bool>("enable_thinking")? {
        variables.insert("enable_thinking".into(), thinks.into());
    }
    variables.extend(given);
    Ok(variables)
}

pub(in crate::http) fn next(fields: &mut Fields) -> Result<Next, ApiError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
