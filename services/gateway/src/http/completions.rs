//! `POST /v1/completions`.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use swarm_types::{MAX_TOP_LOGPROBS, TokenId};

use super::{
    Api, conversation,
    error::ApiError,
    fields::Fields,
    grammar::{self, Held},
    ignored::Ignored,
    logprobs::Lists,
    params::{MaxTokens, Params, StreamUsage},
    sse::{self, Envelope},
    texts::{self, Given},
    usage::Usage,
};
use crate::{
    clients::Principal,
    completion::{
        Completer, CompletionEvent, CompletionRequest, GRAMMAR,
        choices::{self, ChoiceEvent, ChoiceStream, Finished},
    },
    generation::Operation,
    waits,
};

/// As OpenAI's API has it.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Prompts times choices.
const MAX_CHOICES: usize = 128;

/// What was asked.
struct Asked {
    prompts: Vec<Given>,
    params: Params,
    max_tokens: Option<u32>,
    held: Held,
    how: How,
}

/// How choices are told.
#[derive(Clone, Copy)]
struct How {
    echo: bool,
    /// Likeliest tokens to report at each place, when log-probabilities are wanted.
    logprobs: Option<u32>,
}

/// A prompt in both forms.
#[derive(Clone)]
struct Prompt {
    tokens: Vec<TokenId>,
    text: String,
}

pub(super) async fn complete(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let (asked, ignored) = Asked::read(fields, &api)?;
    let noted = api.unknown_fields.note(ignored)?;
    let Asked { prompts, params, max_tokens, held, how } = asked;
    principal.may_use(api.completer.model().names())?;
    let mut encoded = vec![];
    for prompt in prompts {
        encoded.push(encode(&api.completer, prompt).await?);
    }
    let prompt_tokens = encoded.iter().map(|prompt| prompt.tokens.len() as u64).sum();
    let usage = Usage::of_prompts(prompt_tokens);
    let each = params.n as usize;
    let prompts: Vec<Prompt> = encoded.into_iter().flat_map(|prompt| vec![prompt; each]).collect();
    let tokenizer = api.completer.model().tokenizer();
    let named = if params.shows_control { tokenizer.controls() } else { vec![] };
    let request = |(index, prompt): (usize, &Prompt)| {
        let mut sampling = params.sampling_of(index);
        sampling.top_logprobs = how.logprobs;
        CompletionRequest {
            principal: principal.clone(),
            operation: Operation::TextCompletion,
            prompt: prompt.tokens.clone(),
            sampling,
            grammar: held.grammar.clone(),
            max_tokens,
            stop: params.stop.clone(),
            stop_tokens: params.stop_tokens.clone(),
            ignore_eos: params.ignore_eos,
            score_prompt: how.logprobs.filter(|_| how.echo),
            named_tokens: named.clone(),
        }
    };
    let requests = prompts.iter().enumerate().map(request).collect();
    if params.stream {
        waits::streams();
    }
    let started = choices::start(&api.completer, requests).await;
    let events = started.map_err(|error| ApiError::from(error).about(GRAMMAR, held.field))?;
    let events = conversation::held_by(events, held.field);
    let envelope = Envelope::new("cmpl", "text_completion", api.completer.model());
    let answer = Answer { completer: api.completer.clone(), how, prompts };
    if params.stream {
        return Ok(noted.tell(sse::respond(answer.stream(events, envelope, usage, params.usage))));
    }
    let finished = choices::collect(events, answer.prompts.len()).await?;
    Ok(noted.tell(Json(answer.whole(finished, &envelope, usage)).into_response()))
}

impl Asked {
    fn read(mut fields: Fields, api: &Api) -> Result<(Self, Ignored), ApiError> {
        let params = Params::take(&mut fields, api)?;
        let prompts = prompts(&mut fields)?;
        let count = prompts.len() * params.n as usize;
        if count > MAX_CHOICES {
            let message = format!("at most {MAX_CHOICES} prompts times n, got {count}");
            return Err(ApiError::invalid("prompt", message));
        }
        let logprobs = logprobs(&mut fields)?;
        if let Some(top) = logprobs.filter(|top| *top > MAX_TOP_LOGPROBS) {
            return Err(ApiError::invalid("logprobs", format!("must be 0 to {MAX_TOP_LOGPROBS}, got {top}")));
        }
        let asked = Self {
            prompts,
            max_tokens: match params.limit {
                None => Some(DEFAULT_MAX_TOKENS),
                Some(MaxTokens::Tokens(tokens)) => Some(tokens),
                Some(MaxTokens::Room) => None,
            },
            held: grammar::take(&mut fields)?,
            how: How { echo: fields.take("echo")?.unwrap_or(false), logprobs },
            params,
        };
        fields.ignore("parallel_tool_calls");
        fields.refuse_unless("suffix", |value| value == "")?;
        Ok((asked, fields.finish()))
    }
}

/// A number; some clients have it off as `false`.
fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    match fields.take_value("logprobs") {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(value) => Fields::of("logprobs", value).take_count("logprobs"),
    }
}

fn prompts(fields: &mut Fields) -> Result<Vec<Given>, ApiError> {
    match texts::take(fields, "prompt")? {
        None => Err(ApiError::invalid("prompt", "missing: give a text or token ids")),
        Some(prompts) if prompts.is_empty() => Err(ApiError::invalid("prompt", "must not be empty")),
        Some(prompts) => Ok(prompts),
    }
}

async fn encode(completer: &Completer, given: Given) -> Result<Prompt, ApiError> {
    match given {
        Given::Text(text) => Ok(Prompt { tokens: completer.encode(text.clone()).await?, text }),
        Given::Tokens(tokens) => {
            let tokenizer = completer.model().tokenizer();
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.bytes(*token)).copied().collect();
            Ok(Prompt { tokens, text: String::from_utf8_lossy(&bytes).into_owned() })
        }
    }
}

struct Answer {
    completer: Completer,
    how: How,
    /// Of each choice.
    prompts: Vec<Prompt>,
}

impl Answer {
    fn whole(&self, choices: Vec<Finished>, envelope: &Envelope, mut usage: Usage) -> Value {
        let mut told = vec![];
        for (index, choice) in choices.into_iter().enumerate() {
            usage.completion_tokens += u64::from(choice.completion_tokens);
            let prompt = &self.prompts[index];
            let echoed = if self.how.echo { prompt.text.as_str() } else { "" };
            told.push(json!({
                "index": index,
                "text": format!("{echoed}{}", choice.text),
                "logprobs": self.scores(prompt, &choice),
                "finish_reason": choice.reason.as_str(),
            }));
        }
        let mut answer = envelope.with_choices(told);
        answer["usage"] = usage.json();
        answer
    }

    fn scores(&self, prompt: &Prompt, choice: &Finished) -> Value {
        let Some(top) = self.how.logprobs else { return Value::Null };
        let (tokenizer, top) = (self.completer.model().tokenizer(), top as usize);
        let mut lists = match self.how.echo {
            true => Lists::prompt(&prompt.tokens, &choice.prompt_scores, top, tokenizer),
            false => Lists::default(),
        };
        lists.extend(&choice.tokens, self.echoed_chars(prompt), top, tokenizer);
        lists.json()
    }

    fn echoed_chars(&self, prompt: &Prompt) -> usize {
        if self.how.echo { prompt.text.chars().count() } else { 0 }
    }

    fn stream(
        self,
        mut events: ChoiceStream,
        envelope: Envelope,
        mut usage: Usage,
        told: StreamUsage,
    ) -> impl Stream<Item = Value> + Send {
        async_stream::stream! {
            let (tokenizer, top) = (self.completer.model().tokenizer(), self.how.logprobs);
            let chunk = |index: usize, text: &str, logprobs: Option<Lists>, reason: Option<&str>, so_far: Usage| {
                let logprobs = logprobs.map(|lists| lists.json());
                let choice = json!({
                    "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason,
                });
                envelope.chunk(vec![choice], told, so_far)
            };
            // The prompt's scores come before the first text; with them, so does the echo.
            let mut scores = vec![vec![]; self.prompts.len()];
            let mut echoed = vec![!self.how.echo; self.prompts.len()];
            while let Some(event) = events.next().await {
                let ChoiceEvent { index, event } = match event {
                    Ok(event) => event,
                    Err(error) => {
                        yield usage.at_the_break(&ApiError::from(error));
                        return;
                    }
                };
                let prompt = &self.prompts[index];
                if let CompletionEvent::PromptScores(more) = event {
                    scores[index].extend(more);
                    continue;
                }
                if !std::mem::replace(&mut echoed[index], true) {
                    let scores = std::mem::take(&mut scores[index]);
                    let lists = top.map(|top| Lists::prompt(&prompt.tokens, &scores, top as usize, tokenizer));
                    yield chunk(index, &prompt.text, lists, None, usage);
                }
                match event {
                    CompletionEvent::Chunk(text) => {
                        usage.completion_tokens += u64::from(text.path.is_some());
                        let lists = top.filter(|_| !text.tokens.is_empty()).map(|top| {
                            let mut lists = Lists::default();
                            lists.extend(&text.tokens, self.echoed_chars(prompt), top as usize, tokenizer);
                            lists
                        });
                        if lists.is_some() || !text.text.is_empty() {
                            yield chunk(index, &text.text, lists, None, usage);
                        }
                    }
                    CompletionEvent::Finished { reason, .. } => {
                        yield chunk(index, "", None, Some(reason.as_str()), usage);
                    }
                    CompletionEvent::PromptScores(_) => {}
                }
            }
            if told != StreamUsage::Nothing {
                yield envelope.last(usage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_taken_in_all_their_forms() {
        let count = |prompt: Value| {
            let body = json!({"prompt": prompt}).to_string();
            prompts(&mut Fields::parse(body.as_bytes()).expect("an object")).map(|prompts| prompts.len())
        };
        assert_eq!(count(json!("a")), Ok(1));
        assert_eq!(count(json!(["a", "b"])), Ok(2));
        assert_eq!(count(json!([1, 2, 3])), Ok(1));
        assert_eq!(count(json!([[1, 2], [3]])), Ok(2));
        for wrong in [json!(null), json!([]), json!(1), json!([1, "a"]), json!([-1]), json!({"a": 1})] {
            let error = count(wrong).expect_err("refused").body_json();
            assert_eq!(error["error"]["param"], "prompt");
        }
    }
}
