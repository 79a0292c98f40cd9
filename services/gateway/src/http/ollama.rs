//! `POST /api/chat` and `POST /api/generate`: Ollama's API.

mod answer;
mod embed;
mod models;
mod request;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt;

use super::{Api, error::ApiError, fields::Fields};
use crate::{
    chat::{ChatChunk, ChatEvent, ChatEvents, ChatFinish, ChatRequest, ChatStream, Delta},
    clients::Principal,
    completion::{CompletionEvent, CompletionRequest, GRAMMAR, StartError, choices},
    generation::{FinishReason, Operation},
};
use answer::{Answer, Form};
pub(super) use embed::{embed, embed_one};
pub(super) use models::{list, running, show, version};
use request::{Asked, Wish};

pub(super) async fn chat(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    answer(&api, &principal, fields, Form::Chat).await
}

pub(super) async fn generate(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    fields: Fields,
) -> Result<Response, ApiError> {
    answer(&api, &principal, fields, Form::Generate).await
}

async fn answer(
    api: &Api,
    principal: &Principal,
    mut fields: Fields,
    form: Form,
) -> Result<Response, ApiError> {
    let name = models::take_name(&mut fields, api)?;
    let (asked, ignored) = Asked::read(fields, principal, form)?;
    let noted = api.unknown_fields.note(ignored)?;
    principal.may_use(api.completer.model().names())?;
    let answer = Answer::new(form, name);
    let started = match asked.wish {
        Wish::Load { unload } => return Ok(noted.tell(Json(answer.loaded(unload)).into_response())),
        Wish::Chat(request) => api.chatter.start(request).await.map_err(from_format)?,
        Wish::Raw { prompt, request } => raw(api, prompt, request).await?,
    };
    if asked.stream {
        return Ok(noted.tell(answer::respond(answer.stream(started))));
    }
    Ok(noted.tell(Json(answer.whole(started).await?).into_response()))
}

/// A text goes on as it is, without the template.
async fn raw(api: &Api, prompt: String, request: ChatRequest) -> Result<ChatStream, ApiError> {
    let prompt = api.completer.encode(prompt).await?;
    let prompt_tokens = prompt.len() as u64;
    let request = CompletionRequest {
        principal: request.principal,
        operation: Operation::TextCompletion,
        prompt,
        sampling: request.sampling,
        grammar: request.grammar,
        max_tokens: request.max_tokens,
        stop: request.stop,
        stop_tokens: request.stop_tokens,
        ignore_eos: request.ignore_eos,
        named_tokens: vec![],
        score_prompt: None,
    };
    let events = choices::start(&api.completer, vec![request]).await.map_err(from_format)?;
    let events: ChatEvents = events.filter_map(|event| std::future::ready(told(event).transpose())).boxed();
    Ok(ChatStream { prompt_tokens, events })
}

/// What is wrong with the grammar is said of the field that it came as.
fn from_format(error: StartError) -> ApiError {
    ApiError::from(error).about(GRAMMAR, "format")
}

/// What happens in a completion, as a chat tells it.
fn told<E>(event: Result<choices::ChoiceEvent, E>) -> Result<Option<(usize, ChatEvent)>, E> {
    let choices::ChoiceEvent { index, event } = event?;
    Ok(match event {
        CompletionEvent::PromptScores(_) => None,
        CompletionEvent::Chunk(chunk) => {
            let delta = Delta::Content(chunk.text);
            Some((index, ChatEvent::Chunk(ChatChunk { delta, tokens: chunk.tokens, path: chunk.path })))
        }
        CompletionEvent::Finished { reason, completion_tokens, stop } => {
            let reason = match reason {
                FinishReason::End => ChatFinish::Stop,
                FinishReason::Length => ChatFinish::Length,
            };
            Some((index, ChatEvent::Finished { reason, completion_tokens, reasoning_tokens: 0, stop }))
        }
    })
}
