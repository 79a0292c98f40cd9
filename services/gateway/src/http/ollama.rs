//! Ollama's API: `POST /api/chat` and `POST /api/generate` are here, embeddings in `embed`, what tells of the model in
//! `models`.

mod answer;
mod embed;
mod models;
mod request;
mod results;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};

use super::{Api, conversation, error::ApiError, fields::Fields};
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

/// The field that says what the text must be like.
const FORMAT: &str = "format";

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
        Wish::Load { unload } => {
            let loaded = answer.loaded(unload);
            let told = match asked.stream {
                true => answer::respond(stream::iter([loaded])),
                false => Json(loaded).into_response(),
            };
            return Ok(noted.tell(told));
        }
        Wish::Chat(request) => api.chatter.start(request).await.map_err(|error| named(error, form))?,
        Wish::Raw { prompt, request } => raw(api, prompt, request).await?,
    };
    let started = ChatStream { events: conversation::held_by(started.events, FORMAT), ..started };
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
    let events =
        choices::start(&api.completer, vec![request]).await.map_err(|error| named(error, Form::Generate))?;
    let events: ChatEvents = events.filter_map(|event| std::future::ready(told(event).transpose())).boxed();
    Ok(ChatStream { prompt_tokens, events })
}

/// What is wrong is said of the field that it came as.
fn named(error: StartError, form: Form) -> ApiError {
    let error = ApiError::from(error).about(GRAMMAR, FORMAT);
    let error = ["stop", "logit_bias"]
        .iter()
        .fold(error, |error, option| error.about(option, &format!("options.{option}")));
    match form {
        Form::Chat => error,
        Form::Generate => error.about("messages", "prompt"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::GenerationError;

    #[test]
    fn what_is_wrong_is_said_of_the_field_that_it_came_as() {
        let told = |field: &str, form| {
            let error = GenerationError::invalid(field, "x");
            named(StartError::Generation(error), form).body_json()["error"]["message"].clone()
        };
        assert_eq!(told(GRAMMAR, Form::Chat), "format: x");
        assert_eq!(told("stop", Form::Chat), "options.stop: x");
        assert_eq!(told("messages", Form::Chat), "messages: x");
        assert_eq!(told("messages", Form::Generate), "prompt: x");
        let (field, prompt_tokens, max_tokens, context_length) = ("messages", 9, 1, 8);
        let error = GenerationError::ContextLength { field, prompt_tokens, max_tokens, context_length };
        let error = named(StartError::Generation(error), Form::Generate).body_json();
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("9 in the prompt") && !message.contains("messages"), "{message}");
    }
}
